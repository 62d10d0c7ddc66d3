//! Runs the program and waits for it, but never for long.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Longest wait for anything: an emulated machine on a busy host.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// The program, without what the caller's environment says about colours.
pub(crate) fn sandtrace<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandtrace"));
    command.args(args).env("SANDTRACE_STATE_DIR", state_dir());
    for variable in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "RUST_BACKTRACE"] {
        command.env_remove(variable);
    }
    command
}

/// Where the key is that signs the trails of tests. The first use of a key
/// says so on standard error; that is over when this returns.
pub(crate) fn state_dir() -> &'static str {
    const DIR: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/state");
    static MADE: Once = Once::new();
    MADE.call_once(|| {
        let mut init = Command::new(env!("CARGO_BIN_EXE_sandtrace"));
        let made = init.args(["keys", "init", "--state-dir", DIR]).output();
        let exists = Path::new(DIR).join("host.key").exists();
        assert!(exists, "{made:?}");
    });
    DIR
}

/// Runs the program to its end.
#[track_caller]
pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Ran {
    finish(sandtrace(args))
}

/// Runs a command to its end.
#[track_caller]
pub(crate) fn finish(command: Command) -> Ran {
    Running::start(command).wait()
}

/// What became of a run.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// It ended with this code, whatever it is, without a panic.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        for word in ["panicked", "backtrace", "RUST_BACKTRACE"] {
            assert!(!self.stderr.contains(word), "{self:#?}");
        }
        self
    }

    /// It said nothing to people.
    #[track_caller]
    pub(crate) fn quiet(self) -> Self {
        assert_eq!(self.stderr, "", "{self:#?}");
        self
    }

    /// It said exactly one line, which has all of `parts`, and no data.
    #[track_caller]
    pub(crate) fn one_line(self, parts: &[&str]) -> Self {
        assert!(self.stderr.starts_with("sandtrace: "), "{self:#?}");
        assert!(self.stderr.ends_with('\n'), "{self:#?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:#?}");
        for part in parts {
            assert!(self.stderr.contains(part), "no {part:?} in {self:#?}");
        }
        // A cause that is told twice.
        let twice = self.stderr.matches("(os error").count() > 1;
        assert!(!twice, "{self:#?}");
        self
    }
}

/// A process that is killed when dropped. What it prints goes to files, so that it never waits
/// for its reader.
pub(crate) struct Running {
    child: Child,
    name: String,
    stdout: File,
    stderr: File,
}

impl Running {
    #[track_caller]
    pub(crate) fn start(mut command: Command) -> Self {
        let (stdout, stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        command.stdin(Stdio::null());
        command.stdout(stdout.try_clone().unwrap());
        command.stderr(stderr.try_clone().unwrap());
        Self::start_with(command, stdout, stderr)
    }

    /// As [`Self::start`], where the caller says where standard output goes.
    #[track_caller]
    pub(crate) fn start_into(mut command: Command, stdout: impl Into<Stdio>) -> Self {
        let stderr = tempfile::tempfile().unwrap();
        command.stdin(Stdio::null()).stdout(stdout.into());
        command.stderr(stderr.try_clone().unwrap());
        Self::start_with(command, tempfile::tempfile().unwrap(), stderr)
    }

    fn start_with(mut command: Command, stdout: File, stderr: File) -> Self {
        let name = format!("{command:?}");
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        Self {
            child,
            name,
            stdout,
            stderr,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn stdout(&self) -> String {
        whole(&self.stdout)
    }

    pub(crate) fn stderr(&self) -> String {
        whole(&self.stderr)
    }

    /// Waits until the watch has its baselines.
    #[track_caller]
    pub(crate) fn ready(mut self) -> Self {
        let said = eventually("the watch begins", || {
            let said = self.stderr();
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "{}: {ended:?}: {said}", self.name);
            said.contains("Ctrl-C ends").then_some(said)
        });
        assert!(said.starts_with("watching "), "{said}");
        self
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// To its whole process group, as a terminal does.
    pub(crate) fn signal_group(&self, signal: Signal) {
        rustix::process::kill_process_group(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Kills it, which had not ended before.
    #[track_caller]
    pub(crate) fn kill(mut self) {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "{}: {ended:?}", self.name);
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{status}");
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Ran {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(
                Instant::now() < deadline,
                "{} does not end; stdout:\n{}\nstderr:\n{}",
                self.name,
                self.stdout(),
                self.stderr()
            );
            std::thread::sleep(Duration::from_millis(3));
        };
        let code = status.code();
        Ran {
            code: code.unwrap_or_else(|| panic!("{}: {status}: {}", self.name, self.stderr())),
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Harmless where it ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Everything in a file, without moving the offset that the child shares.
fn whole(file: &File) -> String {
    let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
    let mut bytes = vec![0; length];
    match file.read_exact_at(&mut bytes, 0) {
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => panic!("{error}"),
        _ => String::from_utf8(bytes).expect("the program prints UTF-8"),
    }
}

/// Asks again and again until there is an answer.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "it never happens that {what}");
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// Waits until a trail holds a text.
#[track_caller]
pub(crate) fn await_text(trail: &str, text: &str) {
    eventually(text, || {
        let trail = std::fs::read_to_string(trail).unwrap_or_default();
        trail.contains(text).then_some(())
    });
}
