//! Signed trails: what a pinned key catches, to the last bit, and what the
//! report says of them.

use crate::attacks::class;
use crate::naive::Class;
use crate::sample::{at, dns, end, identity, judged, start, verdict};
use sandtrace_audit_chain::forge::{self, Reseal, Signer};
use sandtrace_audit_chain::note::{Algorithm, SigningKey};
use sandtrace_audit_chain::verify::{FaultKind, Incomplete};
use sandtrace_audit_chain::{Outcome, Report, TrailSigner, TrailWriter, VerifyOptions, verify};
use sandtrace_event::{
    AuditEvent, Checkpoint, Cosignature, Count, KeyRotate, Payload, SegmentCause, SegmentEnd,
    SegmentStart, SessionStart, TrailStart, VerdictResult,
};
use serde_json::json;
use std::num::NonZero;
use std::sync::LazyLock;

const ORIGIN: &str = "sandtrace/host-7/trace-001";

fn host() -> Signer {
    let host = Signer::from_seed("sandtrace/host-7", [7; 32]).unwrap();
    host.with_witness("witness.example").unwrap()
}

fn options() -> VerifyOptions {
    VerifyOptions {
        pins: vec![host().host.verifier().clone()],
        witnesses: vec![host().witnesses[0].verifier().clone()],
        ..VerifyOptions::default()
    }
}

fn check(trail: &[u8]) -> Report {
    verify(trail, &options()).unwrap()
}

fn signed_start() -> TrailStart {
    TrailStart {
        key: Some(forge::unmade_key()),
        ..start()
    }
}

fn session() -> SessionStart {
    serde_json::from_value(json!({
        "capture": [], "clean": true, "key": forge::unmade_key(),
        "prior_hash": format!("sha256:{}", "0".repeat(64)),
        "prior_size": 0, "signed_size": 0, "tool_version": "0.1.0", "torn_bytes": 0,
    }))
    .unwrap()
}

fn checkpoint() -> Payload {
    let note = String::new();
    Checkpoint { note }.into()
}

fn cosignature() -> Payload {
    let (note, witness) = Default::default();
    Cosignature { note, witness }.into()
}

fn rotation() -> Payload {
    let (certificate, key) = Default::default();
    KeyRotate { certificate, key }.into()
}

fn ended() -> Payload {
    serde_json::from_value::<sandtrace_event::TrailEnd>(
        json!({"events": {}, "reason": "sandbox_ended", "verdicts": {}}),
    )
    .unwrap()
    .into()
}

/// A record as the writer makes it, to be filled with others' content.
fn model() -> AuditEvent {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = TrailWriter::create(&dir.path().join("t"), identity("trace-001")).unwrap();
    let sealed = writer.append(judged(10, start(), None), 0).unwrap();
    sealed.event.clone()
}

fn events(payloads: Vec<Payload>) -> Vec<AuditEvent> {
    let model = model();
    let events = payloads.into_iter().zip(1..);
    events
        .map(|(payload, seq)| {
            let mut event = forge::like(&model, payload);
            event.mono_us = Count(seq * 10);
            event.wall_time = at(seq * 10).wall;
            event
        })
        .collect()
}

fn sealed_by(signer: &Signer, events: &mut [AuditEvent]) -> Vec<u8> {
    let how = Reseal {
        signer: Some(signer),
        ..Reseal::default()
    };
    forge::reseal(events, how).unwrap().concat()
}

/// A short trail with everything that is signed.
static TRAIL: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let payloads = vec![
        signed_start().into(),
        dns().into(),
        checkpoint(),
        rotation(),
        session().into(),
        checkpoint(),
        ended(),
        checkpoint(),
        cosignature(),
    ];
    sealed_by(&host(), &mut events(payloads))
});

#[test]
fn the_report_tells_of_keys_and_checkpoints() {
    let report = check(&TRAIL);
    assert_eq!(report.outcome, Outcome::Intact { sealed: true });
    assert_eq!(
        (report.records, report.sessions, report.segments),
        (9, 2, 1)
    );
    let signatures = report.signatures.unwrap();
    assert_eq!(signatures.origin, ORIGIN);
    assert_eq!((signatures.keys, signatures.checkpoints), (3, 3));
    assert!(signatures.all_pinned);
    assert_eq!(signatures.hosts.len(), 1);
    assert_eq!(signatures.unattested, 0);
    let last = signatures.last_checkpoint.unwrap();
    assert_eq!((last.seq, last.size), (8, 7));
    assert_eq!(signatures.cosigned.len(), 1);
    assert_eq!(signatures.cosigned[0].size, 7);
    assert_eq!(signatures.cosigned[0].witnesses, [0]);
}

