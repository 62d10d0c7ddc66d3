//! System calls that a VMM's threads make in their work, as data.
//!
//! A profile is a text: comments, `@version` and `@source` of what it was made from,
//! and lines of a thread group, `group: name name …`. All lines of a group count
//! together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

/// A profile that comes with Sandtrace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    Firecracker,
    Qemu,
    CloudHypervisor,
}

crate::manifest::words!(Profile {
    "firecracker" => Self::Firecracker,
    "qemu" => Self::Qemu,
    "cloud-hypervisor" => Self::CloudHypervisor,
});

type Groups = BTreeMap<&'static str, BTreeSet<&'static str>>;

/// A profile that comes with Sandtrace, and what it was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShippedProfile {
    /// The word for it in a rule's `profile`.
    pub name: &'static str,
    /// The version of the VMM.
    pub version: &'static str,
    /// Where what it says was taken from.
    pub source: &'static str,
}

/// All profiles that come with Sandtrace.
pub fn shipped_profiles() -> impl Iterator<Item = ShippedProfile> {
    let all = <Profile as crate::manifest::Word>::ALL.iter();
    all.map(|(name, profile)| ShippedProfile {
        name,
        version: profile.stated("@version "),
        source: profile.stated("@source "),
    })
}

impl Profile {
    /// By the word that records use for a VMM.
    pub(crate) fn of_vmm(vmm: &str) -> Option<Self> {
        let all = <Self as crate::manifest::Word>::ALL;
        all.iter()
            .find(|(word, _)| *word == vmm)
            .map(|(_, profile)| *profile)
    }

    /// Whether threads of a group make this call in their work. A process
    /// that the VMM started is in no profile.
    pub(crate) fn covers(self, group: &str, call: &str) -> bool {
        let calls = self.groups().get(group);
        calls.is_some_and(|calls| calls.contains(call))
    }

    fn groups(self) -> &'static Groups {
        static FIRECRACKER: OnceLock<Groups> = OnceLock::new();
        static QEMU: OnceLock<Groups> = OnceLock::new();
        static CLOUD_HYPERVISOR: OnceLock<Groups> = OnceLock::new();
        let cell = match self {
            Self::Firecracker => &FIRECRACKER,
            Self::Qemu => &QEMU,
            Self::CloudHypervisor => &CLOUD_HYPERVISOR,
        };
        cell.get_or_init(|| parse(self.text()))
    }

    fn text(self) -> &'static str {
        match self {
            Self::Firecracker => include_str!("../profiles/firecracker.txt"),
            Self::Qemu => include_str!("../profiles/qemu.txt"),
            Self::CloudHypervisor => include_str!("../profiles/cloud-hypervisor.txt"),
        }
    }

    /// What a profile says of itself.
    fn stated(self, what: &str) -> &'static str {
        let mut lines = self.text().lines();
        lines
            .find_map(|line| line.strip_prefix(what))
            .unwrap_or_default()
    }
}

/// Group of every process that the VMM started.
pub(crate) const CHILD: &str = "child";

fn parse(text: &'static str) -> Groups {
    let lines = text.lines().filter(|line| !line.starts_with(['#', '@']));
    let mut groups = Groups::new();
    for (group, calls) in lines.filter_map(|line| line.split_once(": ")) {
        let own = groups.entry(group).or_default();
        own.extend(calls.split_whitespace());
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(profile: Profile, group: &str, call: &str, expected: bool) {
        assert_eq!(profile.covers(group, call), expected, "{group} {call}");
    }

    #[test]
    fn each_profile_says_what_it_was_made_from() {
        let shipped: Vec<_> = shipped_profiles().collect();
        let names: Vec<_> = shipped.iter().map(|profile| profile.name).collect();
        assert_eq!(names, ["firecracker", "qemu", "cloud-hypervisor"]);
        for profile in shipped {
            let has_number = profile.version.chars().any(|c| c.is_ascii_digit());
            assert!(has_number, "{profile:?}");
            assert!(profile.source.contains("https://"), "{profile:?}");
        }
        // None of it is taken for a thread group.
        for (_, profile) in <Profile as crate::manifest::Word>::ALL {
            let groups = profile.groups().keys();
            for group in groups {
                let known = ["main", "api", "vcpu", "vmm", "worker"];
                assert!(known.contains(group), "{group}");
            }
        }
    }

    #[test]
    fn profiles_cover_work_and_no_escape() {
        check(Profile::Firecracker, "main", "epoll_pwait", true);
        check(Profile::Firecracker, "vcpu", "ioctl", true);
        check(Profile::Firecracker, "vcpu", "socket", false);
        check(Profile::Firecracker, "worker", "read", false);
        check(Profile::Qemu, "vcpu", "ioctl", true);
        check(Profile::Qemu, "vcpu", "accept4", false);
        check(Profile::Qemu, "worker", "fdatasync", true);
        check(Profile::Qemu, "child", "read", false);
        check(Profile::CloudHypervisor, "vmm", "read", true);
        for profile in [
            Profile::Firecracker,
            Profile::Qemu,
            Profile::CloudHypervisor,
        ] {
            assert!(!profile.groups().is_empty());
            for group in ["main", "api", "vcpu", "worker", "child"] {
                for call in ["execve", "ptrace", "mount", "setns", "bpf", "unshare"] {
                    check(profile, group, call, false);
                }
            }
        }
    }
}
