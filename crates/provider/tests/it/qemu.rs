//! A real QEMU in a real network namespace, stopped before its first instruction.

use sandtrace_provider::{
    DiscoverConfig, DiskFormat, ProcRoot, ProviderKind, Sighting, Target, discover, find,
};
use sandtrace_sys::process::Pidfd;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

#[test]
fn a_real_qemu_is_found_with_tap_namespace_and_disk() {
    let Some(lab) = Lab::new("a_real_qemu_is_found_with_tap_namespace_and_disk") else {
        return;
    };
    let target = lab.wait_for_target();
    assert_eq!(target.provider, ProviderKind::Qemu);
    let vmm = target.vmm.clone().unwrap();
    assert_eq!(vmm.pid, lab.qemu.id());
    assert_eq!(vmm.name, "qemu-system-x86_64");

    let [tap] = target.taps.as_slice() else {
        panic!("{target:?}")
    };
    assert_eq!(tap.interface, lab.tap);
    assert_eq!(tap.netns.as_deref(), Some(lab.name.as_str()));
    assert_eq!(tap.index, lab.tap_index());
    let netns = target.netns_path.clone().unwrap();
    assert_eq!(netns, Path::new(&format!("/proc/{}/ns/net", vmm.pid)));

    let [disk] = target.disks.as_slice() else {
        panic!("{target:?}")
    };
    assert_eq!(disk.identity.kind, "unknown");
    assert_eq!(disk.identity.path, lab.image().display().to_string());
    let image = std::fs::read(lab.image()).unwrap();
    assert_eq!(std::fs::read(&disk.open_path).unwrap(), image);

    let everything = discover(&ProcRoot::host(), &DiscoverConfig::default());
    assert!(everything.targets.contains(&target), "{everything:?}");

    let pidfd = Pidfd::open(vmm.pid, vmm.start_ticks.0).unwrap();
    assert!(!pidfd.has_ended().unwrap());
    let name = lab.name.clone();
    drop(lab);
    assert!(pidfd.has_ended().unwrap());
    assert!(find(&name).is_err());
}

/// Ended with the test, however that ends.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// A QEMU without anything, under another name.
fn called(argv0: &str, id: &str) -> Guard {
    let qemu = Command::new("qemu-system-x86_64")
        .arg0(argv0)
        .args(NOTHING)
        .args(["-name", id])
        .stdin(Stdio::null())
        .spawn();
    Guard(qemu.unwrap())
}

const NOTHING: [&str; 8] = [
    "-M",
    "none",
    "-S",
    "-accel",
    "tcg",
    "-display",
    "none",
    "-nodefaults",
];

