//! Attacks with a computer: hashes, trees and signatures are made anew by
//! somebody who knows the format and has keys of his own.

use super::attacks::{Files, TRAIL};
use super::scene::{Scene, checkpoint, end, session, signed_by};
use super::spellings::trail;
use anyhow::{Context as _, Result};
use sandtrace_audit_chain::checkpoint::certify;
use sandtrace_audit_chain::forge::{self, Reseal, Signer};
use sandtrace_event::{AuditEvent, Cosignature, EventType, Payload, VerdictResult};

const BESIDE: &str = "trace.jsonl.checkpoint";
/// Records of an older copy; the last of them is a checkpoint.
const OLDER: usize = 9;

/// Chains the events again, and gives the trail that they make.
fn chained(mut events: Vec<AuditEvent>, how: Reseal<'_>) -> Result<Files> {
    Ok(trail(&forge::reseal(&mut events, how)?))
}

/// Somebody signs all of it again, as if he were the host.
fn signed_again(events: Vec<AuditEvent>, signer: &Signer) -> Result<Files> {
    chained(events, signed_by(signer))
}

/// The events, with the denial made an approval.
fn whitewashed(scene: &Scene) -> Vec<AuditEvent> {
    let mut events = scene.trail.events.clone();
    for event in &mut events {
        if let Some(verdict) = &mut event.verdict {
            verdict.result = VerdictResult::Allow;
        }
    }
    events
}

pub(super) fn untouched(scene: &Scene) -> Result<Files> {
    let mut files = trail(&scene.trail.lines);
    let newest = scene.trail.checkpoint(usize::MAX)?;
    files.push((BESIDE.to_owned(), newest.into_bytes()));
    Ok(files)
}

fn numbered(segments: &[(u64, &Vec<u8>)]) -> Files {
    let name = |number| match number {
        1 => TRAIL.to_owned(),
        _ => format!("trace.{number:04}.jsonl"),
    };
    let files = segments.iter();
    files
        .map(|(number, bytes)| (name(*number), bytes.to_vec()))
        .collect()
}

pub(super) fn untouched_segments(scene: &Scene) -> Result<Files> {
    let segments: Vec<_> = (1..).zip(&scene.segments).collect();
    Ok(numbered(&segments))
}

pub(super) fn segment_missing(scene: &Scene) -> Result<Files> {
    let mut segments: Vec<_> = (1..).zip(&scene.segments).collect();
    segments.remove(1);
    Ok(numbered(&segments))
}

pub(super) fn last_segment_missing(scene: &Scene) -> Result<Files> {
    let mut segments: Vec<_> = (1..).zip(&scene.segments).collect();
    segments.pop();
    Ok(numbered(&segments))
}

pub(super) fn segments_swapped(scene: &Scene) -> Result<Files> {
    let numbers = [1, 3, 2];
    let segments: Vec<_> = numbers.into_iter().zip(&scene.segments).collect();
    Ok(numbered(&segments))
}

pub(super) fn seq_reset(scene: &Scene) -> Result<Files> {
    let mut events = scene.trail.events.clone();
    for (event, seq) in events.iter_mut().skip(10).zip(1..) {
        event.seq = sandtrace_event::Count(seq);
    }
    let keep_seq = Reseal {
        keep_seq: true,
        ..Reseal::default()
    };
    chained(events, keep_seq)
}

pub(super) fn rolled_back(scene: &Scene) -> Result<Files> {
    let older = scene.trail.lines.iter().take(OLDER);
    let mut files = trail(&older.collect::<Vec<_>>());
    let newest = scene.trail.checkpoint(usize::MAX)?;
    files.push((BESIDE.to_owned(), newest.into_bytes()));
    Ok(files)
}

pub(super) fn rolled_back_as_a_whole(scene: &Scene) -> Result<Files> {
    let older = scene.trail.lines.iter().take(OLDER);
    let mut files = trail(&older.collect::<Vec<_>>());
    let older = scene.trail.checkpoint(OLDER)?;
    files.push((BESIDE.to_owned(), older.into_bytes()));
    Ok(files)
}

pub(super) fn chain_recomputed(scene: &Scene) -> Result<Files> {
    chained(whitewashed(scene), Reseal::default())
}

/// Only what the last checkpoint but one does not speak of.
pub(super) fn tail_recomputed(scene: &Scene) -> Result<Files> {
    let mut events = scene.trail.events.clone();
    let event = events.get_mut(17).context("a short trail")?;
    if let Payload::DnsQuery(question) = &mut event.payload {
        "crates.io".clone_into(&mut question.name);
    }
    chained(events, Reseal::default())
}

pub(super) fn appended_after_seal(scene: &Scene) -> Result<Files> {
    let mut events = scene.trail.events.clone();
    let copy = events.get(1).context("a short trail")?.clone();
    events.push(copy);
    chained(events, Reseal::default())
}

/// The seal's note, replaced.
fn with_seal(scene: &Scene, note: String) -> Result<Files> {
    let mut events = scene.trail.events.clone();
    let seals = events.iter_mut().rev();
    let mut seals = seals.filter_map(|event| match &mut event.payload {
        Payload::Checkpoint(checkpoint) => Some(checkpoint),
        _ => None,
    });
    seals.next().context("no checkpoint")?.note = note;
    chained(events, Reseal::default())
}

pub(super) fn foreign_checkpoint(scene: &Scene) -> Result<Files> {
    with_seal(scene, scene.other.checkpoint(usize::MAX)?)
}

pub(super) fn older_checkpoint(scene: &Scene) -> Result<Files> {
    with_seal(scene, scene.trail.checkpoint(17)?)
}

