//! The verifier that anybody would write first: parse every line with
//! serde_json, write it again, hash that. Slow, short, and so the oracle.

use sandtrace_event::{
    AuditEvent, Count, Digest, EventType, EvidenceTier, MAX_SAFE_INTEGER, Verdict,
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// The class of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Intact,
    Tampered,
    Malformed,
    Incomplete,
    Empty,
}

/// The class, and the line that decided it.
pub(crate) fn verify(trail: &[u8]) -> (Class, usize) {
    let mut last: Option<Value> = None;
    let mut first: Option<Value> = None;
    let mut counts = BTreeMap::new();
    for (index, line) in trail.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let number = index + 1;
        let ended = last
            .as_ref()
            .is_some_and(|last| last["event_type"] == "trail_end");
        let Some(line) = line.strip_suffix(b"\n") else {
            return (partial(line, ended), number);
        };
        let Some(event) = canonical(line) else {
            return (Class::Malformed, number);
        };
        if !hash_holds(&event) {
            return (Class::Tampered, number);
        }
        if !payload_is_readable(&event) {
            return (Class::Malformed, number);
        }
        if !links(last.as_ref(), first.as_ref(), &event) || ended || !totals_hold(&event, &counts) {
            return (Class::Tampered, number);
        }
        for kind in [&event["event_type"], &event["verdict"]["result"]] {
            *counts.entry(kind.to_string()).or_default() += 1;
        }
        first.get_or_insert_with(|| event.clone());
        last = Some(event);
    }
    let count = trail.iter().filter(|&&byte| byte == b'\n').count();
    match last {
        None => (Class::Empty, 0),
        Some(last) if last["event_type"] == "trail_end" => (Class::Intact, count),
        Some(_) => (Class::Incomplete, count),
    }
}

fn partial(line: &[u8], ended: bool) -> Class {
    let prefix =
        serde_json::from_slice::<Value>(line).map_or_else(|error| error.is_eof(), |_| true);
    match (prefix, ended) {
        (true, true) => Class::Tampered,
        (true, false) => Class::Incomplete,
        (false, _) => Class::Malformed,
    }
}

/// The line's value, where it is canonical and has a record's members.
fn canonical(line: &[u8]) -> Option<Value> {
    if line.len() > 65_535 {
        return None;
    }
    let value: Value = serde_json::from_slice(line).ok()?;
    let again = serde_json::to_vec(&value).ok()?;
    (again == line && only_safe_integers(&value, 1) && has_members(&value)).then_some(value)
}

const MEMBERS: [&str; 14] = [
    "agent_id",
    "event_id",
    "event_type",
    "evidence_tier",
    "mono_us",
    "payload",
    "prev_hash",
    "record_hash",
    "sandbox_id",
    "schema_version",
    "seq",
    "trace_id",
    "verdict",
    "wall_time",
];

fn has_members(value: &Value) -> bool {
    let Some(map) = value.as_object() else {
        return false;
    };
    let text = |member: &str| value[member].as_str().unwrap_or_default();
    let is_digest = |text: &str| text.parse::<Digest>().is_ok();
    map.keys().map(String::as_str).eq(MEMBERS)
        && value["agent_id"].is_string()
        && is_event_id(text("event_id"))
        && text("event_type").parse::<EventType>().is_ok()
        && text("evidence_tier").parse::<EvidenceTier>().is_ok()
        && is_count(&value["mono_us"])
        && value["payload"].is_object()
        && (value["prev_hash"].is_null() || is_digest(text("prev_hash")))
        && is_digest(text("record_hash"))
        && value["sandbox_id"].is_string()
        && value["schema_version"] == "1.0"
        && value["seq"].as_u64().is_some_and(|seq| seq > 0)
        && value["trace_id"].is_string()
        && is_verdict(&value["verdict"])
        && is_time(text("wall_time"))
}

fn is_event_id(text: &str) -> bool {
    let digits = text.strip_prefix("evt_").unwrap_or_default();
    let known = |digit: char| "0123456789ABCDEFGHJKMNPQRSTVWXYZ".contains(digit);
    digits.len() == 26 && digits.chars().all(known)
}

fn is_count(value: &Value) -> bool {
    let again = serde_json::from_value::<Count>(value.clone()).map(serde_json::to_value);
    again.is_ok_and(|again| again.unwrap() == *value)
}

fn is_verdict(value: &Value) -> bool {
    let again = serde_json::from_value::<Option<Verdict>>(value.clone()).map(serde_json::to_value);
    again.is_ok_and(|again| again.unwrap() == *value)
}

fn is_time(text: &str) -> bool {
    let shape: String = text
        .chars()
        .map(|char| if char.is_ascii_digit() { '0' } else { char })
        .collect();
    shape == "0000-00-00T00:00:00.000000000Z"
}

/// Only the payloads that a verifier needs are looked into.
fn payload_is_readable(value: &Value) -> bool {
    let needed = ["trail_start", "capture_gap", "trail_end"];
    let is_needed = needed.iter().any(|name| value["event_type"] == *name);
    !is_needed || serde_json::from_str::<AuditEvent>(&value.to_string()).is_ok()
}

pub(crate) fn only_safe_integers(value: &Value, depth: usize) -> bool {
    match value {
        Value::Number(number) => number
            .as_i64()
            .is_some_and(|number| number.unsigned_abs() <= MAX_SAFE_INTEGER),
        Value::Array(items) => {
            depth <= 32 && items.iter().all(|v| only_safe_integers(v, depth + 1))
        }
        Value::Object(map) => depth <= 32 && map.values().all(|v| only_safe_integers(v, depth + 1)),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

fn hash_holds(event: &Value) -> bool {
    let mut without = event.clone();
    let stated = without
        .as_object_mut()
        .unwrap()
        .remove("record_hash")
        .unwrap();
    let mut hasher = Sha256::new();
    hasher.update(serde_json::to_vec(&without).unwrap());
    hasher.update(event["prev_hash"].as_str().unwrap_or_default());
    let hex: String = hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    stated == format!("sha256:{hex}")
}

fn links(last: Option<&Value>, first: Option<&Value>, event: &Value) -> bool {
    let is_start = event["event_type"] == EventType::TrailStart.as_str();
    let (Some(last), Some(first)) = (last, first) else {
        return event["seq"] == 1 && event["prev_hash"].is_null() && is_start;
    };
    let same = |member: &str| first[member] == event[member];
    event["seq"].as_u64() == last["seq"].as_u64().map(|seq| seq + 1)
        && event["prev_hash"] == last["record_hash"]
        && !is_start
        && same("agent_id")
        && same("sandbox_id")
        && same("trace_id")
}

fn totals_hold(event: &Value, counts: &BTreeMap<String, u64>) -> bool {
    if event["event_type"] != "trail_end" {
        return true;
    }
    let mut stated = BTreeMap::from([("null".to_owned(), 0)]);
    for totals in [&event["payload"]["events"], &event["payload"]["verdicts"]] {
        for (name, count) in totals.as_object().unwrap() {
            stated.insert(
                Value::from(name.as_str()).to_string(),
                count.as_u64().unwrap(),
            );
        }
    }
    let mut counts = counts.clone();
    counts.insert("null".to_owned(), 0);
    stated.retain(|_, count| *count > 0);
    counts.retain(|_, count| *count > 0);
    stated == counts
}
