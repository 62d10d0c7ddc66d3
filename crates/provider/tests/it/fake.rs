//! A directory that looks like `/proc`, whose one VMM is this very test: its
//! API socket is real, and its listener has the pid that it should have.

use sandtrace_provider::{DiscoverConfig, ProcRoot};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Without a Docker.
pub(crate) fn config() -> DiscoverConfig {
    DiscoverConfig {
        docker_socket: "/nonexistent/docker.sock".into(),
        ..DiscoverConfig::default()
    }
}

pub(crate) struct Fake {
    dir: TempDir,
}

impl Fake {
    /// A process with these arguments, an ext4 image and a tap.
    pub(crate) fn new(arguments: &[&str]) -> Self {
        let fake = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        fs::create_dir_all(fake.jail("run")).unwrap();
        fs::create_dir_all(fake.jail("var/lib/vm")).unwrap();
        fs::create_dir_all(fake.path("netns")).unwrap();
        fake.process(std::process::id(), arguments);
        symlink(std::process::id().to_string(), fake.path("proc/self")).unwrap();
        let image = fake.jail("var/lib/vm/rootfs.ext4");
        fs::write(&image, ext4()).unwrap();
        fake.descriptor(9, &image, "flags:\t02100002\n");
        // Any character device does: what makes it a tap is its fdinfo.
        fake.descriptor(12, Path::new("/dev/null"), "flags:\t02100002\niff:\tlo\n");
        fake
    }

    pub(crate) fn process(&self, pid: u32, arguments: &[&str]) {
        let dir = self.path(&format!("proc/{pid}"));
        for below in ["fd", "fdinfo", "ns"] {
            fs::create_dir_all(dir.join(below)).unwrap();
        }
        let stat = format!("{pid} (fc) S 1 7 7 0 -1 4194560 96 0 0 0 0 0 0 0 20 0 1 0 991 26 2");
        fs::write(dir.join("stat"), stat).unwrap();
        fs::write(dir.join("ns/net"), "").unwrap();
        symlink(self.jail(""), dir.join("root")).unwrap();
        symlink(self.jail("run"), dir.join("cwd")).unwrap();
        self.arguments(pid, arguments);
    }

    pub(crate) fn arguments(&self, pid: u32, arguments: &[&str]) {
        let line: String = arguments.iter().flat_map(|word| [word, "\0"]).collect();
        fs::write(self.path(&format!("proc/{pid}/cmdline")), line).unwrap();
    }

    pub(crate) fn descriptor(&self, number: u32, target: &Path, info: &str) {
        let pid = std::process::id();
        symlink(target, self.path(&format!("proc/{pid}/fd/{number}"))).unwrap();
        fs::write(self.path(&format!("proc/{pid}/fdinfo/{number}")), info).unwrap();
    }

    pub(crate) fn proc(&self) -> ProcRoot {
        ProcRoot::at(self.path("proc"), self.path("netns"))
    }

    pub(crate) fn jail(&self, below: &str) -> PathBuf {
        self.path("jail").join(below)
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }
}

/// As much of an ext4 image as tells that it is one.
pub(crate) fn ext4() -> Vec<u8> {
    let mut image = vec![0; 4096];
    image[1080..1082].copy_from_slice(&[0x53, 0xef]);
    image
}
