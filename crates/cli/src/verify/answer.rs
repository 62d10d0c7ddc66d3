//! What `verify` says in words: integrity, completeness, assurance and
//! policy, each for itself.

use super::Checked;
use super::judge::Area;
use crate::exit::Exit;
use crate::show::{escaped, grouped};
use sandtrace_audit_chain::Outcome;
use sandtrace_audit_chain::verify::Signatures;
use sandtrace_event::{GapUnit, VerdictResult};
use std::io::{self, Write};

/// Violations that are listed in words; JSON has all of them.
const LISTED: usize = 100;
/// Keys of hosts that are shown.
const HOSTS: usize = 3;

/// The whole answer for one trail.
pub(crate) fn print(checked: &Checked, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}", first_line(checked))?;
    for (name, area, statement) in [
        ("integrity", Area::Integrity, integrity(checked)),
        ("completeness", Area::Completeness, completeness(checked)),
        ("assurance", Area::Assurance, assurance(checked)),
        ("policy", Area::Policy, policy(checked)),
    ] {
        let mut lines = problems(checked, area);
        lines.extend(statement);
        for (line, index) in lines.iter().zip(0..) {
            let name = if index == 0 { name } else { "" };
            writeln!(out, "  {name:<13} {line}")?;
        }
    }
    violations(checked, out)
}

/// The answer in a line.
pub(crate) fn first_line(checked: &Checked) -> String {
    let report = &checked.report;
    let records = format!("{} records", grouped(report.records));
    let level = checked.judgement.level;
    let what = match (level, &report.outcome) {
        (0, _) => "chain intact",
        (_, Outcome::Intact { sealed: false }) => "signed, still growing",
        (1, _) => "signed",
        (2, _) => "sealed",
        _ => "witnessed",
    };
    let status = match checked.judgement.exit {
        Exit::Success | Exit::Violations => format!("VALID L{level} {what} · {records}"),
        Exit::Tampered => format!("TAMPERED after {records}"),
        Exit::Malformed => format!("MALFORMED after {records}"),
        Exit::Untrusted => format!("UNTRUSTED · {records}"),
        _ if report.outcome == Outcome::Empty => {
            return "EMPTY: an empty trail proves nothing".to_owned();
        }
        _ => format!("INCOMPLETE · {records}"),
    };
    let policy = match &checked.rejudged {
        Some(rejudged) => format!("policy: {} violations", grouped(rejudged.violations)),
        None => "policy: not judged again".to_owned(),
    };
    format!("{status} · {} · {} · {policy}", key(checked), lost(checked))
}

fn key(checked: &Checked) -> String {
    let Some(signatures) = &checked.report.signatures else {
        return "unsigned".to_owned();
    };
    let name = signatures.hosts.first().map_or("?", |host| host.key.name());
    let pinned = match (checked.has_pins, signatures.all_pinned) {
        (true, true) => "pinned",
        (true, false) => "NOT the pinned key",
        (false, _) => "self-consistent, key not pinned",
    };
    format!("key {} ({pinned})", escaped(name))
}

fn lost(checked: &Checked) -> String {
    let lost: Vec<_> = checked
        .report
        .lost
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(unit, count)| format!("{} {} lost", grouped(*count), unit_name(*unit)))
        .collect();
    if lost.is_empty() {
        "0 lost".to_owned()
    } else {
        lost.join(", ")
    }
}

fn problems(checked: &Checked, area: Area) -> Vec<String> {
    let problems = checked.judgement.problems.iter();
    let problems = problems.filter(|problem| problem.area == area);
    problems.map(|problem| escaped(&problem.message)).collect()
}

fn integrity(checked: &Checked) -> Vec<String> {
    let report = &checked.report;
    match &report.outcome {
        Outcome::Tampered(_) | Outcome::Malformed(_) => {
            let mut lines = Vec::new();
            if let Some(place) = &checked.fault_file {
                lines.push(format!("in {}", escaped(place)));
            }
            lines.push(match report.last {
                Some(mark) => format!("last good record is seq {}", mark.seq),
                None => "no record before it is good".to_owned(),
            });
            lines.push(trusted(report.signatures.as_ref()));
            lines
        }
        Outcome::Empty => vec!["nothing to check".to_owned()],
        Outcome::Intact { .. } | Outcome::Incomplete(_) => {
            let head = report.last.map(|mark| mark.record_hash.to_string());
            let head = head.unwrap_or_default();
            vec![format!("every record is as written; head {head}")]
        }
    }
}

fn trusted(signatures: Option<&Signatures>) -> String {
    match signatures.and_then(|signatures| signatures.last_checkpoint) {
        Some(last) => format!(
            "last trusted checkpoint is seq {}: the first {} records, {} bytes",
            last.seq,
            grouped(last.size),
            grouped(last.byte_offset)
        ),
        None => "no checkpoint before it can be trusted".to_owned(),
    }
}

