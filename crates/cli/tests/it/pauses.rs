//! What is told of the disk of a sandbox that is paused.

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

/// A change is told as one of a sandbox that is paused while it is, and only then.
#[test]
fn a_scan_within_a_pause_says_so() {
    let dir = Dir::new();
    let (upper, trail) = (dir.dir("upper"), dir.text("trace.jsonl"));
    let mut sleep = Command::new("sleep");
    let vmm = Vmm(sleep.arg("600").stdin(Stdio::null()).spawn().unwrap());
    let pid = vmm.0.id().to_string();
    let args = ["watch", "--sandbox-id", "box", "--pid", &pid];
    let more = ["--overlay", &upper, "--trail", &trail];
    let times = ["--state-interval", "50ms", "--scan-interval", "200ms"];
    let watch = Running::start(sandtrace(&[&args[..], &more, &times].concat())).ready();
    let write = |name: &str| {
        fs::write(dir.path(&format!("upper/{name}")), "x").unwrap();
        await_text(&trail, &format!(r#""path":"/{name}""#));
    };
    write("before");
    vmm.signal(Signal::STOP);
    await_text(&trail, r#""state":"paused""#);
    write("within");
    vmm.signal(Signal::CONT);
    write("after");
    watch.signal(Signal::INT);
    watch.wait().expect(0);
    let told: Vec<_> = assert_sealed(&trail)
        .into_iter()
        .filter_map(|event| match event.payload {
            Payload::FilesystemChange(change) if change.path != "/" => {
                Some((change.path, change.quiesce_method, change.quiesced))
            }
            _ => None,
        })
        .collect();
    let expected = [
        ("/before", QuiesceMethod::Live, false),
        ("/within", QuiesceMethod::Paused, true),
        ("/after", QuiesceMethod::Live, false),
    ];
    let expected = expected.map(|(path, method, quiesced)| (path.to_owned(), method, quiesced));
    assert_eq!(told, expected);
}
