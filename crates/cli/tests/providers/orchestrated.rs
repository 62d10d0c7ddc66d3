//! Sandboxes that are configured step by step while they are watched, as
//! orchestrators do it, and that change while they run.

use crate::fleet::{Watch, check_trail, of_type, records};
use crate::support::{Alone, config, lab};
use sandtrace_lab::{StandIn, StandInConfig, StandInForm, TreeEntry, make_image};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The last record of a trail that says what the sandbox is, once it says this.
#[track_caller]
fn await_attached(trail: &Path, says: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let all = records_so_far(trail);
        let last = of_type(&all, "sandbox_attached").pop().cloned();
        if let Some(last) = last.clone().filter(|it| says(&it["payload"])) {
            return last["payload"].clone();
        }
        assert!(Instant::now() < deadline, "{last:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn interfaces(attached: &Value) -> Vec<&str> {
    let taps = attached["taps"].as_array().into_iter().flatten();
    taps.map(|tap| tap["interface"].as_str().unwrap()).collect()
}

fn count(attached: &Value, member: &str) -> usize {
    attached[member].as_array().map_or(0, Vec::len)
}

fn misses(attached: &Value, word: &str) -> bool {
    attached["coverage"].to_string().contains(word)
}

fn image(lab: &Alone, name: &str) -> PathBuf {
    let disk = lab.dir().join(format!("{name}.ext4"));
    let tree = [TreeEntry::text("/etc/hostname", name, 0o644)];
    make_image(&disk, 8 << 20, &tree).unwrap();
    disk
}

/// Sends on all of its taps until it is killed.
fn talker(lab: &Alone, id: &str) -> StandInConfig {
    StandInConfig {
        boot_args: "standin.frames=100000 standin.gap_ms=10 standin.delay_ms=100".to_owned(),
        ..config(lab, StandInForm::Firecracker, id)
    }
}

fn boot(vmm: &StandIn, config: &StandInConfig) {
    let boot = json!({"kernel_image_path": "/boot/vmlinux", "boot_args": config.boot_args});
    vmm.put("/boot-source", &boot).unwrap();
}

#[test]
fn what_is_configured_after_the_first_interface_is_captured_too() {
    let Some(lab) = lab("what_is_configured_after_the_first_interface_is_captured_too") else {
        return;
    };
    let watch = Watch::start(&lab, &[]);
    let id = format!("i{}steps", lab.id());
    let config = config(&lab, StandInForm::Firecracker, &id);
    let mut vmm = lab.stand_in_unconfigured(&config).unwrap();
    boot(&vmm, &config);
    vmm.add_tap("eth0", "second0").unwrap();
    let trail = watch.await_trail(&id, "sandbox_attached");
    let first = await_attached(&trail, |it| interfaces(it) == ["second0"]);
    assert_eq!(
        (count(&first, "disks"), &first["agent_id"]),
        (0, &Value::Null)
    );
    vmm.add_tap("eth1", "second1").unwrap();
    vmm.add_drive("rootfs", &config.disk).unwrap();
    vmm.add_drive("data", &image(&lab, "data")).unwrap();
    // Before the guest runs, and without anything that it does.
    await_attached(&trail, |it| {
        interfaces(it).len() == 2 && count(it, "disks") == 2
    });
    vmm.put("/vsock", &json!({"guest_cid": 3, "uds_path": "v.sock"}))
        .unwrap();
    let mmds = json!({"version": "V2", "network_interfaces": ["eth0"]});
    vmm.put("/mmds/config", &mmds).unwrap();
    vmm.put("/mmds", &config.metadata).unwrap();
    vmm.start().unwrap();
    let last = await_attached(&trail, |it| it["agent_id"] == "billing");
    assert!(misses(&last, "MMDS") && misses(&last, "vsock"), "{last}");
    assert!(!misses(&last, "no disk"), "{last}");
    // Five frames on each, 20 ms apart, and the baselines.
    std::thread::sleep(Duration::from_millis(1500));
    vmm.kill();
    watch.await_trail(&id, "trail_end");
    check_trail(&trail, &id, 10);
    let all = records(&trail);
    let reconciled = &of_type(&all, "trail_end")[0]["payload"]["reconciliation"];
    let matches = reconciled.as_array().unwrap().iter();
    assert_eq!(matches.filter(|it| it["matches"] == true).count(), 2);
    let mut flows: Vec<_> = of_type(&all, "network_egress")
        .iter()
        .filter(|it| it["payload"]["phase"] == "close")
        .map(|it| it["payload"]["flow_id"].as_u64().unwrap())
        .collect();
    flows.dedup();
    assert_eq!(flows.len(), 2, "numbers of flows are unique: {flows:?}");
    assert_eq!(of_type(&all, "capture_gap"), [&Value::Null; 0]);
    watch.interrupt();
}

/// What an orchestrator does with `PATCH /drives`: seen at one of the looks each
/// ten seconds, and on record with what was in it then.
#[test]
fn a_disk_that_is_exchanged_while_its_guest_runs_is_watched_too() {
    let Some(lab) = lab("a_disk_that_is_exchanged_while_its_guest_runs_is_watched_too") else {
        return;
    };
    let watch = Watch::start(&lab, &["--syscalls", "off"]);
    let id = format!("i{}swaps", lab.id());
    let config = talker(&lab, &id);
    let mut vmm = lab.stand_in(&config).unwrap();
    vmm.start().unwrap();
    let trail = watch.await_trail(&id, "network_egress");
    let other = image(&lab, "other");
    vmm.exchange_drive("rootfs", &other).unwrap();
    let path = other.to_str().unwrap();
    let disks = |it: &Value| it["disks"].as_array().unwrap().clone();
    let last = await_attached(&trail, |it| {
        disks(it).iter().any(|disk| disk["path"] == path)
    });
    // The first stays on record: its last state was part of the sandbox.
    assert_eq!(count(&last, "disks"), 2, "{last}");
    vmm.kill();
    watch.await_trail(&id, "trail_end");
    watch.interrupt();
}

/// The end of an interface is a gap, not the end of the watch; another one is
/// captured in its place, whatever its name.
#[test]
fn an_interface_that_goes_is_a_gap_and_its_successor_is_captured() {
    if let Some(lab) = lab("an_interface_that_goes_is_a_gap_and_its_successor_is_captured") {
        replace_interface(&lab, &["--capture", "ebpf"], true);
    }
}

/// Also where it is there before anybody can have looked.
#[test]
fn an_interface_of_the_same_name_at_once_is_not_taken_for_the_one_that_went() {
    let test = "an_interface_of_the_same_name_at_once_is_not_taken_for_the_one_that_went";
    for capture in ["af-packet", "ebpf"] {
        if let Some(lab) = lab(test) {
            replace_interface(&lab, &["--capture", capture], false);
        }
    }
}

fn replace_interface(lab: &Alone, more: &[&str], waits: bool) {
    let watch = Watch::start(lab, more);
    let id = format!("i{}loses", lab.id());
    // It takes interfaces while its guest runs.
    let config = StandInConfig {
        form: StandInForm::CloudHypervisor,
        ..talker(lab, &id)
    };
    let mut vmm = lab.stand_in(&config).unwrap();
    vmm.start().unwrap();
    let trail = watch.await_trail(&id, "sandbox_attached");
    let first = await_attached(&trail, |it| interfaces(it) == ["tap0"]);
    watch.await_trail(&id, "network_egress");
    vmm.remove_tap("tap0").unwrap();
    if waits {
        watch.await_trail(&id, "interface_gone");
    }
    vmm.add_tap("eth1", "tap0").unwrap();
    let first = first["taps"][0]["index"].clone();
    await_attached(&trail, |it| {
        interfaces(it) == ["tap0"] && it["taps"][0]["index"] != first
    });
    vmm.kill();
    watch.await_trail(&id, "trail_end");
    let all = records(&trail);
    let [end] = of_type(&all, "trail_end")[..] else {
        panic!("{all:?}")
    };
    assert_eq!(end["payload"]["reason"], "sandbox_ended");
    // Of the second one; the first has no counters any more.
    let reconciled = end["payload"]["reconciliation"].as_array().unwrap();
    assert_eq!(reconciled.len(), 1, "{end}");
    assert_eq!(reconciled[0]["matches"], true, "{end}");
    let gaps = of_type(&all, "capture_gap");
    let [gap] = gaps[..] else { panic!("{gaps:?}") };
    assert_eq!(gap["payload"]["cause"], "interface_gone");
    watch.interrupt();
}

/// Whole lines of a trail that is being written.
fn records_so_far(trail: &Path) -> Vec<Value> {
    let text = fs::read_to_string(trail).unwrap();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}
