//! Judging what the VMM asked of the host's kernel.

use super::reason::Shown;
use super::{Engine, allow, anomaly, deny, fallback};
use crate::manifest::{Acceptable, Body, Fallback, Rule, Syscalls};
use crate::profile::{CHILD, Profile};
use sandtrace_event::{
    CallSummary, RareCall, SyscallAbi, SyscallActivity, SyscallFinding, SyscallFindingKind,
    Verdict, VerdictResult,
};

/// What decides where no rule of the manifest does.
const BUILTIN: &str = "builtin:vmm-profile";
const CONFINEMENT: &str = "builtin:vmm-confinement";

/// Calls that are denied unless a rule allows them by name: what somebody
/// does who has broken out of a VM.
const ALARMS: &[&str] = &[
    "acct",
    "bpf",
    "chroot",
    "delete_module",
    "execve",
    "execveat",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "init_module",
    "ioperm",
    "iopl",
    "kexec_file_load",
    "kexec_load",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pidfd_getfd",
    "pivot_root",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "reboot",
    "setns",
    "swapon",
    "umount2",
    "unshare",
];

/// Whether a call is denied unless a rule allows it by name: what no list that
/// was recorded should allow.
#[must_use]
pub fn is_alarm_call(name: &str) -> bool {
    ALARMS.contains(&name)
}

/// Calls that one reason names.
const NAMED: usize = 6;

/// What is thought of one call by its name.
enum Opinion<'a> {
    /// A rule names it.
    Named(&'a str),
    /// The profile of a rule, or the VMM's own, has it.
    Profile(&'a str),
    Denied(&'a str),
    /// Denied unless named.
    Alarm,
    Outside(&'a str),
    /// There is nothing to judge by.
    Unknown,
}

impl Engine {
    pub(super) fn syscalls(&self, activity: &SyscallActivity) -> Verdict {
        match (&activity.call, &activity.finding, &activity.summary) {
            (Some(call), None, None) => self.rare(activity, call),
            (None, Some(finding), None) => self.finding(activity, finding),
            (None, None, Some(summary)) => self.summary(activity, summary),
            _ => deny(
                None,
                "the record says nothing that can be judged".to_owned(),
            ),
        }
    }

    fn rules<'a>(&'a self, group: &'a str) -> impl Iterator<Item = (&'a Rule, &'a Syscalls)> {
        let rules = self.policy.manifest.rules.iter();
        let rules = rules.filter_map(|rule| match &rule.body {
            Body::Syscalls(syscalls) => Some((rule, syscalls)),
            _ => None,
        });
        rules.filter(move |(_, own)| own.concerns(group))
    }

    fn opinion<'a>(
        &'a self,
        activity: &'a SyscallActivity,
        abi: SyscallAbi,
        call: &str,
    ) -> Opinion<'a> {
        let group = activity.group.as_str();
        let mut first = None;
        let mut covered = None;
        for (rule, syscalls) in self.rules(group) {
            if syscalls.deny.iter().any(|name| name == call) {
                return Opinion::Denied(&rule.id);
            }
            // Only names can say that another table is meant too; they do not.
            if abi == SyscallAbi::Native {
                if syscalls.allow.iter().any(|name| name == call) {
                    return Opinion::Named(&rule.id);
                }
                let profile = syscalls.profile.filter(|own| own.covers(group, call));
                covered = covered.or(profile.map(|_| rule.id.as_str()));
            }
            let lists = !syscalls.allow.is_empty() || syscalls.profile.is_some();
            first = first.or(lists.then_some(rule.id.as_str()));
        }
        let own = activity.vmm.as_deref().and_then(Profile::of_vmm);
        if ALARMS.contains(&call) {
            return Opinion::Alarm;
        }
        match (covered, first, own) {
            (Some(rule), ..) => Opinion::Profile(rule),
            (None, Some(rule), _) => Opinion::Outside(rule),
            (None, None, Some(profile)) => {
                if abi == SyscallAbi::Native && profile.covers(group, call) {
                    Opinion::Profile(BUILTIN)
                } else {
                    Opinion::Outside(BUILTIN)
                }
            }
            (None, None, None) if group == CHILD => Opinion::Outside(BUILTIN),
            (None, None, None) => Opinion::Unknown,
        }
    }

    fn summary(&self, activity: &SyscallActivity, summary: &CallSummary) -> Verdict {
        let mut worst: Option<(VerdictResult, Option<&str>)> = None;
        let mut names: Vec<String> = Vec::new();
        let mut allowed = None;
        let calls = summary.calls.iter();
        let calls = calls.map(|call| (call.abi, call.name.as_str()));
        // A guest that ran throughout is in a call that has not returned: KVM_RUN.
        let inside = summary.calls.is_empty() && summary.kvm_exits.0 > 0;
        let inside = inside.then_some((SyscallAbi::Native, "ioctl"));
        for (abi, name) in calls.chain(inside) {
            let (result, rule) = match self.opinion(activity, abi, name) {
                Opinion::Named(rule) | Opinion::Profile(rule) => {
                    allowed = allowed.or(Some(rule));
                    continue;
                }
                Opinion::Denied(rule) => (VerdictResult::Deny, Some(rule)),
                Opinion::Alarm => (VerdictResult::Deny, None),
                Opinion::Outside(rule) => (VerdictResult::Anomaly, Some(rule)),
                Opinion::Unknown => return self.unknown(activity),
            };
            if worst.is_none_or(|(former, _)| former < result) {
                worst = Some((result, rule));
                names.clear();
            }
            if worst.is_some_and(|(worst, _)| worst == result) {
                names.push(named(abi, name));
            }
        }
        let group = Shown(&activity.group);
        match worst {
            Some((VerdictResult::Deny, rule)) => deny(
                rule,
                format!(
                    "the VMM's {group} threads made calls that are not allowed: {}",
                    listed(&names)
                ),
            ),
            Some((_, rule)) => {
                let reason = format!(
                    "calls outside the profile of {group} threads: {}",
                    listed(&names)
                );
                anomaly(rule.unwrap_or(BUILTIN), reason)
            }
            None => match allowed {
                Some(rule) => allow(
                    rule,
                    format!("calls of {group} threads are in their profile"),
                ),
                None => deny(None, "the record counts no call".to_owned()),
            },
        }
    }

    fn rare(&self, activity: &SyscallActivity, call: &RareCall) -> Verdict {
        let what = described(activity, call);
        match self.opinion(activity, call.abi, &call.name) {
            // A name says nothing of the file or the address.
            Opinion::Named(rule) => match beyond(call) {
                Some(why) => anomaly(rule, format!("{what}: {why}")),
                None => allow(rule, format!("the rule allows {what}")),
            },
            Opinion::Denied(rule) => deny(Some(rule), format!("the rule denies {what}")),
            Opinion::Alarm => deny(None, format!("{what}: no VMM does that in its work")),
            Opinion::Outside(rule) => anomaly(rule, format!("{what} is outside the profile")),
            Opinion::Unknown => self.unknown(activity),
            Opinion::Profile(rule) => match beyond(call) {
                Some(why) => anomaly(rule, format!("{what}: {why}")),
                None => allow(rule, format!("{what} is in the profile")),
            },
        }
    }

    fn finding(&self, activity: &SyscallActivity, finding: &SyscallFinding) -> Verdict {
        let detail = Shown(&finding.detail).to_string();
        let word = match finding.kind {
            SyscallFindingKind::NoSeccomp => Some(Acceptable::NoSeccomp),
            SyscallFindingKind::NewPrivsPossible => Some(Acceptable::NewPrivsPossible),
            SyscallFindingKind::SeccompViolation | SyscallFindingKind::SeccompExit => None,
        };
        let mut rules = self.rules(&activity.group);
        let accepting = rules.find(|(_, own)| own.accept.iter().any(|own| Some(*own) == word));
        match accepting {
            Some((rule, _)) => allow(&rule.id, format!("accepted: {detail}")),
            None => anomaly(CONFINEMENT, detail),
        }
    }

    fn unknown(&self, activity: &SyscallActivity) -> Verdict {
        let value = self.policy.manifest.defaults.syscall;
        let what = format!("system calls of VMM process {}", activity.process.pid);
        fallback("syscall", value.unwrap_or(Fallback::Anomaly), &what)
    }
}

