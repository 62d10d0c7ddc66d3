//! One sandbox that asks for too much, and those beside it.

use crate::fleet::{Watch, check_trail, of_type, records, trails_of};
use crate::support::{Alone, config, lab};
use rustix::process::{Pid, Signal, kill_process};
use sandtrace_lab::{StandIn, StandInForm};
use serde_json::Value;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

/// Watched before its guest runs, so that the count of its frames is exact.
fn attached(lab: &Alone, watch: &Watch, name: &str, sends: &str) -> (String, StandIn) {
    let id = format!("i{}{name}", lab.id());
    let mut config = config(lab, StandInForm::Firecracker, &id);
    sends.clone_into(&mut config.boot_args);
    let vmm = lab.stand_in(&config).unwrap();
    watch.await_trail(&id, "sandbox_attached");
    vmm.start().unwrap();
    (id, vmm)
}

fn sum(records: &[&Value], member: &str) -> u64 {
    let numbers = records.iter();
    numbers
        .map(|it| it["payload"][member].as_u64().unwrap())
        .sum()
}

/// Waits until its guest has sent as many frames.
#[track_caller]
fn await_sent(vmm: &StandIn, frames: u64, id: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let sent = || {
        let mut ip = Command::new("ip");
        ip.args(["-n", vmm.netns(), "-json", "-stats", "link", "show", "tap0"]);
        let json: Value = serde_json::from_slice(&ip.output().unwrap().stdout).unwrap();
        // What a guest sends its tap receives.
        json[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
    };
    while sent() < frames {
        assert!(Instant::now() < deadline, "{id} has sent {}", sent());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn signal(watch: &Watch, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(watch.pid()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// It loses frames of its own, which its own trail counts to the last; the
/// others, whose rings the same threads read, lose none.
#[test]
fn a_flood_is_the_loss_of_its_own_sandbox() {
    if let Some(lab) = lab("a_flood_is_the_loss_of_its_own_sandbox") {
        let (lost, seen) = flood(&lab, "af-packet");
        assert!(lost > 0 && seen > 0, "{lost} lost, {seen} seen");
    }
}

/// Where the kernel counts, nobody need read in time.
#[test]
fn a_flood_that_is_counted_is_counted_whole() {
    if let Some(lab) = lab("a_flood_that_is_counted_is_counted_whole") {
        let (lost, seen) = flood(&lab, "ebpf");
        assert!(lost == 0 && seen > 0, "{lost} lost, {seen} seen");
    }
}

/// Frames of the flood that were lost, and that were seen.
fn flood(lab: &Alone, capture: &str) -> (u64, u64) {
    let watch = Watch::start(lab, &["--syscalls", "off", "--capture", capture]);
    let flood = "standin.frames=2000000 standin.gap_ms=0 standin.delay_ms=50";
    let (flooder, mut flooding) = attached(lab, &watch, "flood", flood);
    watch.await_trail(&flooder, "network_egress");
    let quiet = "standin.frames=60 standin.gap_ms=25 standin.delay_ms=50";
    let names = ["one", "two", "three", "four"];
    let mut others = names.map(|name| attached(lab, &watch, name, quiet));
    // Nobody reads for a moment, as on a host that is too busy: only a flood
    // fills its ring meanwhile. (Each of the eight blocks of a ring is closed
    // after 20 ms, however little it holds.)
    signal(&watch, Signal::STOP);
    std::thread::sleep(Duration::from_millis(100));
    signal(&watch, Signal::CONT);
    for (id, vmm) in &mut others {
        await_sent(vmm, 60, id);
        vmm.kill();
    }
    for (id, _) in &others {
        let trail = watch.await_trail(id, "trail_end");
        check_trail(&trail, id, 60);
        let all = records(&trail);
        assert_eq!(of_type(&all, "capture_gap"), [&Value::Null; 0], "{id}");
    }
    flooding.kill();
    let trail = watch.await_trail(&flooder, "trail_end");
    watch.interrupt();
    let all = records(&trail);
    assert!(all.iter().all(|record| record["sandbox_id"] == *flooder));
    let mut drops = of_type(&all, "capture_gap");
    drops.retain(|gap| gap["payload"]["cause"] == "ring_drop");
    let mut closed = of_type(&all, "network_egress");
    closed.retain(|flow| flow["payload"]["phase"] == "close");
    let end = of_type(&all, "trail_end")[0];
    let interface = &end["payload"]["reconciliation"][0];
    let (lost, seen) = (sum(&drops, "count"), sum(&closed, "packets_sent"));
    assert_eq!(interface["interface_packets_sent"], lost + seen, "{end}");
    (lost, seen)
}

/// Puts this one trail on a disk of its own, which is nearly full.
const SCRIPT: &str = r#"
small=$1 trail=$2
shift 2
mount -t tmpfs -o size=48k sandtrace-test "$small"
cp "$trail" "$small/trail"
mount --bind "$small/trail" "$trail"
exec "$@"
"#;

#[test]
fn a_full_disk_below_one_trail_is_said_and_concerns_no_other() {
    let Some(lab) = lab("a_full_disk_below_one_trail_is_said_and_concerns_no_other") else {
        return;
    };
    let small = lab.dir().join("small");
    fs::create_dir(&small).unwrap();
    let watch = Watch::start(&lab, &["--syscalls", "off"]);
    let talks = "standin.frames=100000 standin.gap_ms=1 standin.delay_ms=1000";
    let (full, _full) = attached(&lab, &watch, "full", talks);
    let quiet = "standin.frames=100000 standin.gap_ms=20 standin.delay_ms=1000";
    let (fine, mut vmm) = attached(&lab, &watch, "fine", quiet);
    let trail = watch.await_trail(&full, "sandbox_attached");
    let other = watch.await_trail(&fine, "sandbox_attached");
    // By signal 9: both go on where they stopped.
    drop(watch);
    let mut command = Command::new("unshare");
    // What is mounted later, as a namespace's name is, shows there as well.
    command.args(["--mount", "--propagation", "slave", "sh", "-ec", SCRIPT]);
    command.arg("sh").arg(&small).arg(&trail);
    command.arg(env!("CARGO_BIN_EXE_sandtrace"));
    let kinds = ["--provider", "firecracker", "--syscalls", "off"];
    let watch = Watch::over(command, &lab, &kinds);
    let is_full = || {
        let free = rustix::fs::statvfs(format!("/proc/{}/root{}", watch.pid(), small.display()));
        free.unwrap().f_bavail == 0
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_full() {
        assert!(Instant::now() < deadline, "the disk never fills");
        std::thread::sleep(Duration::from_millis(20));
    }
    // One that comes now is watched as if nothing were.
    let few = "standin.frames=5 standin.gap_ms=20 standin.delay_ms=100";
    let (late, mut last) = attached(&lab, &watch, "late", few);
    watch.await_trail(&late, "network_egress");
    let before = records(&other).len();
    std::thread::sleep(Duration::from_millis(2500));
    last.kill();
    check_trail(&watch.await_trail(&late, "trail_end"), &late, 5);
    vmm.kill();
    watch.await_trail(&fine, "trail_end");
    assert_eq!(
        trails_of(&watch.trails, &fine),
        std::slice::from_ref(&other)
    );
    let all = records(&other);
    assert!(all.len() > before, "{} after {before}", all.len());
    assert!(all.iter().all(|record| record["sandbox_id"] == *fine));
    let end = of_type(&all, "trail_end")[0];
    assert_eq!(end["payload"]["reason"], "sandbox_ended");
    let said = watch.interrupt();
    let failed = said
        .lines()
        .find(|line| line.starts_with(&*full) && line.contains("its trail failed"));
    let failed = failed.unwrap_or_else(|| panic!("nothing of {full}: {said}"));
    assert!(failed.to_lowercase().contains("no space left"), "{failed}");
    assert!(
        !said.contains(&format!("{fine} (pid {}): its trail", vmm.pid())),
        "{said}"
    );
}
