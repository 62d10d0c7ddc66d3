//! What `verify` says in JSON (docs/schema/verify.schema.json).

use super::Checked;
use super::answer::unit_name;
use super::judge::Area;
use super::rejudge::Violation;
use crate::exit::Exit;
use sandtrace_audit_chain::Outcome;
use sandtrace_audit_chain::verify::Signatures;
use sandtrace_output::terminal::ascii_json;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, Write};

/// Prints one object and a line feed; the violations come last, one by one as
/// `each` gives them, because there may be more of them than memory holds.
pub(crate) fn print<W: Write>(
    checked: &Checked,
    out: &mut W,
    each: impl FnOnce(&mut dyn FnMut(&Violation) -> io::Result<()>) -> io::Result<()>,
) -> io::Result<()> {
    let object = ascii_json(&object(checked).to_string());
    let open = object.strip_suffix('}').unwrap_or(&object);
    write!(out, "{open},\"violations\":[")?;
    let mut separator = "";
    each(&mut |violation| {
        let violation = ascii_json(&violation_json(violation).to_string());
        write!(out, "{separator}{violation}")?;
        separator = ",";
        Ok(())
    })?;
    writeln!(out, "]}}")
}

fn object(checked: &Checked) -> Value {
    let report = &checked.report;
    let signatures = report.signatures.as_ref();
    json!({
        "trail": checked.name,
        "exit_code": checked.judgement.exit.code(),
        "status": status(checked),
        "level": format!("L{}", checked.judgement.level),
        "records": report.records,
        "bytes": report.bytes,
        "integrity": {
            "fault": fault(checked),
            "head": report.last.map(|mark| mark.record_hash),
            "last_good_seq": report.last.map(|mark| mark.seq),
            "last_trusted_checkpoint": checkpoint(signatures),
        },
        "completeness": {
            "sealed": matches!(report.outcome, Outcome::Intact { sealed: true }),
            "live": checked.is_live,
            "lost": report.lost.iter().map(|(unit, n)| (unit_name(*unit), *n))
                .collect::<BTreeMap<_, _>>(),
            "reconciliation": report.end.as_ref().map(|end| &end.reconciliation),
            "partial_bytes": report.partial_bytes,
            "sessions": report.sessions,
            "segments": report.segments,
            "unattested_records": signatures.map(|signatures| signatures.unattested),
        },
        "assurance": {
            "required_level": format!("L{}", checked.required_level),
            "signed": signatures.is_some(),
            "pinned": checked.has_pins.then(|| signatures.is_some_and(|all| all.all_pinned)),
            "origin": signatures.map(|signatures| &signatures.origin),
            "trail_key": signatures.map(|signatures| signatures.key.to_string()),
            "keys": signatures.map_or(0, |signatures| signatures.keys),
            "hosts": signatures.map_or_else(Vec::new, hosts),
            "checkpoints": signatures.map_or(0, |signatures| signatures.checkpoints),
            "quorum": checked.judgement.quorum,
            "witnessed_records": checked.judgement.witnessed,
        },
        "policy": {
            "recorded": report.counts.verdicts(),
            "judged_again": checked.rejudged.as_ref().map(|rejudged| json!({
                "policy": rejudged.policy_path,
                "policy_digest": rejudged.policy_digest,
                "violations": rejudged.violations,
                "verdicts_differing": rejudged.differing,
            })),
        },
        "problems": checked.judgement.problems.iter().map(|problem| json!({
            "statement": statement(problem.area),
            "exit_code": problem.exit.code(),
            "message": problem.message,
        })).collect::<Vec<_>>(),
    })
}

fn fault(checked: &Checked) -> Option<Value> {
    match &checked.report.outcome {
        Outcome::Tampered(fault) | Outcome::Malformed(fault) => Some(json!({
            "code": fault.what.code(),
            "message": fault.to_string(),
            "seq": fault.seq,
            "line": fault.line,
            "byte_offset": fault.byte_offset,
        })),
        _ => None,
    }
}

fn checkpoint(signatures: Option<&Signatures>) -> Option<Value> {
    let last = signatures?.last_checkpoint?;
    Some(json!({
        "seq": last.seq,
        "size": last.size,
        "root": last.root,
        "byte_offset": last.byte_offset,
    }))
}

fn hosts(signatures: &Signatures) -> Vec<Value> {
    let hosts = signatures.hosts.iter();
    hosts
        .map(|host| json!({ "key": host.key.to_string(), "pinned": host.pinned }))
        .collect()
}

fn status(checked: &Checked) -> &'static str {
    match (checked.judgement.exit, &checked.report.outcome) {
        (_, Outcome::Empty) => "empty",
        (Exit::Tampered, _) => "tampered",
        (Exit::Malformed, _) => "malformed",
        (Exit::Untrusted, _) => "untrusted",
        (Exit::Incomplete, _) => "incomplete",
        (_, Outcome::Intact { sealed: false }) => "growing",
        _ => "valid",
    }
}

fn statement(area: Area) -> &'static str {
    match area {
        Area::Integrity => "integrity",
        Area::Completeness => "completeness",
        Area::Assurance => "assurance",
        Area::Policy => "policy",
    }
}

fn violation_json(violation: &Violation) -> Value {
    json!({
        "seq": violation.seq,
        "subject": violation.what,
        "result": violation.verdict.result,
        "policy_rule": violation.verdict.policy_rule,
        "reason": violation.verdict.reason,
    })
}
