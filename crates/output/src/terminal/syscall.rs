//! Lines of what the VMM asked of the host's kernel.

use super::columns::Columns;
use sandtrace_event::{CallSummary, RareCall, SyscallActivity};

/// Calls of a summary that are named.
const NAMED: usize = 4;

pub(super) fn activity(activity: &SyscallActivity) -> Columns {
    let who = format!(
        "vmm {} {} {}",
        activity.process.pid, activity.process.name, activity.group
    );
    match (&activity.call, &activity.finding, &activity.summary) {
        (Some(call), ..) => rare(call, &who),
        (None, Some(finding), _) => Columns::new("SYS", "finding")
            .peer("", finding.kind.as_str(), "")
            .remark(&finding.detail)
            .remark(&who),
        (None, None, Some(summary)) => Columns::new("SYS", "calls")
            .peer("", &who, "")
            .remark(&busiest(summary))
            .remark(&guest(summary)),
        (None, None, None) => Columns::new("SYS", "").peer("", &who, ""),
    }
}

fn rare(call: &RareCall, who: &str) -> Columns {
    let subject = [&call.path, &call.address, &call.detail];
    let subject = subject.into_iter().flatten().next();
    let repeats = match call.repeats.0 {
        0 | 1 => String::new(),
        times => format!("{times} times"),
    };
    Columns::new("SYS", "call")
        .peer(
            "",
            &format!(
                "{} {}",
                call.name,
                subject.map(String::as_str).unwrap_or_default()
            ),
            "",
        )
        .remark(&call.argv.join(" "))
        .remark(&repeats)
        .remark(who)
}

/// What the guest did meanwhile, where that is known.
fn guest(summary: &CallSummary) -> String {
    match summary.kvm_exits.0 {
        0 => String::new(),
        exits => format!("{exits} KVM exits"),
    }
}

/// `1,204 calls: ioctl 900, read 300`.
fn busiest(summary: &CallSummary) -> String {
    let mut calls: Vec<_> = summary.calls.iter().collect();
    calls.sort_by_key(|call| std::cmp::Reverse(call.count));
    let total = calls
        .iter()
        .fold(0_u64, |sum, call| sum.saturating_add(call.count.0));
    let named: Vec<_> = calls
        .iter()
        .take(NAMED)
        .map(|call| format!("{} {}", call.name, call.count))
        .collect();
    format!("{total} calls: {}", named.join(", "))
}
