//! Sandboxes that lie, hang or die, and ids that are used again: nothing is
//! mixed up, and those beside them are watched as if they were alone.

use crate::fleet::{Watch, check_trail, of_type, records, trails_of};
use crate::support::{CANARY, config, lab, started};
use rustix::process::{Pid, Signal, kill_process};
use sandtrace_lab::{Lab, StandIn, StandInConfig, StandInForm};
use sandtrace_provider::{DiscoverConfig, FindError, ProcRoot, Sighting, find_in};
use sandtrace_sys::unshare;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) fn signal(vmm: &StandIn, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(vmm.pid()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// A VMM whose API is there but never answers.
pub(crate) fn silent(lab: &Lab, id: &str) -> StandIn {
    let vmm = lab
        .stand_in(&config(lab, StandInForm::Firecracker, id))
        .unwrap();
    signal(&vmm, Signal::STOP);
    vmm
}

/// A VMM that calls itself what no file may be called.
fn escaping(lab: &Lab) -> StandIn {
    let config = StandInConfig {
        sandbox_id: "../../escape".to_owned(),
        ..config(lab, StandInForm::Firecracker, &format!("e{}", lab.id()))
    };
    started(lab, &config)
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn what_is_wrong_with_one_sandbox_concerns_no_other() {
    let Some(lab) = lab("what_is_wrong_with_one_sandbox_concerns_no_other") else {
        return;
    };
    let silent_id = format!("i{}silent", lab.id());
    let mut silent = silent(&lab, &silent_id);
    let watch = Watch::start(&lab, &[]);
    let mut escaping = escaping(&lab);
    let escaping_id = format!("firecracker-{}", escaping.pid());
    let short_id = format!("i{}short", lab.id());
    let short = config(&lab, StandInForm::Firecracker, &short_id);
    for _ in 0..3 {
        lab.stand_in(&short).unwrap().kill();
    }
    let long_id = format!("{:x<64}", format!("i{}", lab.id()));
    let long = config(&lab, StandInForm::Firecracker, &long_id);
    let mut long = lab.stand_in(&long).unwrap();
    watch.await_trail(&long_id, "sandbox_attached");
    long.start().unwrap();
    let trail = watch.await_trail(&silent_id, "sandbox_attached");
    let attached = fs::read_to_string(&trail).unwrap();
    assert!(attached.contains("no whole answer within"), "{attached}");
    signal(&silent, Signal::CONT);
    silent.start().unwrap();
    watch.await_trail(&escaping_id, "sandbox_attached");
    // Five frames, 20 ms apart, of each.
    std::thread::sleep(Duration::from_millis(1500));
    for vmm in [&mut silent, &mut escaping, &mut long] {
        vmm.kill();
    }
    for id in [&silent_id, &long_id] {
        check_trail(&watch.await_trail(id, "trail_end"), id, 5);
    }
    let trail = watch.await_trail(&escaping_id, "trail_end");
    let escaped = records(&trail);
    assert!(escaped.iter().all(|it| it["sandbox_id"] == *escaping_id));
    let trails = watch.trails.clone();
    // Those that ended while they were attached may have one; then it is whole.
    for trail in trails_of(&trails, &short_id) {
        let records = records(&trail);
        assert!(records.iter().all(|it| it["sandbox_id"] == *short_id));
    }
    watch.interrupt();
    let ids = [&silent_id, &escaping_id, &short_id, &long_id];
    for name in names(&trails) {
        assert!(ids.iter().any(|id| name.starts_with(*id)), "{name}");
        let path = trails.join(&name);
        if path.is_file() {
            let bytes = fs::read(path).unwrap();
            assert!(!String::from_utf8_lossy(&bytes).contains(CANARY), "{name}");
        }
    }
    for dir in [lab.dir(), lab.dir().parent().unwrap()] {
        assert!(!names(dir).iter().any(|name| name.contains("escape")));
    }
}

/// What the kernel shows is all there, and what the API did not tell is said.
#[test]
fn vmms_that_answer_slowly_or_with_garbage() {
    let Some(lab) = lab("vmms_that_answer_slowly_or_with_garbage") else {
        return;
    };
    let watch = Watch::start(&lab, &[]);
    let mut vmms = ["slow", "garbage", "well"].map(|manners| {
        let id = format!("i{}{manners}", lab.id());
        let mut config = config(&lab, StandInForm::Firecracker, &id);
        config.boot_args += &format!(" standin.api={manners}");
        let vmm = lab.stand_in(&config).unwrap();
        watch.await_trail(&id, "sandbox_attached");
        vmm.start().unwrap();
        (manners, id, vmm)
    });
    // Five frames, 20 ms apart, and the questions.
    std::thread::sleep(Duration::from_millis(2500));
    for (_, _, vmm) in &mut vmms {
        vmm.kill();
    }
    for (manners, id, _) in &vmms {
        let trail = watch.await_trail(id, "trail_end");
        check_trail(&trail, id, 5);
        let all = records(&trail);
        let last = *of_type(&all, "sandbox_attached").last().unwrap();
        let payload = &last["payload"];
        let interface = &payload["taps"][0]["interface"];
        assert_eq!(interface, "tap0", "{last}");
        assert_eq!(payload["disks"].as_array().unwrap().len(), 1, "{last}");
        let coverage = payload["coverage"].to_string();
        let said = match *manners {
            "slow" => "no whole answer within",
            "garbage" => "the answer is malformed",
            _ => "",
        };
        assert!(coverage.contains(said), "{id}: {coverage}");
        let agent = if *manners == "well" { "billing" } else { "" };
        assert_eq!(payload["agent_id"].as_str().unwrap_or_default(), agent);
    }
    let said = watch.interrupt();
    assert!(!said.contains('\u{1b}'), "{said}");
}

/// Wherever in its attachment a VMM ends: it has no trail, or a whole one. The
/// last of them live long enough to have one.
#[test]
fn vmms_that_end_while_they_are_attached() {
    let Some(lab) = lab("vmms_that_end_while_they_are_attached") else {
        return;
    };
    let watch = Watch::start(&lab, &[]);
    let mut short = Vec::new();
    for after in (0..60).step_by(4).chain([250, 1000]) {
        let id = format!("i{}after{after}", lab.id());
        let mut vmm = lab
            .stand_in_unconfigured(&config(&lab, StandInForm::Firecracker, &id))
            .unwrap();
        vmm.add_tap("eth0", "second0").unwrap();
        std::thread::sleep(Duration::from_millis(after));
        vmm.kill();
        short.push((id, vmm.pid()));
    }
    // Those beside them are none the worse for it.
    let id = format!("i{}lives", lab.id());
    let mut vmm = lab
        .stand_in(&config(&lab, StandInForm::Firecracker, &id))
        .unwrap();
    watch.await_trail(&id, "sandbox_attached");
    vmm.start().unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    vmm.kill();
    check_trail(&watch.await_trail(&id, "trail_end"), &id, 5);
    let trails = watch.trails.clone();
    watch.interrupt();
    let watched: Vec<_> = short
        .iter()
        .filter(|(id, pid)| check_short(&trails, id, *pid))
        .map(|(id, _)| id)
        .collect();
    println!("attached before they ended: {watched:?}");
    let (last, _) = short.last().unwrap();
    assert!(watched.contains(&last), "{last} was never attached");
}

/// Whether it was attached; then its trail is whole.
#[track_caller]
fn check_short(trails: &Path, id: &str, pid: u32) -> bool {
    let found = trails_of(trails, id);
    let [trail] = found.as_slice() else {
        assert!(found.is_empty(), "{found:?}");
        return false;
    };
    let records = records(trail);
    assert!(records.iter().all(|it| it["sandbox_id"] == *id));
    let attached = &of_type(&records, "sandbox_attached")[0]["payload"];
    assert_eq!(attached["vmm"]["pid"], pid);
    let [end] = of_type(&records, "trail_end")[..] else {
        panic!("{id}: {records:?}")
    };
    assert_eq!(end["payload"]["reason"], "sandbox_ended", "{id}");
    // Sealed: nothing was cut off after it.
    assert_eq!(records.last().unwrap()["event_type"], "checkpoint", "{id}");
    let mut verify = Command::new(env!("CARGO_BIN_EXE_sandtrace"));
    let verified = verify.arg("verify").arg(trail).output().unwrap();
    assert!(verified.status.success(), "{id}: {verified:?}");
    true
}

/// A client of a VMM's API that was served and stays. One that is gone counts
/// until the VMM sees that.
fn client(socket: &Path) -> UnixStream {
    let served = || {
        let mut stream = UnixStream::connect(socket)?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        io::Result::Ok((&head == b"HTTP/1.1 200").then_some(stream))
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Ok(Some(stream)) = served() {
            return stream;
        }
        assert!(Instant::now() < deadline, "no client is served");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What it says of its API is in the coverage; what the kernel says is all there.
#[test]
fn a_vmm_that_takes_no_more_clients() {
    let Some(lab) = lab("a_vmm_that_takes_no_more_clients") else {
        return;
    };
    let id = format!("i{}busy", lab.id());
    let vmm = started(&lab, &config(&lab, StandInForm::Firecracker, &id));
    let find = || find_in(&ProcRoot::host(), &id, &DiscoverConfig::default()).unwrap();
    let mut clients: Vec<_> = (0..10).map(|_| client(vmm.socket())).collect();
    let target = find();
    assert_eq!((target.taps.len(), target.disks.len()), (1, 1));
    assert_eq!(target.agent_id, None);
    let busy = target.coverage.iter();
    let busy = busy.filter(|it| it.missing.contains("as many clients as it takes"));
    assert_eq!(busy.count(), 2, "{:?}", target.coverage);
    clients.pop();
    let deadline = Instant::now() + Duration::from_secs(20);
    while find().agent_id.as_deref() != Some("billing") {
        assert!(Instant::now() < deadline, "it is never asked again");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A process whose arguments are those of a VMM, in a PID namespace of its own
/// as all of the lab's are; it ends with its input. With `pid`, it is the next
/// after that to be given, unless another process is.
fn named(id: &str, pid: Option<u32>) -> Child {
    let start = || {
        unshare::mounts_and_children().unwrap();
        if let Some(pid) = pid {
            fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).unwrap();
        }
        Command::new("/bin/sh")
            .arg0("firecracker")
            .args(["-c", "read line", "sh", "--no-api", "--id", id])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap()
    };
    // The thread's next child would be in that namespace too.
    std::thread::scope(|scope| scope.spawn(start).join().unwrap())
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A program that has just started has no arguments for a moment.
fn sighting(proc: &ProcRoot, pid: u32, config: &DiscoverConfig) -> Sighting {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = Sighting::of_process(proc, pid, config).unwrap() {
            return found;
        }
        assert!(Instant::now() < deadline, "process {pid} is no VMM");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Another process of the same number, by and by: others start meanwhile.
fn named_with_pid(id: &str, pid: u32) -> Child {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let child = named(id, Some(pid));
        if child.id() == pid {
            return child;
        }
        end(child);
        assert!(Instant::now() < deadline, "pid {pid} is never given again");
    }
}

#[test]
fn a_pid_that_is_used_again_is_another_sandbox() {
    let Some(lab) = lab("a_pid_that_is_used_again_is_another_sandbox") else {
        return;
    };
    let [old, new] = ["old", "new"].map(|name| format!("i{}{name}", lab.id()));
    let (proc, config) = (ProcRoot::host(), DiscoverConfig::default());
    let first = named(&old, None);
    let pid = first.id();
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
    assert_ne!(namespace(&pid.to_string()), namespace("self"));
    let before = sighting(&proc, pid, &config);
    assert_eq!(before.sandbox_id(), old);
    end(first);
    // Start times are told in hundredths of a second.
    std::thread::sleep(Duration::from_millis(30));
    let second = named_with_pid(&new, pid);
    let after = sighting(&proc, pid, &config);
    assert_eq!((after.sandbox_id(), after.pid()), (new.as_str(), pid));
    assert_ne!(after.start_ticks(), before.start_ticks());
    assert!(!before.is_alive());
    let deadline = Instant::now() + Duration::from_secs(1);
    let described = before.describe(&proc, &config, deadline);
    assert!(described.is_err(), "{described:?}");
    let gone = find_in(&proc, &old, &config);
    assert!(matches!(gone, Err(FindError::Unknown { .. })), "{gone:?}");
    let found = find_in(&proc, &new, &config).unwrap();
    assert_eq!(
        found.vmm.unwrap().start_ticks.0,
        after.start_ticks(),
        "the one that runs"
    );
    end(second);
}
