//! What must be found of a sandbox, and be in its trail, whichever provider it
//! is of: the same for all.

use crate::fleet::{of_type, records};
use crate::support::CANARY;
use rustix::fs::{major, minor};
use sandtrace_event::SandboxAttached;
use sandtrace_lab::{MicroVm, NamespaceSandbox, StandIn, StandInForm};
use sandtrace_provider::ProviderKind;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

/// One sandbox, as those know it who started it.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) id: String,
    pub(crate) provider: ProviderKind,
    /// Pid and start time.
    pub(crate) process: Option<(u32, u64)>,
    pub(crate) agent: Option<&'static str>,
    pub(crate) template: Option<&'static str>,
    /// Its interface and the network namespace of that, where it is not ours.
    pub(crate) link: Option<(String, Option<String>)>,
    pub(crate) storage: Storage,
    /// A part of each sentence on what cannot be seen of it.
    pub(crate) missing: &'static [&'static str],
    /// The same of what only a watch looks for.
    pub(crate) missing_to_watch: &'static [&'static str],
}

/// Where its files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Storage {
    kind: &'static str,
    device: String,
    inode: u64,
}

impl Storage {
    fn of(kind: &'static str, path: &Path) -> Self {
        let metadata = path.metadata().unwrap();
        let device = metadata.dev();
        Self {
            kind,
            device: format!("{}:{}", major(device), minor(device)),
            inode: metadata.ino(),
        }
    }
}

/// Pid and start time: field 22 of its status, counted from behind its name.
fn process(pid: u32) -> (u32, u64) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    (pid, fields.split(' ').nth(19).unwrap().parse().unwrap())
}

