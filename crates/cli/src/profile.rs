//! `sandtrace profile`: from recorded trails to rules for the VMM, and what the
//! profiles that come with Sandtrace were made from.

use crate::args::ProfileLearnArgs;
use crate::exit::{Exit, Failure, OrExit as _};
use crate::show;
use anyhow::Context as _;
use sandtrace_audit_chain::TrailReader;
use sandtrace_event::{Payload, SyscallAbi, SyscallActivity};
use sandtrace_policy::{is_alarm_call, shipped_profiles};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

/// Calls by thread group.
type Groups = BTreeMap<String, BTreeSet<String>>;

/// Prints a manifest whose rules allow what the trails hold. It learns from
/// what the files say and proves nothing: verify them first.
pub(crate) fn learn(args: &ProfileLearnArgs) -> Result<Exit, Failure> {
    let mut groups = Groups::new();
    for trail in &args.trails {
        read(trail, &mut groups)?;
    }
    if groups.is_empty() {
        let message = "no trail holds system calls of a VMM: record one with `watch --syscalls`";
        return Err(Failure::new(Exit::Unavailable, message));
    }
    write!(std::io::stdout().lock(), "{}", manifest(&groups))
        .context("write to standard output")
        .or_exit(Exit::Io)?;
    Ok(Exit::Success)
}

/// Prints each profile's name, version and source, one a line.
pub(crate) fn list() -> Result<Exit, Failure> {
    let mut out = std::io::stdout().lock();
    for profile in shipped_profiles() {
        let (name, version, source) = (profile.name, profile.version, profile.source);
        writeln!(out, "{name:<18} {version}: {source}")
            .context("write to standard output")
            .or_exit(Exit::Io)?;
    }
    Ok(Exit::Success)
}

fn read(trail: &Path, groups: &mut Groups) -> Result<(), Failure> {
    let name = trail.display();
    let file = File::open(trail)
        .with_context(|| format!("open trail {name}"))
        .or_exit(Exit::Malformed)?;
    let mut reader = TrailReader::new(file);
    loop {
        let line = reader
            .next_line()
            .with_context(|| format!("read trail {name}"))
            .or_exit(Exit::Malformed)?;
        let Some(line) = line else { return Ok(()) };
        let event = line
            .event()
            .with_context(|| format!("read trail {name}"))
            .or_exit(Exit::Malformed)?;
        if let Payload::SyscallActivity(activity) = event.payload {
            note(&activity, groups);
        }
    }
}

fn note(activity: &SyscallActivity, groups: &mut Groups) {
    let Some(summary) = &activity.summary else {
        return;
    };
    for call in &summary.calls {
        learn_call(call.abi, &call.name, &activity.group, groups);
    }
}

/// Notes down a call, unless no list that was recorded should allow it.
fn learn_call(abi: SyscallAbi, name: &str, group: &str, groups: &mut Groups) {
    if is_alarm_call(name) {
        show::tell(&format!(
            "left out: {name} ({group} threads), which no VMM does in its work"
        ));
    } else if abi == SyscallAbi::Native {
        let calls = groups.entry(group.to_owned()).or_default();
        calls.insert(name.to_owned());
    } else {
        show::tell(&format!(
            "left out: {name} through another table of numbers ({group} threads)"
        ));
    }
}

fn manifest(groups: &Groups) -> String {
    let mut text = String::from(
        "# Learned from recorded trails: read it before you trust it. Calls of which an\n\
         # intruder is known were left out; others that one made would be allowed. The\n\
         # file that is opened and the address that is connected to are judged still.\n\
         schema_version: \"1.0\"\nrules:\n",
    );
    for (group, calls) in groups {
        let calls: Vec<_> = calls.iter().map(|call| format!("\"{call}\"")).collect();
        // Writing to a String cannot fail.
        let _cannot_fail = write!(
            text,
            "  - id: \"vmm:{group}\"\n    type: syscall\n    threads: [\"{group}\"]\n    \
             allow: [{}]\n",
            calls.join(", ")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandtrace_policy::Policy;

    #[test]
    fn what_is_learned_is_a_policy_that_allows_no_escape() {
        let mut groups = Groups::new();
        for name in ["read", "execve", "ptrace", "9999"] {
            learn_call(SyscallAbi::Native, name, "vcpu", &mut groups);
        }
        learn_call(SyscallAbi::I386, "write", "vcpu", &mut groups);
        let text = manifest(&groups);
        let policy = Policy::parse("learned", text.as_bytes()).unwrap();
        let rules: Vec<_> = policy.rules().map(|rule| rule.to_string()).collect();
        assert_eq!(rules, ["vmm:vcpu (syscall): allow of vcpu:, 9999, read"]);
    }
}
