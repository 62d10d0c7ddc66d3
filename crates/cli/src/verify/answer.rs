//! What `verify` says: integrity, completeness, assurance and policy, each for itself.

use super::rejudge::Rejudged;
use crate::exit::Exit;
use crate::show::{escaped, grouped};
use sandtrace_audit_chain::{Outcome, Report};
use sandtrace_event::VerdictResult;
use sandtrace_output::terminal::ascii_json;
use serde_json::json;
use std::io::{self, Write};

pub(super) struct Answer<'a> {
    pub(super) report: &'a Report,
    pub(super) rejudged: Option<&'a Rejudged>,
    pub(super) exit: Exit,
}

impl Answer<'_> {
    pub(super) fn print_text(&self) -> io::Result<()> {
        let mut out = anstream::stdout().lock();
        writeln!(out, "{}", self.first_line())?;
        writeln!(out, "  integrity     {}", self.integrity())?;
        writeln!(out, "  completeness  {}", self.completeness())?;
        writeln!(out, "  assurance     {ASSURANCE}")?;
        writeln!(out, "  policy        {}", self.policy())?;
        self.print_violations(&mut out)
    }

    fn first_line(&self) -> String {
        let records = format!("{} records", grouped(self.report.records));
        let status = match &self.report.outcome {
            Outcome::Intact { sealed: true } => format!("VALID L0 chain intact · {records}"),
            Outcome::Intact { sealed: false } => format!("VALID L0 still growing · {records}"),
            Outcome::Tampered(_) => format!("TAMPERED after {records}"),
            Outcome::Malformed(_) => format!("MALFORMED after {records}"),
            Outcome::Incomplete(_) => format!("INCOMPLETE · {records}"),
            Outcome::Empty => return "EMPTY: an empty trail proves nothing".to_owned(),
        };
        let policy = match self.rejudged {
            Some(rejudged) => format!("policy: {} violations", grouped(rejudged.violations)),
            None => "policy: not judged again".to_owned(),
        };
        format!("{status} · unsigned · {} · {policy}", self.lost())
    }

    fn lost(&self) -> String {
        let lost: Vec<_> = self
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

    fn integrity(&self) -> String {
        match &self.report.outcome {
            Outcome::Tampered(fault) | Outcome::Malformed(fault) => {
                let last = self.report.last.map_or_else(
                    || "no record before it is good".to_owned(),
                    |mark| format!("last good record is seq {}", mark.seq),
                );
                let seq = fault
                    .seq
                    .map_or_else(String::new, |seq| format!("seq {seq}, "));
                format!("{seq}{}; {last}", escaped(&fault.to_string()))
            }
            Outcome::Empty => "nothing to check".to_owned(),
            Outcome::Intact { .. } | Outcome::Incomplete(_) => {
                let head = self.report.last.map(|mark| mark.record_hash.to_string());
                format!(
                    "every record is as written; head {}",
                    head.unwrap_or_default()
                )
            }
        }
    }

    fn completeness(&self) -> String {
        match &self.report.outcome {
            Outcome::Intact { sealed: true } => {
                let counters = self.report.end.as_ref().map_or("", |end| {
                    match end.reconciliation.as_slice() {
                        [] => "; no interface was counted",
                        all if all.iter().all(|one| one.matches) => {
                            "; flows match the interface's counters"
                        }
                        _ => "; flows DO NOT match the interface's counters",
                    }
                });
                format!("from trail_start to trail_end, {}{counters}", self.lost())
            }
            Outcome::Intact { sealed: false } => "not ended yet".to_owned(),
            Outcome::Incomplete(why) => why.to_string(),
            Outcome::Tampered(_) | Outcome::Malformed(_) | Outcome::Empty => "unknown".to_owned(),
        }
    }

    fn policy(&self) -> String {
        let count = |result| grouped(self.report.counts.of_verdict(result));
        let recorded = format!(
            "recorded verdicts: {} allow, {} anomaly, {} deny",
            count(VerdictResult::Allow),
            count(VerdictResult::Anomaly),
            count(VerdictResult::Deny)
        );
        match self.rejudged {
            Some(again) => format!(
                "{recorded}; judged again by {}: {} violations, {} verdicts differ",
                escaped(&again.policy_path),
                grouped(again.violations),
                grouped(again.differing)
            ),
            None => format!("{recorded}; --against FILE judges them again"),
        }
    }

    fn print_violations(&self, out: &mut impl Write) -> io::Result<()> {
        let Some(rejudged) = self.rejudged else {
            return Ok(());
        };
        for violation in &rejudged.listed {
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
        let more = rejudged
            .violations
            .saturating_sub(rejudged.listed.len() as u64);
        if more > 0 {
            writeln!(out, "  … and {} more", grouped(more))?;
        }
        Ok(())
    }

    pub(super) fn print_json(&self) -> io::Result<()> {
        let report = self.report;
        let fault = match &report.outcome {
            Outcome::Tampered(fault) | Outcome::Malformed(fault) => Some(json!({
                "code": fault.what.code(),
                "message": fault.to_string(),
                "seq": fault.seq,
                "line": fault.line,
                "byte_offset": fault.byte_offset,
            })),
            _ => None,
        };
        let answer = json!({
            "exit_code": self.exit.code(),
            "status": status(&report.outcome),
            "records": report.records,
            "bytes": report.bytes,
            "integrity": {
                "fault": fault,
                "head": report.last.map(|mark| mark.record_hash),
                "last_good_seq": report.last.map(|mark| mark.seq),
            },
            "completeness": {
                "sealed": matches!(report.outcome, Outcome::Intact { sealed: true }),
                "lost": report.lost.iter().map(|(unit, n)| (unit_name(*unit), *n))
                    .collect::<std::collections::BTreeMap<_, _>>(),
                "reconciliation": report.end.as_ref().map(|end| &end.reconciliation),
                "partial_bytes": report.partial_bytes,
            },
            "assurance": { "level": "L0", "statement": ASSURANCE },
            "policy": {
                "recorded": report.counts.verdicts(),
                "judged_again": self.rejudged.map(rejudged_json),
            },
        });
        let answer = ascii_json(&answer.to_string());
        writeln!(io::stdout().lock(), "{answer}")
    }
}

/// What an unsigned chain can and cannot prove.
const ASSURANCE: &str = "L0: self-consistent, no key. Whoever can write the file could have \
                         written all of it anew; keep the head elsewhere to rule that out";

fn rejudged_json(rejudged: &Rejudged) -> serde_json::Value {
    let violation = |v: &super::rejudge::Violation| {
        json!({
            "seq": v.seq,
            "subject": v.what,
            "result": v.verdict.result,
            "policy_rule": v.verdict.policy_rule,
            "reason": v.verdict.reason,
        })
    };
    json!({
        "policy": rejudged.policy_path,
        "policy_digest": rejudged.policy_digest,
        "violations": rejudged.violations,
        "verdicts_differing": rejudged.differing,
        "listed": rejudged.listed.iter().map(violation).collect::<Vec<_>>(),
    })
}

fn status(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Intact { sealed: true } => "valid",
        Outcome::Intact { sealed: false } => "growing",
        Outcome::Tampered(_) => "tampered",
        Outcome::Malformed(_) => "malformed",
        Outcome::Incomplete(_) => "incomplete",
        Outcome::Empty => "empty",
    }
}

fn unit_name(unit: sandtrace_event::GapUnit) -> &'static str {
    use sandtrace_event::GapUnit;
    match unit {
        GapUnit::Calls => "calls",
        GapUnit::Threads => "threads",
        GapUnit::Packets => "packets",
        GapUnit::Bytes => "bytes",
        GapUnit::Paths => "paths",
        GapUnit::Scans => "scans",
        GapUnit::Interfaces => "interfaces",
        GapUnit::Files => "files",
    }
}
