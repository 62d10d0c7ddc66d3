//! What these tests share.

/// What no output may hold.
pub(crate) use sandtrace_lab::CANARY;
use sandtrace_lab::{Lab, LabConfig, StandIn, StandInConfig, StandInForm, TreeEntry, make_image};
use serde_json::json;
use std::fmt::Display;
use std::fs::File;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// A lab, and the right to be the only test with VMMs on this host: what
/// watches all sandboxes would find those of another test too.
pub(crate) struct Alone {
    lab: Lab,
    _lock: File,
}

impl Deref for Alone {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.lab
    }
}

/// A plain user hears what was skipped; in CI nothing is.
pub(crate) fn lab(test: &str) -> Option<Alone> {
    let lock = File::create(std::env::temp_dir().join("sandtrace-providers.lock")).unwrap();
    lock.lock().unwrap();
    // The first use of a key says so, which is no answer to these tests.
    let mut init = Command::new(env!("CARGO_BIN_EXE_sandtrace"));
    init.args(["keys", "init"]).output().unwrap();
    match Lab::new(&LabConfig::default()) {
        Ok(lab) => Some(Alone { lab, _lock: lock }),
        Err(error) => {
            skipped(test, &error);
            None
        }
    }
}

/// Says what is not tested here, and why. In CI everything is.
pub(crate) fn skipped(what: &str, why: &dyn Display) {
    assert!(std::env::var_os("CI").is_none(), "{what}: {why}");
    println!("skipped: {what}: {why}");
}

pub(crate) fn config(lab: &Lab, form: StandInForm, id: &str) -> StandInConfig {
    let disk: PathBuf = lab.dir().join(format!("{id}.ext4"));
    let tree = [TreeEntry::text("/etc/hostname", id, 0o644)];
    make_image(&disk, 8 << 20, &tree).unwrap();
    StandInConfig {
        form,
        sandbox_id: id.to_owned(),
        namespace: "default".to_owned(),
        disk,
        tap: "tap0".to_owned(),
        metadata: json!({
            "agent_id": "billing", "instanceID": id, "envID": "tpl-1",
            "accessTokenHash": CANARY, "address": CANARY,
        }),
        boot_args: "standin.frames=5 standin.gap_ms=20 standin.delay_ms=100".to_owned(),
        real: false,
        pid: None,
    }
}

/// A running VMM.
pub(crate) fn started(lab: &Lab, config: &StandInConfig) -> StandIn {
    let vmm = lab.stand_in(config).unwrap();
    vmm.start().unwrap();
    vmm
}

/// How a program ended, which it must do soon: where it hangs, the test fails.
#[track_caller]
pub(crate) fn ended(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("{child:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