fn await_found(id: &str) -> u32 {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match find(id) {
            Ok(target) => {
                assert_eq!(target.provider, ProviderKind::Qemu);
                return target.vmm.unwrap().pid;
            }
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn runs(test: &str) -> bool {
    let why = match Command::new("qemu-system-x86_64").arg("--version").output() {
        Ok(output) if output.status.success() => return true,
        other => format!("qemu-system-x86_64 does not run: {other:?}"),
    };
    assert!(std::env::var_os("CI").is_none(), "{test}: {why}");
    println!("skipped: {test}: {why}");
    false
}

#[test]
fn qemu_by_its_other_names() {
    if !runs("qemu_by_its_other_names") {
        return;
    }
    for argv0 in ["/usr/libexec/qemu-kvm", "/usr/bin/kvm"] {
        let id = format!("st-{}-{}", argv0.len(), std::process::id());
        let qemu = called(argv0, &id);
        assert_eq!(await_found(&id), qemu.0.id(), "{argv0}");
    }
}

#[test]
fn another_program_by_the_name_of_qemu_is_none() {
    let id = format!("st-no-qemu-{}", std::process::id());
    let mut other = Command::new("sh")
        .arg0("kvm")
        .args(["-c", "echo; read line", "sh", "-name", &id])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Once it speaks it has the arguments that it will have.
    let mut said = [0];
    other
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut said)
        .unwrap();
    let sighting = Sighting::of_process(&ProcRoot::host(), other.id(), &DiscoverConfig::default());
    assert!(sighting.unwrap().is_none());
    other.kill().unwrap();
    other.wait().unwrap();
}

/// It goes on in a fork of itself, which starts no program.
#[test]
fn a_qemu_that_became_a_daemon_is_found() {
    if !runs("a_qemu_that_became_a_daemon_is_found") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let pid_file = dir.path().join("pid");
    let id = format!("st-daemon-{}", std::process::id());
    let mut first = Command::new("qemu-system-x86_64")
        .args(NOTHING)
        .args(["-daemonize", "-name", &id, "-pidfile"])
        .arg(&pid_file)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    assert!(first.wait().unwrap().success());
    let pid = std::fs::read_to_string(&pid_file).unwrap();
    let pid: u32 = pid.trim().parse().unwrap();
    let found = await_found(&id);
    let killed = Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(killed.unwrap().success());
    assert_eq!(found, pid);
    assert_ne!(found, first.id());
}

/// A qcow2 image without the name of one and a raw one with it: QEMU's own
/// words tell, neither names nor what the guest wrote.
#[test]
fn formats_are_those_that_qemu_was_told() {
    if !runs("formats_are_those_that_qemu_was_told") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [plain, odd, moved] =
        ["plain.img", "odd.qcow2", "moved.img"].map(|name| dir.path().join(name));
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2"])
        .args([plain.as_os_str(), "1M".as_ref()])
        .status();
    assert!(made.unwrap().success());
    for path in [&odd, &moved] {
        std::fs::write(path, vec![0; 1 << 20]).unwrap();
    }
    let id = format!("st-formats-{}", std::process::id());
    let file = |path: &Path| format!("driver=file,node-name=f,filename={}", path.display());
    // Nothing uses the drive, so it would be open for reading alone.
    let raw = format!(
        "if=none,format=raw,auto-read-only=off,file={}",
        odd.display()
    );
    let part = format!(
        r#"{{"driver":"raw","node-name":"p","offset":4096,"file":
            {{"driver":"file","filename":"{}"}}}}"#,
        moved.display()
    );
    let qemu = Command::new("qemu-system-x86_64")
        .args(NOTHING)
        .args(["-name", &id, "-drive", &raw, "-blockdev", &file(&plain)])
        .args(["-blockdev", "driver=qcow2,node-name=q,file=f"])
        .args(["-blockdev", &part])
        .stdin(Stdio::null())
        .spawn();
    let _guard = Guard(qemu.unwrap());
    let deadline = Instant::now() + Duration::from_secs(20);
    let target = loop {
        match find(&id) {
            Ok(target) if target.disks.len() == 2 => break target,
            last => assert!(Instant::now() < deadline, "{last:?}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let format = |path: &Path| {
        let path = path.to_str().unwrap();
        let mut disks = target.disks.iter();
        disks
            .find(|disk| disk.identity.path == path)
            .unwrap()
            .format
    };
    assert_eq!(format(&plain), Some(DiskFormat::Qcow2));
    assert_eq!(format(&odd), Some(DiskFormat::Raw));
    // What begins amid a file is not read as if it began with it.
    let missing = |word: &str| target.coverage.iter().any(|it| it.missing.contains(word));
    assert!(missing("a part of a raw file"), "{target:?}");
    assert!(!missing("plain.img"), "{target:?}");
}

/// A namespace with a tap, a disk image, and a QEMU that has both.
struct Lab {
    name: String,
    tap: String,
    dir: tempfile::TempDir,
    qemu: Child,
}

impl Lab {
    /// `None`, with a line that says why, where this host cannot have one.
    fn new(test: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let suffix = std::process::id();
        let (name, tap) = (format!("st-prov-{suffix}"), format!("stp{suffix}"));
        if let Some(why) = unable(&name) {
            assert!(std::env::var_os("CI").is_none(), "{test}: {why}");
            println!("skipped: {test}: {why}");
            return None;
        }
        let image = dir.path().join("disk,with comma.raw");
        std::fs::write(&image, vec![7; 1 << 20]).unwrap();
        let file = image.display().to_string().replace(',', ",,");
        let qemu = Command::new("ip")
            .args([
                "netns",
                "exec",
                &name,
                "qemu-system-x86_64",
                "-M",
                "microvm",
                "-S",
            ])
            .args([
                "-accel",
                "tcg",
                "-m",
                "32",
                "-display",
                "none",
                "-nodefaults",
            ])
            .args(["-name", &format!("guest={name},debug-threads=on")])
            .args([
                "-netdev",
                &format!("tap,id=n0,ifname={tap},script=no,downscript=no"),
            ])
            .args(["-device", "virtio-net-device,netdev=n0"])
            .args(["-drive", &format!("id=d0,format=raw,if=none,file={file}")])
            .args(["-device", "virtio-blk-device,drive=d0"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Some(Self {
            name,
            tap,
            dir,
            qemu,
        })
    }

    fn wait_for_target(&self) -> Target {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let last = find(&self.name);
            match last {
                Ok(target) if !target.taps.is_empty() && !target.disks.is_empty() => return target,
                _ => assert!(Instant::now() < deadline, "{last:?}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn image(&self) -> std::path::PathBuf {
        self.dir.path().join("disk,with comma.raw")
    }

    fn tap_index(&self) -> u32 {
        let args = ["netns", "exec", &self.name, "cat"];
        let path = format!("/sys/class/net/{}/ifindex", self.tap);
        let output = Command::new("ip").args(args).arg(path).output().unwrap();
        String::from_utf8_lossy(&output.stdout)
            .trim()
            .parse()
            .unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        _ = self.qemu.kill();
        _ = self.qemu.wait();
        _ = ip(&["netns", "del", &self.name]);
    }
}

/// Makes the namespace, or says what stands against it.
fn unable(name: &str) -> Option<String> {
    let version = Command::new("qemu-system-x86_64").arg("--version").output();
    if !version.is_ok_and(|output| output.status.success()) {
        return Some("qemu-system-x86_64 does not run".to_owned());
    }
    match ip(&["netns", "add", name]) {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(format!("ip: {error}")),
    }
}

fn ip(args: &[&str]) -> std::io::Result<Output> {
    Command::new("ip").args(args).output()
}
