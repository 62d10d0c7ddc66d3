//! The traced program, built once, and its life.

use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// Longest that any program of a test may run.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Whether to skip: privileged tests fail in CI where they cannot run.
pub(crate) fn skipped(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    assert!(
        root || std::env::var_os("CI").is_none(),
        "CI must run {test} as root"
    );
    if !root {
        println!("skipped: {test}: not root");
    }
    !root
}

/// Says that a test is skipped for something that this machine lacks; CI's has it.
pub(crate) fn lacks(test: &str, what: &str) {
    let ci = std::env::var_os("CI").is_some();
    assert!(!ci, "CI must run {test}, which needs {what}");
    println!("skipped: {test}: this machine lacks {what}");
}

/// Compiles a C program of this directory once for all tests of this process.
pub(crate) fn compiled(source: &'static str) -> PathBuf {
    static DIRECTORY: OnceLock<tempfile::TempDir> = OnceLock::new();
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _other_tests_wait = ONE_AT_A_TIME.lock();
    let directory = DIRECTORY.get_or_init(|| tempfile::tempdir().unwrap());
    let output = directory.path().join(source.trim_end_matches(".c"));
    if !output.exists() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/syscalls")
            .join(source);
        let built = Command::new("gcc")
            .args(["-O1", "-pthread", "-w", "-o"])
            .args([&output, &source])
            .status()
            .expect("gcc (Debian: build-essential)");
        assert!(built.success(), "compile {}", source.display());
    }
    output
}

/// A program that is killed and reaped when the test is over.
pub(crate) struct Running {
    child: Child,
    pid: u32,
}

impl Running {
    /// As a child of this process.
    pub(crate) fn child(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let pid = child.id();
        Self { child, pid }
    }

    /// As a child of a shell: a process cannot trace its own children while
    /// other threads of it wait for them.
    ///
    /// Without cargo's library path and a locale: with both, each program that a
    /// script runs opens some 80 files, and two of them in a tenth of a second are
    /// more than the share of a sandbox here.
    pub(crate) fn start(program: &Path, arguments: &[&str]) -> Self {
        let mut child = Command::new("sh")
            .env_remove("LD_LIBRARY_PATH")
            .env("LC_ALL", "C")
            .args(["-c", "\"$@\" & echo $!; exec >&-; wait $!", "sh"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let pid = line.trim().parse().unwrap();
        Self { child, pid }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.try_signal(signal).unwrap();
    }

    fn try_signal(&self, signal: Signal) -> rustix::io::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid).unwrap()).unwrap();
        kill_process(pid, signal)
    }

    /// Waits for its end, which must be a good one.
    #[track_caller]
    pub(crate) fn wait(&mut self) {
        let mut status = None;
        until("the program ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        assert_eq!(status.unwrap().to_string(), "exit status: 0");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // As long as the shell is not reaped, nobody else has the program's id.
        if let Ok(None) = self.child.try_wait() {
            let _ended = self.try_signal(Signal::KILL);
            let _ended = self.child.kill().and_then(|()| self.child.wait());
        }
    }
}

/// The deterministic program, waiting for its start.
pub(crate) struct Waiting {
    pub(crate) running: Running,
    go: File,
    _directory: tempfile::TempDir,
}

impl Waiting {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("go");
        std::fs::write(&path, [0; 4096]).unwrap();
        let go = File::options().write(true).open(&path).unwrap();
        let running = Running::start(&compiled("program.c"), &[path.to_str().unwrap()]);
        // It spins in user space once its handlers are set.
        let status = PathBuf::from(format!("/proc/{}/status", running.pid()));
        until("the program waits", || {
            let status = std::fs::read_to_string(&status).unwrap_or_default();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
            caught.is_some_and(|mask| mask & (1 << 11) != 0 && mask & (1 << 9) != 0)
        });
        Self {
            running,
            go,
            _directory: directory,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Lets it begin, and waits for its end.
    #[track_caller]
    pub(crate) fn go(&mut self) {
        self.go.write_all(b"g").unwrap();
        self.running.wait();
    }
}

#[track_caller]
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