pub(super) fn foreign_checkpoint_beside(scene: &Scene) -> Result<Files> {
    let mut files = trail(&scene.trail.lines);
    let foreign = scene.other.checkpoint(usize::MAX)?;
    files.push((BESIDE.to_owned(), foreign.into_bytes()));
    Ok(files)
}

pub(super) fn damaged_checkpoint_beside(scene: &Scene) -> Result<Files> {
    let mut files = trail(&scene.trail.lines);
    files.push((BESIDE.to_owned(), b"sandtrace/demo\n".to_vec()));
    Ok(files)
}

/// The key hands over to one of the attacker's, who signs on.
pub(super) fn rotation_forged(scene: &Scene) -> Result<Files> {
    let mut events = whitewashed(scene);
    let rotates = position(&events, EventType::KeyRotate)?;
    let own = Signer::from_seed(&origin(&events), [2; 32])?.host;
    for event in events.iter_mut().skip(rotates).take(1) {
        if let Payload::KeyRotate(rotate) = &mut event.payload {
            rotate.key = own.verifier().to_string();
            rotate.certificate = certify(own.verifier(), &own)?.to_string();
        }
    }
    // What the old key had signed stays as it is.
    for (event, genuine) in events.iter_mut().zip(&scene.trail.events).take(rotates) {
        event.clone_from(genuine);
    }
    chained(events, Reseal::default())
}

/// The trail's first record, with the certificate of another trail's key.
pub(super) fn certificate_swapped(scene: &Scene) -> Result<Files> {
    let mut events = scene.trail.events.clone();
    let other = scene.other.events.first().context("an empty trail")?;
    if let (Some(first), Payload::TrailStart(other)) = (events.first_mut(), &other.payload)
        && let Payload::TrailStart(start) = &mut first.payload
    {
        start.key.clone_from(&other.key);
    }
    chained(events, Reseal::default())
}

pub(super) fn stripped(scene: &Scene) -> Result<Files> {
    let mut events = whitewashed(scene);
    events.retain(|event| {
        let signs = matches!(
            event.payload,
            Payload::Checkpoint(_) | Payload::Cosignature(_) | Payload::KeyRotate(_)
        );
        !signs
    });
    for event in &mut events {
        match &mut event.payload {
            Payload::TrailStart(start) => (start.key, start.cadence) = (None, None),
            Payload::SessionStart(session) => session.key = None,
            _ => {}
        }
    }
    signed_again(events, &scene.stranger)
}

pub(super) fn stripped_beside(scene: &Scene) -> Result<Files> {
    let mut files = stripped(scene)?;
    let newest = scene.trail.checkpoint(usize::MAX)?;
    files.push((BESIDE.to_owned(), newest.into_bytes()));
    Ok(files)
}

pub(super) fn resigned(scene: &Scene) -> Result<Files> {
    signed_again(whitewashed(scene), &scene.stranger)
}

pub(super) fn resigned_by_namesake(scene: &Scene) -> Result<Files> {
    let mut events = whitewashed(scene);
    events.retain(|event| event.event_type != EventType::Cosignature);
    signed_again(events, &scene.namesake)
}

/// An unsealed copy goes on, as if its writer had crashed.
pub(super) fn session_forged(scene: &Scene) -> Result<Files> {
    let mut events: Vec<_> = scene.trail.events.iter().take(OLDER).cloned().collect();
    let model = events.last().context("an empty trail")?.clone();
    for payload in [session()?, end()?, checkpoint()] {
        events.push(forge::like(&model, payload));
    }
    let how = Reseal {
        from: OLDER,
        ..signed_by(&scene.namesake)
    };
    chained(events, how)
}

/// A signature in a witness's name, with one character changed.
pub(super) fn cosignature_forged(scene: &Scene) -> Result<Files> {
    with_cosignature(scene, |note| {
        let place = note.len().saturating_sub(20);
        let other = if note.get(place..=place) == Some("A") {
            "B"
        } else {
            "A"
        };
        note.replace_range(place..=place, other);
    })
}

/// Somebody else cosigns.
pub(super) fn cosignature_by_nobody(scene: &Scene) -> Result<Files> {
    let seal = scene.trail.checkpoint(usize::MAX)?;
    let nobody = scene.stranger.witnesses.first().context("no witness")?;
    let mut note = sandtrace_audit_chain::note::Note::parse(seal.as_bytes())?;
    note.sign(nobody, 1_767_225_700);
    with_cosignature(scene, |old| *old = note.to_string())
}

pub(super) fn cosignature_of_another_trail(scene: &Scene) -> Result<Files> {
    let other = scene.other.events.last().context("an empty trail")?;
    let Payload::Cosignature(Cosignature { note, .. }) = &other.payload else {
        anyhow::bail!("the other trail has no cosignature");
    };
    with_cosignature(scene, |old| old.clone_from(note))
}

fn with_cosignature(scene: &Scene, change: impl FnOnce(&mut String)) -> Result<Files> {
    let mut events = scene.trail.events.clone();
    if let Some(Payload::Cosignature(cosignature)) =
        events.last_mut().map(|event| &mut event.payload)
    {
        change(&mut cosignature.note);
    }
    chained(events, Reseal::default())
}

/// Who has the host's own key can write any history, but no witness has seen it.
pub(super) fn rewritten_by_host(scene: &Scene) -> Result<Files> {
    signed_again(whitewashed(scene), &scene.thief)
}

fn position(events: &[AuditEvent], event_type: EventType) -> Result<usize> {
    forge::position(events, event_type).context("no such record")
}

fn origin(events: &[AuditEvent]) -> String {
    match events.first().map(|event| &event.payload) {
        Some(Payload::TrailStart(start)) => start.origin.clone(),
        _ => String::new(),
    }
}