fn completeness(checked: &Checked) -> Vec<String> {
    let report = &checked.report;
    match &report.outcome {
        Outcome::Intact { sealed: true } => {
            let counters =
                report
                    .end
                    .as_ref()
                    .map_or("", |end| match end.reconciliation.as_slice() {
                        [] => "; no interface was counted",
                        all if all.iter().all(|one| one.matches) => {
                            "; flows match the interface's counters"
                        }
                        _ => "; flows DO NOT match the interface's counters",
                    });
            let mut lines = vec![format!(
                "from trail_start to trail_end, {}{counters}",
                lost(checked)
            )];
            lines.extend(parts(checked));
            lines
        }
        Outcome::Intact { sealed: false } | Outcome::Incomplete(_) => {
            let mut lines = Vec::new();
            if matches!(report.outcome, Outcome::Intact { .. }) {
                lines.push("not ended yet".to_owned());
            }
            lines.extend(unattested(report.signatures.as_ref()));
            lines.extend(parts(checked));
            lines
        }
        Outcome::Tampered(_) | Outcome::Malformed(_) => vec!["unknown".to_owned()],
        Outcome::Empty => Vec::new(),
    }
}

fn unattested(signatures: Option<&Signatures>) -> Option<String> {
    let signatures = signatures?;
    Some(match signatures.last_checkpoint {
        Some(last) => format!(
            "{} records after the last checkpoint (seq {}) are not signed yet",
            grouped(signatures.unattested),
            last.seq
        ),
        None => "no record is signed yet".to_owned(),
    })
}

/// Sessions and segments, where there are several.
fn parts(checked: &Checked) -> Option<String> {
    let (sessions, segments) = (checked.report.sessions, checked.report.segments);
    match (sessions, segments) {
        (..=1, ..=1) => None,
        (..=1, _) => Some(format!("in {segments} segments")),
        (_, ..=1) => Some(format!("in {sessions} sessions")),
        _ => Some(format!("in {sessions} sessions and {segments} segments")),
    }
}

fn assurance(checked: &Checked) -> Vec<String> {
    let level = checked.judgement.level;
    let Some(signatures) = &checked.report.signatures else {
        return vec![format!(
            "L{level}: self-consistent, no key. Whoever can write the file could have written all \
             of it anew; keep the head elsewhere to rule that out"
        )];
    };
    let keys = match signatures.keys {
        1 => "1 key".to_owned(),
        keys => format!("{} keys", grouped(keys)),
    };
    let mut lines = vec![format!(
        "L{level}: {} checkpoints by {keys} of {}",
        grouped(signatures.checkpoints),
        escaped(&signatures.origin)
    )];
    for host in signatures.hosts.iter().take(HOSTS) {
        let pinned = if host.pinned { "pinned" } else { "not pinned" };
        lines.push(format!(
            "certified by {} ({pinned})",
            escaped(&host.key.to_string())
        ));
    }
    let more = signatures.hosts.len().saturating_sub(HOSTS);
    if more > 0 {
        lines.push(format!("and by {more} other keys"));
    }
    if !checked.has_pins {
        let advice = "the key is the trail's own word: --key VKEY checks it against the host's";
        lines.push(advice.to_owned());
    }
    lines.extend(witnesses(checked));
    lines
}

fn witnesses(checked: &Checked) -> Option<String> {
    let quorum = checked.judgement.quorum?;
    Some(match (quorum, checked.judgement.witnessed) {
        (true, _) => "the quorum of witnesses stands behind the last checkpoint".to_owned(),
        (false, Some(size)) => format!(
            "the quorum of witnesses stands behind the first {} records",
            grouped(size)
        ),
        (false, None) => "no quorum of witnesses".to_owned(),
    })
}

fn policy(checked: &Checked) -> Vec<String> {
    let count = |result| grouped(checked.report.counts.of_verdict(result));
    let recorded = format!(
        "recorded verdicts: {} allow, {} anomaly, {} deny",
        count(VerdictResult::Allow),
        count(VerdictResult::Anomaly),
        count(VerdictResult::Deny)
    );
    vec![match &checked.rejudged {
        Some(again) => format!(
            "{recorded}; judged again by {}: {} violations, {} verdicts differ",
            escaped(&again.policy_path),
            grouped(again.violations),
            grouped(again.differing)
        ),
        None => format!("{recorded}; --against FILE judges them again"),
    }]
}

fn violations(checked: &Checked, out: &mut impl Write) -> io::Result<()> {
    let Some(rejudged) = &checked.rejudged else {
        return Ok(());
    };
    for violation in rejudged.listed.iter().take(LISTED) {
        let verdict = &violation.verdict;
        let rule = verdict.policy_rule.as_deref().unwrap_or("-");
        writeln!(
            out,
            "  seq {:<6} {:<8} {}  [{}] {}",
            violation.seq,
            verdict.result,
            escaped(&violation.what),
            escaped(rule),
            escaped(&verdict.reason)
        )?;
    }
    let shown = rejudged.listed.len().min(LISTED);
    let more = rejudged
        .violations
        .saturating_sub(u64::try_from(shown).unwrap_or(u64::MAX));
    if more > 0 {
        writeln!(
            out,
            "  … and {} more; --json has all of them",
            grouped(more)
        )?;
    }
    Ok(())
}

pub(crate) fn unit_name(unit: GapUnit) -> &'static str {
    match unit {
        GapUnit::Calls => "calls",
        GapUnit::Threads => "threads",
        GapUnit::Packets => "packets",
        GapUnit::Bytes => "bytes",
        GapUnit::Paths => "paths",
        GapUnit::Scans => "scans",
        GapUnit::Interfaces => "interfaces",
        GapUnit::Files => "files",
        GapUnit::Records => "records",
    }
}
