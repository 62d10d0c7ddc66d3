//! Sandboxes that are unlike the others: libkrun has no tap, and Kata starts
//! VMMs of several kinds in its pods' namespaces.

use crate::fleet::{Watch, of_type, records};
use crate::support::{Alone, CANARY, config, lab, started};
use sandtrace_lab::StandInForm;
use sandtrace_provider::{ManualSpec, manual};
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
    // By its process alone as well.
    let by_hand = ManualSpec {
        sandbox_id: id.clone(),
        pid: Some(vmm.pid()),
        ..ManualSpec::default()
    };
    let target = manual(by_hand).unwrap();
    let uppers: Vec<_> = target.overlays.iter().map(|it| &it.open_path).collect();
    assert_eq!(uppers.len(), 1, "{target:?}");
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

/// The root of a container as the runtime shares it with the guest.
struct Root {
    upper: PathBuf,
    place: PathBuf,
}

impl Root {
    fn mount(lab: &Alone, id: &str, container: &str) -> Self {
        let place = PathBuf::from("/run/kata-containers/shared/sandboxes")
            .join(id)
            .join(format!("mounts/{container}/rootfs"));
        let dir = lab.dir().join(format!("{id}-{container}"));
        let [lower, upper, work] = ["lower", "upper", "work"].map(|name| dir.join(name));
        for dir in [&place, &lower, &upper, &work] {
            fs::create_dir_all(dir).unwrap();
        }
        fs::write(lower.join("of-the-image"), container).unwrap();
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            work.display()
        );
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "overlay", "overlay", "-o", &options])
            .arg(&place);
        assert!(mount.status().unwrap().success());
        Self { upper, place }
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.place).status();
        // Up to what is not empty, which others may be in.
        for dir in self.place.ancestors() {
            if fs::remove_dir(dir).is_err() {
                break;
            }
        }
    }
}

/// Those that are there when the VM is found, and those that come later.
#[test]
fn the_roots_of_katas_containers_are_watched() {
    let Some(lab) = lab("the_roots_of_katas_containers_are_watched") else {
        return;
    };
    let id = format!("i{}pod", lab.id());
    let kept = Kept::new(&id);
    let first = Root::mount(&lab, &id, "c1");
    let watch = Watch::start(&lab, &["--syscalls", "off"]);
    let mut config = config(&lab, StandInForm::CloudHypervisor, &id);
    "tap0_kata".clone_into(&mut config.tap);
    let mut vmm = started(&lab, &config);
    let trail = watch.await_trail(&id, "sandbox_attached");
    let found = &listed(&id)["found"];
    // Anybody may be called like a pod.
    assert!(
        missing(found, "filesystem").contains("does not name this process"),
        "{found}"
    );
    assert!(!found["disks"].to_string().contains("overlay"), "{found}");
    kept.names(vmm.pid());
    watch.await_trail(&id, first.upper.to_str().unwrap());
    let found = &listed(&id)["found"];
    assert!(
        missing(found, "filesystem").contains("overlays of 1 containers"),
        "{found}"
    );
    let told = found["disks"].as_array().unwrap();
    let upper = first.upper.to_str().unwrap();
    assert!(
        told.iter()
            .any(|it| it["path"] == upper && it["kind"] == "overlay"),
        "{found}"
    );
    // As the guest does, by way of the host.
    let write = |root: &Root, name: &str| fs::write(root.place.join(name), name).unwrap();
    std::thread::sleep(Duration::from_millis(700));
    write(&first, "of-the-first");
    let second = Root::mount(&lab, &id, "c2");
    watch.await_trail(&id, second.upper.to_str().unwrap());
    std::thread::sleep(Duration::from_millis(700));
    write(&second, "of-the-second");
    fs::write(second.place.join("of-the-image"), "changed").unwrap();
    for name in ["/of-the-first", "/of-the-second", "/of-the-image"] {
        watch.await_trail(&id, &format!("\"path\":\"{name}\""));
    }
    vmm.kill();
    let trail_end = watch.await_trail(&id, "trail_end");
    assert_eq!(trail_end, trail);
    let all = records(&trail);
    let change = |path: &str| {
        let changes = of_type(&all, "filesystem_change");
        let change = changes.into_iter().find(|it| it["payload"]["path"] == path);
        change.unwrap_or_else(|| panic!("{path}: {all:?}")).clone()
    };
    assert_eq!(change("/of-the-image")["payload"]["op"], "modified");
    assert_eq!(change("/of-the-first")["evidence_tier"], "hypervisor");
    watch.interrupt();
}

/// As Kata's runtime keeps it.
struct Kept(PathBuf);

impl Kept {
    fn new(id: &str) -> Self {
        let dir = PathBuf::from("/run/vc/sbs").join(id);
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    /// Once the VMM runs.
    fn names(&self, pid: u32) {
        let state = serde_json::json!({"HypervisorState": {"Pid": pid, "Type": "clh"}});
        fs::write(self.0.join("persist.json"), state.to_string()).unwrap();
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
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
        let kept = Kept::new(&id);
        let mut config = config(&lab, form, &id);
        "tap0_kata".clone_into(&mut config.tap);
        let vmm = started(&lab, &config);
        kept.names(vmm.pid());
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