#[test]
fn the_answer_is_the_same_for_any_number_of_threads() {
    let mut payloads: Vec<Payload> = vec![signed_start().into()];
    for number in 0..3000 {
        payloads.push(dns().into());
        match number % 97 {
            0 => payloads.push(checkpoint()),
            50 => payloads.extend([checkpoint(), rotation()]),
            70 => payloads.push(session().into()),
            _ => {}
        }
    }
    payloads.extend([ended(), checkpoint(), cosignature()]);
    let mut events = events(payloads);
    let trail = sealed_by(&host(), &mut events);
    let with = |trail: &[u8], threads| {
        let options = VerifyOptions {
            threads: NonZero::new(threads),
            root_at: Some(1234),
            ..options()
        };
        verify(trail, &options).unwrap()
    };
    let report = with(&trail, 1);
    assert_eq!(report.outcome, Outcome::Intact { sealed: true });
    assert_eq!(report.at.as_ref().unwrap().size, 1234);
    assert_eq!(with(&trail, 4), report);
    // A wrong signature is told where it is, with what is good before it.
    let place = forge::position(&events, sandtrace_event::EventType::KeyRotate).unwrap() - 1;
    for place in [place, place + 1] {
        let mut events = events.clone();
        match &mut events[place].payload {
            Payload::Checkpoint(checkpoint) => {
                let at = checkpoint.note.len() - 9;
                let other = if &checkpoint.note[at..=at] == "A" {
                    "B"
                } else {
                    "A"
                };
                checkpoint.note.replace_range(at..=at, other);
            }
            Payload::KeyRotate(rotate) => rotate.key.insert(0, 'x'),
            other => panic!("{other:?}"),
        }
        let trail = forge::reseal(&mut events, Reseal::default())
            .unwrap()
            .concat();
        let report = with(&trail, 1);
        assert_eq!(report.records, u64::try_from(place).unwrap());
        assert_eq!(with(&trail, 4), report);
        let Outcome::Tampered(fault) = report.outcome else {
            panic!("not found");
        };
        assert_eq!(fault.seq, Some(u64::try_from(place + 1).unwrap()));
    }
}

/// A flipped bit of any place is found; with `bits` of every byte in turn.
#[track_caller]
fn check_flips(trail: &[u8], bits: impl Fn(usize) -> std::ops::Range<u32> + Sync) {
    let check_part = |places: std::ops::Range<usize>| {
        let mut trail = trail.to_vec();
        for place in places {
            for bit in bits(place) {
                trail[place] ^= 1 << bit;
                let class = class(&check(&trail).outcome);
                assert!(
                    !matches!(class, Class::Intact | Class::Empty),
                    "byte {place}, bit {bit}: {class:?}"
                );
                trail[place] ^= 1 << bit;
            }
        }
    };
    // What is behind takes longer.
    let middle = trail.len() * 2 / 3;
    std::thread::scope(|scope| {
        scope.spawn(|| check_part(0..middle));
        check_part(middle..trail.len());
    });
}

#[test]
fn every_flipped_bit_of_a_signed_trail_is_found() {
    let shortest = vec![signed_start().into(), ended(), checkpoint()];
    let shortest = sealed_by(&host(), &mut events(shortest));
    check_flips(&shortest, |_| 0..8);
}

#[test]
fn a_flipped_bit_of_every_byte_is_found_among_rotations_and_cosignatures() {
    check_flips(&TRAIL, |place| {
        let bit = u32::try_from(place % 8).unwrap();
        bit..bit + 1
    });
}

/// A flip that an attacker covers by computing the chain anew.
#[test]
fn every_change_under_a_checkpoint_is_found_though_the_chain_is_made_anew() {
    let genuine = forge::events(&TRAIL).unwrap();
    for place in 0..7 {
        let mut events = genuine.clone();
        events[place].mono_us.0 += 1;
        let trail = forge::reseal(&mut events, Reseal::default())
            .unwrap()
            .concat();
        let Outcome::Tampered(fault) = check(&trail).outcome else {
            panic!("{place}");
        };
        let sessions = matches!(fault.what, FaultKind::Session(_));
        let roots = matches!(fault.what, FaultKind::CheckpointRoot { .. });
        assert!(sessions || roots, "{place}: {fault}");
    }
}

#[test]
fn cuts_at_every_byte() {
    let whole = &TRAIL[..];
    let feeds = whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let seal = feeds.map(|(place, _)| place + 1).nth(7).unwrap();
    for cut in 1..whole.len() {
        let report = check(&whole[..cut]);
        let expected = match report.outcome {
            // All that follows the seal is a witness's word.
            Outcome::Intact { sealed: true } => cut == seal,
            Outcome::Incomplete(Incomplete::NoSeal | Incomplete::NoEnd) => whole[cut - 1] == b'\n',
            Outcome::Incomplete(Incomplete::CutOff { .. }) => whole[cut - 1] != b'\n',
            _ => false,
        };
        assert!(expected, "cut at {cut}: {:?}", report.outcome);
        let signatures = report.signatures;
        let trusted = signatures.and_then(|signatures| signatures.last_checkpoint);
        assert!(trusted.is_none_or(|last| last.size < report.records));
    }
}

