//! A signed trail to attack, and the people around it. All keys come from
//! fixed seeds, so that an attack is the same file every time.

use anyhow::{Context as _, Result};
use sandtrace_audit_chain::forge::{self, Reseal, Signer};
use sandtrace_event::{
    AuditEvent, BackendInForce, Cadence, CaptureGap, Checkpoint, Cosignature, Count, DnsQuery,
    EventId, KeyRotate, Payload, SegmentCause, SegmentEnd, SegmentStart, SessionStart, TrailEnd,
    TrailStart, Verdict, VerdictResult,
};
use serde_json::json;

/// Name of the host that watched.
const HOST: &str = "sandtrace/demo";
/// 2026-01-01T00:00:00Z, in nanoseconds.
const BEGIN_NS: u64 = 1_767_225_600_000_000_000;
const NONCE: u64 = 0x00c0_ffee_1234;
const NO_DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// Everything an attack can start from.
pub(super) struct Scene {
    /// The host that watched, and its witness.
    pub(super) host: Signer,
    /// The host without its witness: who has taken it over.
    pub(super) thief: Signer,
    /// Somebody else who has a key.
    pub(super) stranger: Signer,
    /// Somebody else who gave that key the host's name.
    pub(super) namesake: Signer,
    pub(super) trail: Trail,
    /// Another trail of the same host.
    pub(super) other: Trail,
    /// The same story in several files.
    pub(super) segments: Vec<Vec<u8>>,
}

/// A trail as events and as lines.
pub(super) struct Trail {
    pub(super) events: Vec<AuditEvent>,
    pub(super) lines: Vec<Vec<u8>>,
}

impl Scene {
    pub(super) fn set() -> Result<Self> {
        let host = Signer::from_seed(HOST, [1; 32])?.with_witness("witness.example/w1")?;
        let trail = Trail::of(story("agent-run-1")?, &host)?;
        let other = Trail::of(story("agent-run-2")?, &host)?;
        let segments = segments(story("agent-run-1")?, &host)?;
        Ok(Self {
            thief: Signer::from_seed(HOST, [1; 32])?,
            stranger: Signer::from_seed("sandtrace/elsewhere", [2; 32])?.with_witness("nobody")?,
            namesake: Signer::from_seed(HOST, [3; 32])?,
            host,
            trail,
            other,
            segments,
        })
    }

    /// The witness policy that an auditor holds the trail against.
    pub(super) fn witness_policy(&self) -> Result<String> {
        let witness = self.host.witnesses.first().context("no witness")?;
        let key = witness.verifier();
        Ok(format!("witness w1 {key}\nquorum w1\n"))
    }
}

impl Trail {
    fn of(mut events: Vec<AuditEvent>, signer: &Signer) -> Result<Self> {
        let lines = forge::reseal(&mut events, signed_by(signer))?;
        Ok(Self { events, lines })
    }

    /// The newest checkpoint's note among the first `count` records.
    pub(super) fn checkpoint(&self, count: usize) -> Result<String> {
        let notes = self.events.iter().take(count);
        let mut notes = notes.filter_map(|event| match &event.payload {
            Payload::Checkpoint(checkpoint) => Some(checkpoint.note.clone()),
            _ => None,
        });
        notes.next_back().context("no checkpoint")
    }
}

pub(super) fn signed_by(signer: &Signer) -> Reseal<'_> {
    Reseal {
        signer: Some(signer),
        ..Reseal::default()
    }
}

/// Two sessions, a key that hands over, a denied question, a gap, and a
/// witness that saw the end.
fn story(trace_id: &str) -> Result<Vec<AuditEvent>> {
    let allowed = |name| Step::Judged(name, VerdictResult::Allow);
    let steps = [
        control(start(trace_id)?),
        allowed("api.stripe.com"),
        allowed("pypi.org"),
        allowed("api.stripe.com"),
        Step::Judged("paste.example", VerdictResult::Deny),
        control(checkpoint()),
        allowed("api.stripe.com"),
        allowed("crates.io"),
        control(checkpoint()),
        control(rotation()),
        allowed("api.stripe.com"),
        control(gap()?),
        allowed("api.stripe.com"),
        control(session()?),
        allowed("pypi.org"),
        Step::Judged("api.stripe.com", VerdictResult::Anomaly),
        control(checkpoint()),
        allowed("pypi.org"),
        control(end()?),
        control(checkpoint()),
        control(cosignature()),
    ];
    let model = model(trace_id)?;
    let events = steps.into_iter().zip(1..);
    events.map(|(step, seq)| step.event(&model, seq)).collect()
}

