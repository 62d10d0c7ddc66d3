//! `sandtrace watch --all`: sandboxes come and go, each gets its trail.

use crate::support::{CANARY, config, ended, lab, started};
use rustix::process::{Pid, Signal, kill_process};
use sandtrace_lab::{Lab, StandInForm};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

pub(crate) struct Watch {
    child: Guard,
    /// Reads what it says: a pipe that nobody empties would hold it up.
    said: JoinHandle<String>,
    pub(crate) trails: PathBuf,
}

impl Watch {
    pub(crate) fn start(lab: &Lab, more: &[&str]) -> Self {
        let command = Command::new(env!("CARGO_BIN_EXE_sandtrace"));
        let kinds = ["--provider", "firecracker,cloud-hypervisor,e2b"];
        let more = [&kinds, &["--scan-interval", "1s"], more].concat();
        Self::over(command, lab, &more)
    }

    /// Watches by this `sandtrace`, however it is run.
    pub(crate) fn over(mut command: Command, lab: &Lab, more: &[&str]) -> Self {
        let trails = lab.dir().join("trails");
        let mut child = command
            .args(["watch", "--all", "--trail-dir"])
            .arg(&trails)
            .args(more)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        errors.read_line(&mut line).unwrap();
        assert!(line.starts_with("watching every sandbox"), "{line}");
        let said = std::thread::spawn(move || {
            let mut said = String::new();
            errors.read_to_string(&mut said).unwrap();
            said
        });
        Self {
            child: Guard(child),
            said,
            trails,
        }
    }

    /// The trail of this sandbox, once it holds `text`.
    pub(crate) fn await_trail(&self, id: &str, text: &str) -> PathBuf {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let found = trails_of(&self.trails, id)
                .into_iter()
                .find(|path| fs::read_to_string(path).is_ok_and(|trail| holds(&trail, text)));
            if let Some(path) = found {
                return path;
            }
            assert!(Instant::now() < deadline, "no {text} in a trail of {id}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Orders it to read its settings again.
    pub(crate) fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child.0), signal).unwrap();
    }

    pub(crate) fn interrupt(self) -> String {
        self.end_by(Signal::INT)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.0.id()
    }

    pub(crate) fn end_by(mut self, signal: Signal) -> String {
        self.signal(signal);
        let status = ended(&mut self.child.0);
        let said = self.said.join().unwrap();
        assert!(status.success(), "{said}");
        assert!(!said.contains(CANARY), "{said}");
        said
    }
}

/// Ends the program where the test fails.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// Whether a trail holds `text`; its end only together with the checkpoint
/// that seals it a moment later.
fn holds(trail: &str, text: &str) -> bool {
    if text != "trail_end" {
        return trail.contains(text);
    }
    let end = trail.split_once(r#""event_type":"trail_end""#);
    end.is_some_and(|(_, after)| {
        after.contains(r#""event_type":"checkpoint""#) && after.ends_with('\n')
    })
}

pub(crate) fn trails_of(dir: &Path, id: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let named = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with(&format!("{id}.")) && name.ends_with(".jsonl")
    };
    entries.map(|entry| entry.path()).filter(named).collect()
}

pub(crate) fn records(trail: &Path) -> Vec<Value> {
    let text = fs::read_to_string(trail).unwrap();
    assert!(!text.contains(CANARY));
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

pub(crate) fn of_type<'a>(records: &'a [Value], kind: &str) -> Vec<&'a Value> {
    records
        .iter()
        .filter(|record| record["event_type"] == kind)
        .collect()
}

/// Everything that the sandbox sent is there, nothing of any other, and the
/// trail is whole.
pub(crate) fn check_trail(trail: &Path, id: &str, frames: u64) {
    let records = records(trail);
    assert!(records.iter().all(|record| record["sandbox_id"] == id));
    let sent: u64 = of_type(&records, "network_egress")
        .iter()
        .filter(|record| record["payload"]["phase"] == "close")
        .map(|record| record["payload"]["packets_sent"].as_u64().unwrap())
        .sum();
    assert_eq!(sent, frames, "{id}");
    let [end] = of_type(&records, "trail_end")[..] else {
        panic!("{id}: no end")
    };
    assert_eq!(end["payload"]["reason"], "sandbox_ended");
    let reconciled = &end["payload"]["reconciliation"][0]["matches"];
    assert_eq!(*reconciled, true, "{end}");
    let verified = Command::new(env!("CARGO_BIN_EXE_sandtrace"))
        .arg("verify")
        .arg(trail)
        .output()
        .unwrap();
    assert!(verified.status.success(), "{verified:?}");
}