#[test]
fn a_size_seen_before_has_its_root_and_key() {
    for size in 0..=9 {
        let options = VerifyOptions {
            root_at: Some(size),
            ..options()
        };
        let whole = verify(&TRAIL[..], &options).unwrap().at.unwrap();
        let events = forge::events(&TRAIL).unwrap();
        let mut tree = sandtrace_audit_chain::merkle::CompactRange::default();
        for event in events.iter().take(usize::try_from(size).unwrap()) {
            tree.push_record(&event.record_hash);
        }
        assert_eq!((whole.size, Some(whole.root)), (size, tree.root()));
        assert_eq!(whole.key.is_some(), size > 0);
    }
    let beyond = VerifyOptions {
        root_at: Some(10),
        ..options()
    };
    assert_eq!(verify(&TRAIL[..], &beyond).unwrap().at, None);
}

/// The parts of segments, each by the rule that it breaks.
#[test]
fn segments_that_do_not_fit() {
    let end = |number, cause| {
        let (root, size) = (sandtrace_event::Digest([0; 32]), Count(0));
        Payload::from(SegmentEnd {
            cause,
            number: Count(number),
            root,
            size,
        })
    };
    let begin = |number, cause| {
        let (root, size) = (sandtrace_event::Digest([0; 32]), Count(0));
        let origin = ORIGIN.to_owned();
        Payload::from(SegmentStart {
            cause,
            number: Count(number),
            origin,
            root,
            size,
        })
    };
    let outcome = |middle: Vec<Payload>| {
        let mut payloads: Vec<Payload> = vec![signed_start().into()];
        payloads.extend(middle);
        payloads.extend([ended(), checkpoint()]);
        check(&sealed_by(&host(), &mut events(payloads))).outcome
    };
    use SegmentCause::{Age, Size, SyncFailed};
    let good = |middle| assert_eq!(outcome(middle), Outcome::Intact { sealed: true });
    good(vec![
        end(1, Size),
        begin(2, Size),
        end(2, Age),
        begin(3, Age),
    ]);
    good(vec![begin(2, SyncFailed)]);
    let bad = |middle: Vec<Payload>| {
        let outcome = outcome(middle);
        let Outcome::Tampered(fault) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(fault.what.code(), "segment", "{fault}");
    };
    bad(vec![end(2, Size), begin(3, Size)]);
    bad(vec![end(1, Size), begin(3, Size)]);
    bad(vec![end(1, Size), begin(2, Age)]);
    bad(vec![end(1, Size), dns().into()]);
    bad(vec![begin(2, Size)]);
    bad(vec![end(1, Size), begin(2, SyncFailed)]);
}

/// What the writer signs is what the verifier expects.
#[test]
fn trails_of_the_writer_reach_the_seal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace.jsonl");
    let key = SigningKey::new("sandtrace/host-7", Algorithm::Ed25519, &[9; 32]).unwrap();
    let signer = TrailSigner::new(ORIGIN, &key).unwrap();
    let mut writer = TrailWriter::create_signed(&path, identity("trace-001"), signer).unwrap();
    writer.append(judged(1, start(), None), 1).unwrap();
    for number in 2..5000_u64 {
        let result = if number % 1000 == 0 {
            VerdictResult::Deny
        } else {
            VerdictResult::Allow
        };
        let event = judged(number, dns(), Some(verdict(result, None, "as asked")));
        // Two seconds between records: keys grow old, too.
        let now = number * 2_000_000;
        writer.append(event.clone(), now).unwrap();
        writer.commit().unwrap();
        writer.upkeep(at(number), now).unwrap();
    }
    let end = end(&writer);
    writer.append(judged(5000, end, None), 5000).unwrap();
    writer.seal(at(5000), 10_000_000_000).unwrap();
    let options = VerifyOptions {
        pins: vec![key.verifier().clone()],
        ..VerifyOptions::default()
    };
    let report = verify(std::fs::File::open(&path).unwrap(), &options).unwrap();
    assert_eq!(report.outcome, Outcome::Intact { sealed: true });
    let signatures = report.signatures.unwrap();
    assert!(signatures.all_pinned && signatures.unattested == 0);
    assert!(signatures.keys > 1, "{}", signatures.keys);
    assert!(signatures.checkpoints > 4);
}