enum Step {
    Control(Box<Payload>),
    /// A question for a name, and what the policy thinks of it.
    Judged(&'static str, VerdictResult),
}

fn control(payload: impl Into<Payload>) -> Step {
    Step::Control(Box::new(payload.into()))
}

impl Step {
    fn event(self, model: &AuditEvent, seq: u64) -> Result<AuditEvent> {
        let (payload, verdict) = match self {
            Self::Control(payload) => (*payload, None),
            Self::Judged(name, result) => {
                let reason = format!("the name {name}");
                let policy_rule = (result != VerdictResult::Deny).then(|| "tool:net".to_owned());
                let verdict = Verdict {
                    policy_rule,
                    reason,
                    result,
                };
                (question(name)?, Some(verdict))
            }
        };
        let mut event = forge::like(model, payload);
        event.verdict = verdict;
        event.mono_us = Count(seq * 250_000);
        event.wall_time.0 = BEGIN_NS + seq * 250_000_000;
        event.event_id = EventId::new(event.wall_time.as_millis(), NONCE, seq);
        Ok(event)
    }
}

/// The story in three files.
fn segments(mut events: Vec<AuditEvent>, signer: &Signer) -> Result<Vec<Vec<u8>>> {
    for (place, number) in [(13, 2), (7, 1)] {
        let model = events.get(place).context("a short story")?.clone();
        // Those behind are renumbered where they are inserted first.
        events.insert(
            place,
            forge::like(&model, segment_start(&model, number + 1)?),
        );
        events.insert(place, forge::like(&model, segment_end(number)?));
    }
    let trail = Trail::of(events, signer)?;
    let mut files: Vec<Vec<u8>> = vec![Vec::new()];
    for (event, line) in trail.events.iter().zip(trail.lines) {
        if matches!(event.payload, Payload::SegmentStart(_)) {
            files.push(Vec::new());
        }
        if let Some(file) = files.last_mut() {
            file.extend(line);
        }
    }
    Ok(files)
}

fn model(trace_id: &str) -> Result<AuditEvent> {
    let model = json!({
        "agent_id": "agent-billing",
        "event_id": EventId::new(0, NONCE, 0),
        "event_type": "key_rotate",
        "evidence_tier": "hypervisor",
        "mono_us": 0,
        "payload": {"certificate": "", "key": ""},
        "prev_hash": null,
        "record_hash": NO_DIGEST,
        "sandbox_id": "vm-é",
        "schema_version": "1.0",
        "seq": 1,
        "trace_id": trace_id,
        "verdict": null,
        "wall_time": "2026-01-01T00:00:00.000000000Z",
    });
    // An event is read from text, because its payload is.
    Ok(serde_json::from_str(&model.to_string())?)
}

fn start(trace_id: &str) -> Result<TrailStart> {
    let capture: Vec<BackendInForce> = serde_json::from_value(json!([
        {"backend": "af_packet", "layer": "network", "reason": "tap0 was named"},
    ]))?;
    Ok(TrailStart {
        binary_digest: None,
        boot_id: None,
        cadence: Some(Cadence {
            heartbeat_s: Count(60),
            records: Count(1024),
            seconds: Count(10),
        }),
        capture,
        key: Some(forge::unmade_key()),
        needs_restart: Vec::new(),
        nonce: format!("{NONCE:016x}"),
        origin: format!("{HOST}/{trace_id}"),
        policy_digest: None,
        policy_path: None,
        previous: None,
        resolvers: Vec::new(),
        settings_digest: None,
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

pub(super) fn session() -> Result<Payload> {
    let session: SessionStart = serde_json::from_value(json!({
        "capture": [],
        "clean": false,
        "key": {"certificate": "", "host": "", "trail": ""},
        "prior_hash": NO_DIGEST,
        "prior_size": 0,
        "signed_size": 0,
        "tool_version": env!("CARGO_PKG_VERSION"),
        "torn_bytes": 0,
    }))?;
    Ok(session.into())
}

fn question(name: &str) -> Result<Payload> {
    let question: DnsQuery = serde_json::from_value(json!({
        "answers": ["203.0.113.10"],
        "latency_us": 1000,
        "matched": true,
        "name": name,
        "qtype": "A",
        "rcode": "NOERROR",
        "resolver": "10.0.0.1",
        "resolver_accepted": true,
        "resolver_port": 53,
    }))?;
    Ok(question.into())
}

fn gap() -> Result<Payload> {
    let gap: CaptureGap = serde_json::from_value(json!({
        "cause": "ring_drop",
        "count": 3,
        "detail": "the ring was full",
        "first_at": "2026-01-01T00:00:02.000000000Z",
        "last_at": "2026-01-01T00:00:03.000000000Z",
        "layer": "network",
        "source": "tap0",
        "unit": "packets",
    }))?;
    Ok(gap.into())
}

pub(super) fn end() -> Result<Payload> {
    let end: TrailEnd = serde_json::from_value(json!({
        "events": {}, "reason": "sandbox_ended", "verdicts": {},
    }))?;
    Ok(end.into())
}

pub(super) fn checkpoint() -> Payload {
    let note = String::new();
    Checkpoint { note }.into()
}

fn rotation() -> Payload {
    let (certificate, key) = Default::default();
    KeyRotate { certificate, key }.into()
}

fn cosignature() -> Payload {
    Cosignature {
        note: String::new(),
        witness: "https://witness.example".to_owned(),
    }
    .into()
}

fn segment_end(number: u64) -> Result<Payload> {
    Ok(SegmentEnd {
        cause: SegmentCause::Size,
        number: Count(number),
        root: NO_DIGEST.parse()?,
        size: Count(0),
    }
    .into())
}

fn segment_start(model: &AuditEvent, number: u64) -> Result<Payload> {
    Ok(SegmentStart {
        cause: SegmentCause::Size,
        number: Count(number),
        origin: format!("{HOST}/{}", model.trace_id),
        root: NO_DIGEST.parse()?,
        size: Count(0),
    }
    .into())
}