/// What a list of names alone does not cover.
fn beyond(call: &RareCall) -> Option<&'static str> {
    match call.name.as_str() {
        "open" | "openat" | "openat2" | "creat" => Some("the file is none of the sandbox's"),
        "connect" | "bind" => {
            let address = call.address.as_deref().unwrap_or("?");
            let local = address.starts_with("unix:") || matches!(address, "none" | "netlink");
            (!local).then_some("the address leads out of the host's own sockets")
        }
        _ => None,
    }
}

fn described(activity: &SyscallActivity, call: &RareCall) -> String {
    let subject = [&call.path, &call.address, &call.detail];
    let subject = subject.into_iter().flatten().next();
    let subject = subject.map(|subject| format!(" {}", Shown(subject)));
    format!(
        "{}{} by process {} ({})",
        named(call.abi, &call.name),
        subject.unwrap_or_default(),
        activity.process.pid,
        Shown(&activity.process.name)
    )
}

fn named(abi: SyscallAbi, name: &str) -> String {
    let name = Shown(name);
    match abi {
        SyscallAbi::Native => name.to_string(),
        SyscallAbi::I386 => format!("{name} (32-bit)"),
        SyscallAbi::X32 => format!("{name} (x32)"),
    }
}

fn listed(names: &[String]) -> String {
    let shown: Vec<_> = names.iter().take(NAMED).map(String::as_str).collect();
    match names.len().saturating_sub(NAMED) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
