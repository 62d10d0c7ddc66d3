//! `sandtrace profile learn`: from recorded trails to rules for the VMM.

use crate::args::ProfileLearnArgs;
use crate::exit::{Exit, Failure, OrExit as _};
use crate::show;
use anyhow::Context as _;
use sandtrace_audit_chain::TrailReader;
use sandtrace_event::{Payload, SyscallAbi, SyscallActivity};
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
        if call.abi == SyscallAbi::Native {
            let calls = groups.entry(activity.group.clone()).or_default();
            calls.insert(call.name.clone());
        } else {
            show::tell(&format!(
                "left out: {} through another table of numbers ({} threads)",
                call.name, activity.group
            ));
        }
    }
}

fn manifest(groups: &Groups) -> String {
    let mut text = String::from(
        "# Learned from recorded trails: read it before you trust it. What an intruder\n\
         # did while they were recorded would be allowed from now on.\n\
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
    fn what_is_learned_is_a_policy() {
        let calls = ["read", "execve", "9999"].map(ToOwned::to_owned);
        let groups = Groups::from([("vcpu".to_owned(), BTreeSet::from(calls))]);
        let text = manifest(&groups);
        let policy = Policy::parse("learned", text.as_bytes()).unwrap();
        let rules: Vec<_> = policy.rules().map(|rule| rule.to_string()).collect();
        assert_eq!(
            rules,
            ["vmm:vcpu (syscall): allow of vcpu:, 9999, execve, read"]
        );
    }
}
