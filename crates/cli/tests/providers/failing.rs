//! Something fails of one sandbox: it is said in its trail, the rest of it is
//! watched further, and those beside it are watched as if they were alone.

use crate::fleet::{Watch, check_trail, of_type, records};
use crate::support::{Alone, config, lab};
use rustix::process::{Pid, Signal, kill_process};
use sandtrace_lab::{SlotSandbox, StandIn, StandInConfig, StandInForm};
use serde_json::Value;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Sends so many frames, one each 20 ms.
fn sends(lab: &Alone, form: StandInForm, name: &str, frames: u32) -> StandInConfig {
    let id = format!("i{}{name}", lab.id());
    StandInConfig {
        boot_args: format!("standin.frames={frames} standin.gap_ms=20 standin.delay_ms=50"),
        ..config(lab, form, &id)
    }
}

/// What a guest that is root can do to its disk.
fn break_disk(device: &Path) {
    let device = File::options().write(true).open(device).unwrap();
    device.write_all_at(&[0xa5; 1 << 20], 0).unwrap();
    device.sync_all().unwrap();
}

#[track_caller]
fn ip(words: &[&str]) {
    let status = Command::new("ip").args(words).status();
    assert!(status.unwrap().success(), "{words:?}");
}

fn causes(records: &[Value]) -> Vec<&str> {
    let gaps = of_type(records, "capture_gap").into_iter();
    let mut causes: Vec<_> = gaps
        .map(|gap| gap["payload"]["cause"].as_str().unwrap())
        .collect();
    causes.dedup();
    causes
}

/// Frames of each sandbox.
const FRAMES: u32 = 100;

#[test]
fn what_fails_of_one_sandbox_is_its_own_gap() {
    let Some(lab) = lab("what_fails_of_one_sandbox_is_its_own_gap") else {
        return;
    };
    let slot = lab.slot(1).unwrap();
    let often = ["--state-interval", "100ms"];
    let watch = Watch::start(&lab, &[&often[..], &["--syscalls", "off"]].concat());
    let plain = |name: &str| -> (String, StandIn) {
        let config = sends(&lab, StandInForm::Firecracker, name, FRAMES);
        let vmm = lab.stand_in(&config).unwrap();
        watch.await_trail(&config.sandbox_id, "sandbox_attached");
        (config.sandbox_id, vmm)
    };
    let (nameless, mut without_name) = plain("nameless");
    let (stopped, mut silent) = plain("stopped");
    let others = ["one", "two"].map(plain);
    let broken = sends(&lab, StandInForm::E2b, "broken", FRAMES);
    let mut on_broken: SlotSandbox = slot.sandbox(&broken).unwrap();
    let broken = broken.sandbox_id;
    watch.await_trail(&broken, "sandbox_attached");
    // The baselines.
    std::thread::sleep(Duration::from_millis(800));
    let vmms = [
        &without_name,
        &silent,
        &others[0].1,
        &others[1].1,
        &on_broken,
    ];
    for vmm in vmms {
        vmm.start().unwrap();
    }
    // All go wrong while everybody sends.
    break_disk(on_broken.disk());
    ip(&["netns", "del", without_name.netns()]);
    let pid = Pid::from_raw(i32::try_from(silent.pid()).unwrap()).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    kill_process(pid, Signal::STOP).unwrap();
    watch.await_trail(&stopped, "\"paused\"");
    std::thread::sleep(Duration::from_millis(800));
    kill_process(pid, Signal::CONT).unwrap();
    watch.await_trail(&broken, "disk_unreadable");
    std::thread::sleep(Duration::from_millis(2500));
    without_name.kill();
    silent.kill();
    on_broken.kill();
    let mut ids = vec![nameless, stopped, broken.clone()];
    for (id, mut vmm) in others {
        vmm.kill();
        ids.push(id);
    }
    for id in &ids {
        let trail = watch.await_trail(id, "trail_end");
        check_trail(&trail, id, u64::from(FRAMES));
        let expected: &[&str] = if *id == broken {
            &["disk_unreadable"]
        } else {
            &[]
        };
        assert_eq!(causes(&records(&trail)), expected, "{id}");
    }
    watch.interrupt();
}

/// Somebody who takes events and reads none of them holds up no trail.
#[test]
fn an_output_that_is_full_concerns_no_trail() {
    let Some(lab) = lab("an_output_that_is_full_concerns_no_trail") else {
        return;
    };
    let collector = lab.dir().join("collector.sock");
    let listener = UnixListener::bind(&collector).unwrap();
    let output = format!("unix://{}", collector.display());
    let watch = Watch::start(&lab, &["-o", &output, "--syscalls", "off"]);
    let (_deaf, _) = listener.accept().unwrap();
    let start = |name: &str, sends: &str| {
        let id = format!("i{}{name}", lab.id());
        let mut config = config(&lab, StandInForm::Firecracker, &id);
        sends.clone_into(&mut config.boot_args);
        let vmm = lab.stand_in(&config).unwrap();
        watch.await_trail(&id, "sandbox_attached");
        vmm.start().unwrap();
        (id, vmm)
    };
    let flood = "standin.frames=200000 standin.gap_ms=0 standin.delay_ms=50";
    let (_flooder, flooding) = start("flood", flood);
    std::thread::sleep(Duration::from_millis(1500));
    let quiet = "standin.frames=50 standin.gap_ms=20 standin.delay_ms=50";
    let mut others = ["one", "two"].map(|name| start(name, quiet));
    std::thread::sleep(Duration::from_millis(2500));
    for (id, vmm) in &mut others {
        vmm.kill();
        let trail = watch.await_trail(id, "trail_end");
        check_trail(&trail, id, 50);
        assert!(causes(&records(&trail)).is_empty(), "{id}");
    }
    drop(flooding);
    let said = watch.interrupt();
    assert!(said.contains("events were not delivered"), "{said}");
}