/// What an interface has taken from its sandbox, by the kernel's count.
pub(crate) fn frames_from(netns: &str, interface: &str) -> u64 {
    let mut ip = Command::new("ip");
    ip.args(["-n", netns, "-s", "-j", "link", "show", interface]);
    let json: Value = serde_json::from_slice(&ip.output().unwrap().stdout).unwrap();
    json[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
}

impl Expected {
    pub(crate) fn stand_in(form: StandInForm, id: &str, vmm: &StandIn) -> Self {
        let (provider, kind) = match form {
            StandInForm::E2b => (ProviderKind::E2b, "ext4"),
            StandInForm::CloudHypervisor => (ProviderKind::CloudHypervisor, "ext4"),
            StandInForm::Libkrun => (ProviderKind::Libkrun, "overlay"),
            _ => (ProviderKind::Firecracker, "ext4"),
        };
        let missing: &[&str] = match form {
            StandInForm::CloudHypervisor => &[],
            StandInForm::Libkrun => &["never reaches an interface", ".wh.NAME", "no tap open"],
            _ => &["MMDS"],
        };
        let missing_to_watch: &[&str] = match form {
            StandInForm::Libkrun => &["no overlay with the upper dir"],
            _ => &[],
        };
        let link = || ("tap0".to_owned(), Some(vmm.netns().to_owned()));
        let has_metadata = missing == ["MMDS"];
        Self {
            id: id.to_owned(),
            provider,
            process: Some(process(vmm.pid())),
            agent: has_metadata.then_some("billing"),
            template: (form == StandInForm::E2b).then_some("tpl-1"),
            link: (form != StandInForm::Libkrun).then(link),
            storage: Storage::of(kind, vmm.disk()),
            missing,
            missing_to_watch,
        }
    }

    /// Seen from the namespace of its link's other end.
    pub(crate) fn container(id: &str, sandbox: &NamespaceSandbox) -> Self {
        Self {
            id: id.to_owned(),
            provider: ProviderKind::Daytona,
            process: Some(process(sandbox.pid())),
            agent: Some("coder"),
            template: Some("python-3.12"),
            link: Some((sandbox.interface().to_owned(), None)),
            storage: Storage::of("overlay", sandbox.upper()),
            missing: &["shares the host's kernel"],
            missing_to_watch: &[],
        }
    }

    /// Seen from the namespace of its tap.
    pub(crate) fn qemu(id: &str, vm: &MicroVm) -> Self {
        Self {
            id: id.to_owned(),
            provider: ProviderKind::Qemu,
            process: Some(process(vm.pid())),
            agent: None,
            template: None,
            link: Some((vm.tap().to_owned(), None)),
            storage: Storage::of("ext4", vm.disk()),
            missing: &[],
            missing_to_watch: &[],
        }
    }

    /// What is found of it.
    #[track_caller]
    pub(crate) fn check(&self, found: &SandboxAttached) {
        self.check_found(found);
        self.check_coverage(found, self.missing);
    }

    #[track_caller]
    fn check_found(&self, found: &SandboxAttached) {
        let id = &self.id;
        assert_eq!(found.provider, self.provider.as_str(), "{id}");
        let vmm = found.vmm.as_ref();
        let process = vmm.map(|vmm| (vmm.pid, vmm.start_ticks.0));
        assert_eq!(process, self.process, "{id}");
        assert_eq!(found.agent_id.as_deref(), self.agent, "{id}");
        assert_eq!(found.template.as_deref(), self.template, "{id}");
        let links = found.taps.iter();
        let links = links.map(|tap| (tap.interface.clone(), tap.netns.clone()));
        let links: Vec<_> = links.collect();
        let expected: Vec<_> = self.link.clone().into_iter().collect();
        assert_eq!(links, expected, "{id}");
        let [disk] = found.disks.as_slice() else {
            panic!("{id}: {found:?}")
        };
        assert_eq!(disk.kind, self.storage.kind, "{id}");
        assert_eq!(disk.device, self.storage.device, "{id}");
        assert_eq!(disk.inode.0, self.storage.inode, "{id}");
        assert!(!format!("{found:?}").contains(CANARY), "{id}");
    }

    /// These are told, and nothing else.
    #[track_caller]
    fn check_coverage(&self, found: &SandboxAttached, missing: &[&str]) {
        let id = &self.id;
        for part in missing {
            let told = found.coverage.iter().any(|it| it.missing.contains(part));
            assert!(told, "{id}: {part}: {:?}", found.coverage);
        }
        let told = found.coverage.len();
        assert_eq!(told, missing.len(), "{id}: {:?}", found.coverage);
    }

    /// Its trail is whole, is of nobody else, and has every frame that it sent:
    /// so many, or all that its interface had taken when it ended.
    #[track_caller]
    pub(crate) fn check_trail(&self, trail: &Path, frames: Option<u64>, reason: &str) {
        let id = &self.id;
        // Without the canary.
        let records = records(trail);
        assert!(records.iter().all(|record| record["sandbox_id"] == **id));
        let attached = *of_type(&records, "sandbox_attached").last().unwrap();
        let attached = serde_json::from_value(attached["payload"].clone()).unwrap();
        self.check_found(&attached);
        let missing = [self.missing, self.missing_to_watch].concat();
        self.check_coverage(&attached, &missing);
        assert!(of_type(&records, "capture_gap").is_empty(), "{id}");
        let [end] = of_type(&records, "trail_end")[..] else {
            panic!("{id}: no end")
        };
        assert_eq!(end["payload"]["reason"], reason, "{id}");
        let sums = end["payload"]["reconciliation"].as_array();
        let sums = sums.map(Vec::as_slice).unwrap_or_default();
        assert_eq!(sums.len(), usize::from(self.link.is_some()), "{end}");
        for sum in sums {
            assert_eq!(sum["matches"], true, "{id}: {sum}");
            assert_eq!(sum["ring_drops"], 0, "{id}: {sum}");
            let taken = sum["interface_packets_sent"].as_u64().unwrap();
            assert_eq!(sum["flow_packets_sent"], taken, "{id}: {sum}");
            assert_eq!(taken, frames.unwrap_or(taken), "{id}: {sum}");
            assert_ne!(taken, 0, "{id}: {sum}");
        }
        let verified = Command::new(env!("CARGO_BIN_EXE_sandtrace"))
            .arg("verify")
            .arg(trail)
            .output()
            .unwrap();
        println!(
            "$ sandtrace verify {}\n{}",
            trail.file_name().unwrap().display(),
            String::from_utf8_lossy(&verified.stdout)
        );
        assert!(verified.status.success(), "{id}: {verified:?}");
    }
}
