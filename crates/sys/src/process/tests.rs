//! Processes through /proc.

use super::descriptors::{access, tap};
use super::*;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

#[track_caller]
fn check_ticks(stat: &str, expected: Option<u64>) {
    assert_eq!(start_ticks(stat.as_bytes()).ok(), expected, "{stat}");
}

#[test]
fn start_time_is_field_22_whatever_the_name() {
    let rest = "S 1 7 7 0 -1 4194560 96 0 0 0 0 0 0 0 20 0 1 0 991 2621440 222";
    check_ticks(&format!("7 (firecracker) {rest}"), Some(991));
    check_ticks(&format!("7 (a) S 1 2) b) {rest}\n"), Some(991));
    check_ticks("7 (a) S 1", None);
    check_ticks("", None);
    check_ticks("7 a S", None);
}

#[track_caller]
fn check_arguments(bytes: &[u8], expected: &[&[u8]]) {
    assert_eq!(split_arguments(bytes), expected);
}

#[test]
fn arguments_end_in_nul() {
    check_arguments(b"", &[]);
    check_arguments(b"\0", &[]);
    check_arguments(b"a\0", &[b"a"]);
    check_arguments(b"a\0\0b c\0", &[b"a", b"", b"b c"]);
    check_arguments(b"a\0cut o", &[b"a"]);
    assert_eq!(split_arguments(&b"x\0".repeat(5000)).len(), MAX_ARGUMENTS);
}

#[test]
fn fdinfo() {
    let info = |flags: &str| access(&format!("pos:\t0\nflags:\t{flags}\nmnt_id:\t9\n"));
    assert_eq!(info("0100000"), Some(Access::Read));
    assert_eq!(info("02100001"), Some(Access::Write));
    assert_eq!(info("02100002"), Some(Access::ReadWrite));
    assert_eq!(info("012100000"), None);
    assert_eq!(info("x"), None);
    assert_eq!(tap("flags:\t02\niff:\tfctap0\n"), Some("fctap0".to_owned()));
    assert_eq!(tap("flags:\t02\niff:\t\n"), None);
    assert_eq!(tap("iff:\tsixteen-chars-xx\n"), None);
    assert_eq!(tap("flags:\t02\n"), None);
}

struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        let sleep = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn();
        Self(sleep.unwrap())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

#[test]
fn a_real_process_is_read_until_it_ends() {
    let mut sleeper = Sleeper::start();
    let pid = sleeper.0.id();
    let proc = ProcRoot::host();
    assert!(proc.pids().unwrap().contains(&pid));
    let process = proc.process(pid).unwrap();
    // Between fork and exec the child still has our command line.
    while process.arguments().unwrap().first().map(Vec::as_slice) != Some(b"sleep") {
        std::thread::yield_now();
    }
    assert_eq!(process.arguments().unwrap(), [b"sleep".as_slice(), b"60"]);
    assert_eq!(
        process.net_namespace().unwrap(),
        proc.own_net_namespace().unwrap()
    );
    let pidfd = Pidfd::open(pid, process.start_ticks()).unwrap();
    assert!(process.is_alive());
    assert!(!pidfd.has_ended().unwrap());
    let other = Pidfd::open(pid, process.start_ticks() + 1).unwrap_err();
    assert_eq!(other.kind(), io::ErrorKind::NotFound);

    sleeper.0.kill().unwrap();
    // Nobody waited for it yet.
    let deadline = Instant::now() + Duration::from_secs(10);
    while process.is_alive() {
        assert!(Instant::now() < deadline, "a zombie is alive");
        std::thread::yield_now();
    }
    sleeper.0.wait().unwrap();
    assert!(pidfd.has_ended().unwrap());
    assert!(!process.is_alive());
    assert!(process.arguments().is_err());
    assert!(process.descriptors().is_err());
    assert!(Pidfd::open(pid, process.start_ticks()).is_err());
}

#[test]
fn open_files_are_found_with_their_access() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    let mut file = File::options()
        .create_new(true)
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    file.write_all(b"content").unwrap();
    let process = ProcRoot::host().process(std::process::id()).unwrap();
    let id = FileId::of(&path).unwrap();
    let open = process.descriptors().unwrap().open;
    let ours = open.iter().find(|it| it.name == path).unwrap();
    let access = Access::ReadWrite;
    assert_eq!(ours.kind, DescriptorKind::File { id, access });
    assert_eq!(process.file_id(&path).unwrap(), id);
    assert_eq!(process.read_file(&path, 7).unwrap(), b"content");
    assert!(process.read_file(&path, 6).is_err());
    assert!(process.read_file(dir.path(), 6).is_err());
    let mut head = [0; 4];
    process.read_descriptor(ours.number, id, &mut head).unwrap();
    assert_eq!(&head, b"cont");
    let other = FileId {
        inode: id.inode + 1,
        ..id
    };
    assert!(
        process
            .read_descriptor(ours.number, other, &mut head)
            .is_err()
    );
}

/// A directory that looks like `/proc/7` of a process whose root is elsewhere.
fn jailed(dir: &Path) -> Process {
    let proc = dir.join("proc");
    std::fs::create_dir_all(proc.join("7")).unwrap();
    std::fs::create_dir_all(dir.join("jail/run")).unwrap();
    let stat = "7 (fc) S 1 7 7 0 -1 4194560 96 0 0 0 0 0 0 0 20 0 1 0 991 2621440 222";
    std::fs::write(proc.join("7/stat"), stat).unwrap();
    symlink(dir.join("jail"), proc.join("7/root")).unwrap();
    symlink(dir.join("jail/run"), proc.join("7/cwd")).unwrap();
    ProcRoot::at(proc, dir.join("netns")).process(7).unwrap()
}

#[test]
fn links_do_not_lead_out_of_the_jail() {
    let dir = tempfile::tempdir().unwrap();
    let process = jailed(dir.path());
    let jail = dir.path().join("jail");
    std::fs::write(dir.path().join("secret"), "host").unwrap();
    std::fs::write(jail.join("secret"), "jail").unwrap();
    symlink("/secret", jail.join("absolute")).unwrap();
    symlink("../../../../../../secret", jail.join("climbing")).unwrap();
    for name in ["/secret", "/absolute", "/climbing", "/../../secret"] {
        let bytes = process.read_file(Path::new(name), 100).unwrap();
        assert_eq!(bytes, b"jail", "{name}");
    }
    symlink(dir.path().join("secret"), jail.join("run/out")).unwrap();
    for name in ["out", "../secret", "../../secret"] {
        assert!(process.read_file(Path::new(name), 100).is_err(), "{name}");
    }
}

#[test]
fn sockets_are_reached_through_the_root() {
    let dir = tempfile::tempdir().unwrap();
    let process = jailed(dir.path());
    let listener = UnixListener::bind(dir.path().join("jail/run/fc.socket")).unwrap();
    for name in ["/run/fc.socket", "fc.socket"] {
        let (mut stream, pid) = process.connect(Path::new(name)).unwrap();
        assert_eq!(pid, std::process::id());
        stream.write_all(b"x").unwrap();
        listener.accept().unwrap();
    }
    std::fs::write(dir.path().join("jail/run/file"), "").unwrap();
    assert!(process.connect(Path::new("/run/file")).is_err());
    assert!(process.connect(Path::new("/run/none")).is_err());
}
