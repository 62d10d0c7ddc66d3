//! Snapshots that a VMM makes of its guest, and guests that go on from one.

use crate::fleet::{Watch, of_type, records};
use crate::support::{Alone, config, lab, started};
use sandtrace_lab::{StandInConfig, StandInForm};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn talker(lab: &Alone, form: StandInForm, id: &str) -> StandInConfig {
    StandInConfig {
        boot_args: "standin.frames=100000 standin.gap_ms=20 standin.delay_ms=50".to_owned(),
        ..config(lab, form, id)
    }
}

/// Paths that the VMM opened for writing.
fn written(records: &[Value]) -> Vec<String> {
    let calls = of_type(records, "syscall_activity").into_iter();
    let calls = calls.map(|record| &record["payload"]["call"]);
    calls
        .filter(|call| call["detail"] == "for writing")
        .map(|call| call["path"].as_str().unwrap().to_owned())
        .collect()
}

fn labels(record: &Value) -> &Value {
    &record["payload"]["labels"]["firecracker.guest"]
}

/// What differs between two copies of a disk.
fn differences(before: &Path, after: &Path) -> String {
    let mut fsdiff = Command::new(env!("CARGO_BIN_EXE_sandtrace"));
    let output = fsdiff
        .arg("fsdiff")
        .arg(before)
        .arg(after)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_snapshot_and_the_guest_that_goes_on_from_it_are_on_record() {
    let Some(lab) = lab("a_snapshot_and_the_guest_that_goes_on_from_it_are_on_record") else {
        return;
    };
    let dir = lab.dir().join("point");
    fs::create_dir(&dir).unwrap();
    let more = [
        "--syscalls",
        "ebpf",
        "--syscall-interval",
        "300ms",
        "--state-interval",
        "100ms",
    ];
    let watch = Watch::start(&lab, &more);
    let (first, second) = (format!("i{}made", lab.id()), format!("i{}goes", lab.id()));
    let before = talker(&lab, StandInForm::E2b, &first);
    let mut vmm = started(&lab, &before);
    watch.await_trail(&first, "network_egress");
    vmm.pause(true).unwrap();
    watch.await_trail(&first, "\"paused\"");
    vmm.snapshot(&dir).unwrap();
    // The snapshot holds no disk: whoever makes it keeps a copy.
    fs::copy(&before.disk, dir.join("rootfs.ext4")).unwrap();
    vmm.pause(false).unwrap();
    watch.await_trail(&first, "\"running\"");
    std::thread::sleep(Duration::from_millis(700));
    vmm.kill();
    let made = records(&watch.await_trail(&first, "trail_end"));
    let opened = written(&made);
    for name in ["snapshot", "memory"] {
        let path = dir.join(name).display().to_string();
        assert!(opened.contains(&path), "no {path}: {opened:?}");
    }
    let attached = of_type(&made, "sandbox_attached");
    assert!(
        attached.iter().all(|it| labels(it).is_null()),
        "it was booted"
    );
    // Another VMM takes the guest over.
    let after = StandInConfig {
        sandbox_id: second.clone(),
        ..before.clone()
    };
    let mut vmm = lab.stand_in_unconfigured(&after).unwrap();
    vmm.restore(&dir).unwrap();
    watch.await_trail(&second, "network_egress");
    watch.await_trail(&second, "\"restored\"");
    vmm.kill();
    let goes = records(&watch.await_trail(&second, "trail_end"));
    let last = *of_type(&goes, "sandbox_attached").last().unwrap();
    assert_eq!(*labels(last), "restored", "{last}");
    assert_eq!(last["payload"]["disks"].as_array().unwrap().len(), 1);
    watch.interrupt();
    assert_eq!(
        differences(&dir.join("rootfs.ext4"), &after.disk),
        "no difference\n"
    );
}

/// As a guest writes.
fn write_to(image: &Path, name: &str) {
    let mut debugfs = Command::new("debugfs");
    let order = format!("write /etc/hostname {name}");
    let output = debugfs.args(["-w", "-R", &order]).arg(image).output();
    assert!(output.unwrap().status.success());
}

#[track_caller]
fn fsdiff(args: &[&str], code: i32) -> String {
    let mut fsdiff = Command::new(env!("CARGO_BIN_EXE_sandtrace"));
    let output = fsdiff.arg("fsdiff").args(args).output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8(said).unwrap()
}

/// What a running sandbox has open, which in a jail has no name outside.
#[test]
fn the_disk_of_a_running_sandbox_is_compared() {
    let Some(lab) = lab("the_disk_of_a_running_sandbox_is_compared") else {
        return;
    };
    let base = lab.dir().join("base.ext4");
    for form in [StandInForm::Jailed, StandInForm::E2b] {
        let id = format!("i{}{form:?}", lab.id()).to_lowercase();
        let config = config(&lab, form, &id);
        fs::copy(&config.disk, &base).unwrap();
        let vmm = started(&lab, &config);
        let args = [base.to_str().unwrap(), "--sandbox", &id];
        assert_eq!(fsdiff(&args, 0), "no difference\n", "{form:?}");
        write_to(vmm.disk(), "planted");
        let said = fsdiff(&args, 0);
        assert!(said.starts_with("created   /planted"), "{said}");
        assert!(said.ends_with("1 difference\n"), "{said}");
        assert!(fsdiff(&["--sandbox", &id], 64).contains("name that first"));
        let other = [&args[..], &["--disk", "/none"]].concat();
        assert!(fsdiff(&other, 64).contains("choose one by --disk"));
    }
    // Firecracker's disks are raw, whatever they are called.
    let id = format!("i{}named", lab.id());
    let mut named = config(&lab, StandInForm::ConfigFile, &id);
    let misleading = named.disk.with_extension("qcow2");
    fs::rename(&named.disk, &misleading).unwrap();
    fs::copy(&misleading, &base).unwrap();
    named.disk = misleading;
    let _vmm = started(&lab, &named);
    let args = [base.to_str().unwrap(), "--sandbox", &id];
    assert_eq!(fsdiff(&args, 0), "no difference\n");
    let id = format!("i{}krun", lab.id());
    let _vmm = started(&lab, &config(&lab, StandInForm::Libkrun, &id));
    std::thread::sleep(Duration::from_millis(500));
    let said = fsdiff(&["--sandbox", &id], 0);
    assert!(said.starts_with("created   /from-the-guest"), "{said}");
    assert!(fsdiff(&["--sandbox", "none-such"], 69).contains("no sandbox"));
}

/// A block device over a file, as E2B's nbd is over its own.
struct Loop(String);

impl Loop {
    fn over(file: &Path) -> Self {
        let mut losetup = Command::new("losetup");
        let output = losetup.args(["--find", "--show"]).arg(file).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
        let device = String::from_utf8(output.stdout).unwrap();
        Self(device.trim_end().to_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).output();
    }
}

/// E2B's orchestrator gives its VMM a link to a block device.
#[test]
fn a_block_device_is_watched_and_compared() {
    let Some(lab) = lab("a_block_device_is_watched_and_compared") else {
        return;
    };
    let watch = Watch::start(&lab, &["--syscalls", "off"]);
    let id = format!("i{}block", lab.id());
    let mut config = config(&lab, StandInForm::E2b, &id);
    let base = lab.dir().join("base.ext4");
    fs::copy(&config.disk, &base).unwrap();
    let device = Loop::over(&config.disk);
    let link = lab.dir().join(format!("rootfs-{id}-x1.link"));
    std::os::unix::fs::symlink(&device.0, &link).unwrap();
    config.disk = link;
    let mut vmm = started(&lab, &config);
    let trail = watch.await_trail(&id, "network_egress");
    let found = records(&trail);
    let disk = &of_type(&found, "sandbox_attached")[0]["payload"]["disks"][0];
    assert_eq!(disk["path"], device.0, "{disk}");
    assert_eq!(disk["kind"], "ext4", "{disk}");
    // The baseline, then a write.
    std::thread::sleep(Duration::from_millis(500));
    write_to(Path::new(&device.0), "planted");
    watch.await_trail(&id, "/planted");
    let said = fsdiff(&[base.to_str().unwrap(), "--sandbox", &id], 0);
    assert!(said.starts_with("created   /planted"), "{said}");
    vmm.kill();
    watch.await_trail(&id, "trail_end");
    watch.interrupt();
    let all = records(&trail);
    let change = of_type(&all, "filesystem_change")[0];
    assert_eq!(change["payload"]["op"], "created", "{change}");
    assert_eq!(change["payload"]["source"], "block", "{change}");
    assert!(of_type(&all, "capture_gap").is_empty(), "{all:?}");
}