/// The trail vouches for the files with the sandbox's frames, and a
/// conversation comes out of them.
fn check_evidence(trail: &Path, files: &Path) {
    let records = records(trail);
    let kept = of_type(&records, "evidence_file");
    assert!(!kept.is_empty());
    for file in kept {
        let path = files.join(file["payload"]["file"].as_str().unwrap());
        let output = Command::new("sha256sum").arg(&path).output().unwrap();
        let sum = String::from_utf8(output.stdout).unwrap();
        let stated = file["payload"]["sha256"].as_str().unwrap();
        assert_eq!(sum.split(' ').next(), stated.strip_prefix("sha256:"));
    }
    let flows = of_type(&records, "network_egress");
    let flow = flows
        .iter()
        .find(|flow| flow["payload"]["phase"] == "close")
        .unwrap();
    let out = trail.with_extension("pcapng");
    let extracted = Command::new(env!("CARGO_BIN_EXE_sandtrace"))
        .arg("extract")
        .arg(trail)
        .args(["--flow", &flow["payload"]["flow_id"].to_string()])
        .arg("--evidence")
        .arg(files)
        .arg("-o")
        .arg(&out)
        .output()
        .unwrap();
    assert!(extracted.status.success(), "{extracted:?}");
    let said = String::from_utf8(extracted.stderr).unwrap();
    let sent = &flow["payload"]["packets_sent"];
    assert!(said.contains(&format!("{sent} of {sent} frames")), "{said}");
    let read = Command::new("tshark").arg("-r").arg(&out).output().unwrap();
    assert!(read.status.success(), "{read:?}");
}

#[test]
fn sandboxes_come_and_go_and_each_gets_its_trail() {
    let Some(lab) = lab("sandboxes_come_and_go_and_each_gets_its_trail") else {
        return;
    };
    let files = lab.dir().join("evidence");
    fs::create_dir(&files).unwrap();
    let watch = Watch::start(&lab, &["--evidence-pcap", files.to_str().unwrap()]);
    let mut vmms = Vec::new();
    for form in StandInForm::ALL {
        let unique = format!("{form:?}").to_lowercase();
        let id = format!("i{}{unique}", lab.id());
        let config = config(&lab, form, &id);
        let before = SystemTime::now();
        let vmm = lab.stand_in(&config).unwrap();
        let spawned = SystemTime::now();
        vmm.start().unwrap();
        let trail = watch.await_trail(&id, "sandbox_attached");
        let wall = records(&trail)[0]["wall_time"].as_str().unwrap().to_owned();
        println!("{form:?}: started {before:?}..{spawned:?}, attached {wall}");
        vmms.push((id, vmm));
    }
    // Five frames, 20 ms apart, and the baseline of each disk.
    std::thread::sleep(Duration::from_millis(1500));
    for (_, vmm) in &mut vmms {
        vmm.kill();
    }
    for (id, _) in &vmms {
        let trail = watch.await_trail(id, "trail_end");
        assert_eq!(trails_of(&watch.trails, id).len(), 1);
        check_trail(&trail, id, 5);
        check_evidence(&trail, &files);
    }
    let said = watch.interrupt();
    assert!(said.contains("6 sandboxes were watched"), "{said}");
}

/// A watch that dies goes on in the trails of the sandboxes that outlive it.
#[test]
fn a_watch_that_is_killed_goes_on_in_the_same_trails() {
    let Some(lab) = lab("a_watch_that_is_killed_goes_on_in_the_same_trails") else {
        return;
    };
    let watch = Watch::start(&lab, &[]);
    let id = format!("i{}outlives", lab.id());
    let mut vmm = started(&lab, &config(&lab, StandInForm::Firecracker, &id));
    let trail = watch.await_trail(&id, "sandbox_attached");
    // By signal 9: nothing is sealed.
    drop(watch);
    let watch = Watch::start(&lab, &[]);
    assert_eq!(watch.await_trail(&id, "session_start"), trail);
    vmm.kill();
    assert_eq!(watch.await_trail(&id, "trail_end"), trail);
    assert_eq!(trails_of(&watch.trails, &id), std::slice::from_ref(&trail));
    watch.interrupt();
    let verified = Command::new(env!("CARGO_BIN_EXE_sandtrace"))
        .arg("verify")
        .arg(&trail)
        .output()
        .unwrap();
    assert!(verified.status.success(), "{verified:?}");
    let records = records(&trail);
    assert_eq!(of_type(&records, "session_start").len(), 1);
    assert_eq!(of_type(&records, "sandbox_attached").len(), 2);
}

#[test]
fn a_bound_is_kept_and_an_interrupt_ends_every_trail() {
    let Some(lab) = lab("a_bound_is_kept_and_an_interrupt_ends_every_trail") else {
        return;
    };
    let watch = Watch::start(&lab, &["--max-sandboxes", "1"]);
    let ids = ["one", "two"].map(|name| format!("i{}{name}", lab.id()));
    let start = |id: &str| {
        let vmm = lab.stand_in(&config(&lab, StandInForm::Firecracker, id));
        vmm.unwrap()
    };
    let mut first = start(&ids[0]);
    watch.await_trail(&ids[0], "sandbox_attached");
    let _second = start(&ids[1]);
    std::thread::sleep(Duration::from_millis(300));
    assert!(trails_of(&watch.trails, &ids[1]).is_empty());
    // Room for it.
    first.kill();
    let second = watch.await_trail(&ids[1], "sandbox_attached");
    let trails = watch.trails.clone();
    let said = watch.interrupt();
    assert!(said.contains("which --max-sandboxes allows"), "{said}");
    let second = records(&second);
    let end = of_type(&second, "trail_end");
    assert_eq!(end[0]["payload"]["reason"], "interrupted");
    let first = records(&trails_of(&trails, &ids[0])[0]);
    assert_eq!(
        of_type(&first, "trail_end")[0]["payload"]["reason"],
        "sandbox_ended"
    );
}
