//! What is told of the disk of a sandbox that is paused.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use sandtrace_event::{Payload, QuiesceMethod};

use crate::support::{Dir, Running, assert_sealed, await_text, sandtrace};

/// A process that stands for a VMM, and ends with the test.
struct Vmm(std::process::Child);

impl Vmm {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// An image with nothing in it yet.
fn image(dir: &Dir) -> String {
    let disk = dir.text("disk.img");
    let output = Command::new("mkfs.ext4")
        .args(["-q", "-F", &disk, "4M"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    disk
}

/// A change is told as one of a sandbox that is paused while it is, and only then;
/// one in an overlay, to which others than the stopped process can write, never.
#[test]
fn a_scan_within_a_pause_says_so() {
    let dir = Dir::new();
    let (upper, disk, trail) = (dir.dir("upper"), image(&dir), dir.text("trace.jsonl"));
    let mut sleep = Command::new("sleep");
    let vmm = Vmm(sleep.arg("600").stdin(Stdio::null()).spawn().unwrap());
    let pid = vmm.0.id().to_string();
    let args = ["watch", "--sandbox-id", "box", "--pid", &pid];
    let more = ["--overlay", &upper, "--disk", &disk, "--trail", &trail];
    let times = ["--state-interval", "50ms", "--scan-interval", "200ms"];
    let watch = Running::start(sandtrace(&[&args[..], &more, &times].concat())).ready();
    let write = |name: &str| {
        fs::write(dir.path(&format!("upper/{name}")), "x").unwrap();
        let request = format!("mkdir {name}-disk");
        let output = Command::new("debugfs")
            .args(["-w", "-R", &request, &disk])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        await_text(&trail, &format!(r#""path":"/{name}""#));
        await_text(&trail, &format!(r#""path":"/{name}-disk""#));
    };
    write("before");
    vmm.signal(Signal::STOP);
    await_text(&trail, r#""state":"paused""#);
    write("within");
    vmm.signal(Signal::CONT);
    write("after");
    watch.signal(Signal::INT);
    watch.wait().expect(0);
    let told: BTreeSet<_> = assert_sealed(&trail)
        .into_iter()
        .filter_map(|event| match event.payload {
            Payload::FilesystemChange(change) if change.path != "/" => {
                let is_paused = change.quiesce_method == QuiesceMethod::Paused;
                assert_eq!(change.quiesced, is_paused, "{}", change.path);
                Some((change.path, is_paused))
            }
            _ => None,
        })
        .collect();
    let expected = [
        ("/before", false),
        ("/before-disk", false),
        ("/within", false),
        ("/within-disk", true),
        ("/after", false),
        ("/after-disk", false),
    ];
    let expected = expected.map(|(path, is_paused)| (path.to_owned(), is_paused));
    assert_eq!(told, BTreeSet::from(expected));
}
