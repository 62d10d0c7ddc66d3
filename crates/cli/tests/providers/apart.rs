//! Sandboxes that are unlike the others: libkrun has no tap, and Kata starts
//! VMMs of several kinds in its pods' namespaces.

use crate::fleet::{Watch, of_type, records};
use crate::support::{CANARY, config, lab, started};
use sandtrace_lab::StandInForm;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// What `list` says of this sandbox.
#[track_caller]
fn listed(id: &str) -> Value {
    let mut list = Command::new(env!("CARGO_BIN_EXE_sandtrace"));
    let output = list.args(["list", "--json"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains(CANARY), "{text}");
    let json: Value = serde_json::from_str(&text).unwrap();
    let all = json["sandboxes"].as_array().unwrap();
    let ours = all.iter().find(|it| it["sandbox_id"] == id);
    ours.unwrap_or_else(|| panic!("no {id}: {text}")).clone()
}

/// What is said not to be seen of a layer.
fn missing(found: &Value, layer: &str) -> String {
    let coverage = found["coverage"].as_array().unwrap().iter();
    let ours = coverage.filter(|it| it["layer"] == layer);
    ours.map(|it| format!("{}\n", it["missing"])).collect()
}

#[test]
fn libkrun_has_files_and_calls_but_no_network() {
    let Some(lab) = lab("libkrun_has_files_and_calls_but_no_network") else {
        return;
    };
    let id = format!("i{}krun", lab.id());
    let mut vmm = started(&lab, &config(&lab, StandInForm::Libkrun, &id));
    let told = listed(&id);
    let found = &told["found"];
    assert_eq!(found["provider"], "libkrun", "{told}");
    assert_eq!(told["evidence_tier"], "hypervisor", "{told}");
    assert_eq!(found["taps"], Value::Null, "{told}");
    assert_eq!(found["disks"][0]["path"], vmm.disk().to_str().unwrap());
    assert!(missing(found, "network").contains("never reaches an interface"));
    let since = Instant::now();
    let often = ["--scan-interval", "200ms", "--syscall-interval", "300ms"];
    let more = [&["--provider", "libkrun"], &often[..]].concat();
    let command = Command::new(env!("CARGO_BIN_EXE_sandtrace"));
    let watch = Watch::over(command, &lab, &more);
    watch.await_trail(&id, "sandbox_attached");
    // Nobody waits for a tap.
    assert!(since.elapsed() < Duration::from_secs(10));
    watch.await_trail(&id, "\"filesystem_change\"");
    watch.await_trail(&id, "\"write\"");
    vmm.kill();
    let trail = watch.await_trail(&id, "trail_end");
    watch.interrupt();
    let all = records(&trail);
    let capture = all[0]["payload"]["capture"].as_array().unwrap();
    let backend = |layer: &str| {
        let own = capture.iter().find(|own| own["layer"] == layer);
        own.unwrap()["backend"].as_str().unwrap().to_owned()
    };
    assert_eq!(backend("network"), "off");
    assert_eq!(backend("syscall"), "ebpf");
    let change = of_type(&all, "filesystem_change")[0];
    assert_eq!(change["payload"]["path"], "/from-the-guest", "{change}");
    assert_eq!(change["evidence_tier"], "hypervisor", "{change}");
    let attached = &of_type(&all, "sandbox_attached")[0]["payload"];
    assert!(missing(attached, "network").contains("never reaches an interface"));
    let mut verify = Command::new(env!("CARGO_BIN_EXE_sandtrace"));
    let verified = verify.arg("verify").arg(&trail).output().unwrap();
    assert!(verified.status.success(), "{verified:?}");
}

/// As Kata's runtime keeps it.
struct Kept(PathBuf);

impl Kept {
    fn new(id: &str) -> Self {
        let dir = PathBuf::from("/run/vc/sbs").join(id);
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
        // Where nothing else is in them.
        for above in ["/run/vc/sbs", "/run/vc"] {
            let _ = fs::remove_dir(above);
        }
    }
}

#[test]
fn katas_vmms_are_known_by_the_id_of_their_pod() {
    let Some(lab) = lab("katas_vmms_are_known_by_the_id_of_their_pod") else {
        return;
    };
    let watch = Watch::start(&lab, &["--syscalls", "off"]);
    for (form, kind) in [
        (StandInForm::CloudHypervisor, "cloud-hypervisor"),
        (StandInForm::Firecracker, "firecracker"),
    ] {
        let id = format!("i{}kata{kind}", lab.id());
        let _kept = Kept::new(&id);
        let mut config = config(&lab, form, &id);
        "tap0_kata".clone_into(&mut config.tap);
        let vmm = started(&lab, &config);
        let trail = watch.await_trail(&id, "network_egress");
        let found = &listed(&id)["found"];
        assert_eq!(found["provider"], kind);
        assert_eq!(found["labels"]["kata.sandbox"], *id, "{found}");
        let [tap] = found["taps"].as_array().unwrap().as_slice() else {
            panic!("{found}")
        };
        assert_eq!(tap["interface"], "tap0_kata");
        assert_eq!(tap["netns"], vmm.netns());
        let shared = format!("/run/kata-containers/shared/sandboxes/{id}");
        assert!(missing(found, "filesystem").contains(&shared), "{found}");
        let all = records(&trail);
        let attached = &of_type(&all, "sandbox_attached")[0]["payload"];
        assert_eq!(attached["labels"]["kata.sandbox"], *id);
    }
    watch.interrupt();
}
