//! From what a trail proves and what is asked of it to an answer.

use super::place::{Beside, Place};
use super::rejudge::Rejudged;
use super::settings::Settings;
use crate::exit::Exit;
use sandtrace_audit_chain::checkpoint::Checkpoint;
use sandtrace_audit_chain::note::{Note, VerifierKey};
use sandtrace_audit_chain::verify::{Incomplete, Signatures, StateAt};
use sandtrace_audit_chain::{Outcome, Report};

/// Which of the four statements a problem belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Area {
    Integrity,
    Completeness,
    Assurance,
    Policy,
}

/// Why a trail is not good.
pub(crate) struct Problem {
    pub(crate) area: Area,
    pub(crate) exit: Exit,
    pub(crate) message: String,
}

/// The answer.
pub(crate) struct Judgement {
    pub(crate) exit: Exit,
    /// Level of trust that was reached.
    pub(crate) level: u8,
    /// Whether the quorum of witnesses stands behind the last checkpoint;
    /// `None` where nobody asked.
    pub(crate) quorum: Option<bool>,
    /// Records that the newest checkpoint with that quorum speaks of.
    pub(crate) witnessed: Option<u64>,
    pub(crate) problems: Vec<Problem>,
}

impl Judgement {
    pub(crate) fn of(
        report: &Report,
        settings: &Settings,
        place: Option<&Place>,
        rejudged: Option<&Rejudged>,
    ) -> Self {
        let witnessed = witnessed(report, settings);
        let quorum = settings.witnesses.as_ref().map(|_| {
            let last = report.signatures.as_ref();
            let last = last.and_then(|signatures| signatures.last_checkpoint);
            witnessed.is_some() && witnessed == last.map(|last| last.size)
        });
        let mut judge = Judge {
            report,
            settings,
            problems: Vec::new(),
        };
        let level = level(report, settings, quorum);
        judge.outcome(place);
        // Where no record is whole there is nothing more to say.
        if judge.problems.is_empty()
            || (matches!(report.outcome, Outcome::Incomplete(_)) && report.records > 0)
        {
            judge.beside(place);
            judge.size();
            judge.trust(level);
            judge.witnesses(quorum, witnessed);
            judge.policy(rejudged);
        }
        let problems = judge.problems;
        let worst = problems.iter().map(|problem| problem.exit);
        Self {
            exit: worst
                .max_by_key(|exit| rank(*exit))
                .unwrap_or(Exit::Success),
            level,
            quorum,
            witnessed,
            problems,
        }
    }
}

/// The verdict of the highest concern wins.
pub(crate) fn rank(exit: Exit) -> u8 {
    match exit {
        Exit::Success => 0,
        Exit::Violations => 1,
        Exit::Incomplete => 2,
        Exit::Untrusted => 3,
        Exit::Malformed => 4,
        Exit::Tampered => 5,
        _ => 6,
    }
}

fn level(report: &Report, settings: &Settings, quorum: Option<bool>) -> u8 {
    let Some(signatures) = &report.signatures else {
        return 0;
    };
    let is_trusted = settings.pins.is_empty() || signatures.all_pinned;
    if !is_trusted || !signatures.covers_all_but_a_cadence() {
        return 0;
    }
    match report.outcome {
        Outcome::Intact { sealed: true } if quorum == Some(true) => 3,
        Outcome::Intact { sealed: true } => 2,
        Outcome::Intact { sealed: false } | Outcome::Incomplete(_) => 1,
        Outcome::Tampered(_) | Outcome::Malformed(_) | Outcome::Empty => 0,
    }
}

/// Size of the newest checkpoint that enough witnesses have signed.
fn witnessed(report: &Report, settings: &Settings) -> Option<u64> {
    let policy = settings.witnesses.as_ref()?;
    let keys = policy.witness_keys();
    let signatures = report.signatures.as_ref()?;
    // A quorum of nobody stands behind every checkpoint.
    if policy.satisfied_by([]) {
        return signatures.last_checkpoint.map(|last| last.size);
    }
    let enough = |places: &[usize]| {
        let signed: Vec<&VerifierKey> =
            places.iter().filter_map(|place| keys.get(*place)).collect();
        policy.satisfied_by(signed)
    };
    let mut newest_first = signatures.cosigned.iter();
    newest_first
        .find(|cosigned| enough(&cosigned.witnesses))
        .map(|cosigned| cosigned.size)
}

struct Judge<'a> {
    report: &'a Report,
    settings: &'a Settings,
    problems: Vec<Problem>,
}

impl Judge<'_> {
    fn add(&mut self, area: Area, exit: Exit, message: impl Into<String>) {
        self.problems.push(Problem {
            area,
            exit,
            message: message.into(),
        });
    }

    fn outcome(&mut self, place: Option<&Place>) {
        match &self.report.outcome {
            Outcome::Intact { .. } => {}
            Outcome::Tampered(fault) => {
                self.add(Area::Integrity, Exit::Tampered, fault.to_string());
            }
            Outcome::Malformed(fault) => {
                self.add(Area::Integrity, Exit::Malformed, fault.to_string());
            }
            Outcome::Empty => {
                let message = "an empty trail proves nothing";
                self.add(Area::Completeness, Exit::Incomplete, message);
            }
            Outcome::Incomplete(why) => {
                let mut message = why.to_string();
                let stray = place.and_then(|place| place.stray);
                if let (Incomplete::NoSegment, Some(stray)) = (why, stray) {
                    message = format!("{message}, though segment {stray} is there");
                }
                self.add(Area::Completeness, Exit::Incomplete, message);
            }
        }
    }

    /// What the checkpoint beside the trail says.
    fn beside(&mut self, place: Option<&Place>) {
        match place.and_then(|place| place.beside.as_ref()) {
            None => {}
            Some(Beside::Unreadable(error)) => {
                let message = format!("the checkpoint beside the trail cannot be read: {error}");
                self.add(Area::Completeness, Exit::Malformed, message);
            }
            Some(Beside::Checkpoint { note, checkpoint }) => {
                if let Err((exit, message)) = compare(self.report, note, checkpoint) {
                    self.add(Area::Completeness, exit, message);
                }
            }
        }
    }

    fn size(&mut self) {
        let records = self.report.records;
        if let Some(min) = self.settings.min_size.filter(|min| records < *min) {
            let message = format!("{records} records, but it was seen with {min}: rolled back");
            self.add(Area::Completeness, Exit::Incomplete, message);
        }
    }

    fn trust(&mut self, level: u8) {
        let Some(signatures) = &self.report.signatures else {
            if !self.settings.pins.is_empty() || self.settings.level > 0 {
                let message = "nobody signed this trail; --level 0 without --key asks for no more \
                               than an intact chain";
                self.add(Area::Assurance, Exit::Untrusted, message);
            }
            return;
        };
        if !self.settings.pins.is_empty() && !signatures.all_pinned {
            let unknown = signatures.hosts.iter().find(|host| !host.pinned);
            let message = unknown.map_or_else(
                || "a host vouches for it that is not among those of --key".to_owned(),
                |host| {
                    format!(
                        "{} vouches for it, which is not among the keys of --key",
                        host.key
                    )
                },
            );
            self.add(Area::Assurance, Exit::Untrusted, message);
        } else if self.settings.level > 0
            && !signatures.covers_all_but_a_cadence()
            // What was cut off is said already.
            && !matches!(self.report.outcome, Outcome::Incomplete(_))
        {
            let message = match signatures.last_checkpoint {
                None => "it has no checkpoint: nothing in it is signed".to_owned(),
                Some(last) => format!(
                    "{} records after the last checkpoint (seq {}) are not signed, at most {} may be",
                    signatures.unattested, last.seq, signatures.allowed
                ),
            };
            self.add(Area::Assurance, Exit::Untrusted, message);
        }
        let is_live = self.report.outcome == Outcome::Intact { sealed: false };
        if self.settings.level >= 2 && level < 2 && is_live {
            let message = "it is not sealed yet";
            self.add(Area::Completeness, Exit::Incomplete, message);
        }
    }

    fn witnesses(&mut self, quorum: Option<bool>, witnessed: Option<u64>) {
        let is_live = self.report.outcome == Outcome::Intact { sealed: false };
        // The witnesses of a growing trail's last checkpoint may still be on
        // their way.
        let reached = quorum == Some(true) || (is_live && witnessed.is_some());
        if self.settings.needs_quorum && !reached && self.report.signatures.is_some() {
            let message = match witnessed {
                Some(size) => {
                    format!("the quorum of witnesses stands behind the first {size} records only")
                }
                None => "the quorum of witnesses stands behind no checkpoint".to_owned(),
            };
            self.add(Area::Assurance, Exit::Untrusted, message);
        }
    }

    fn policy(&mut self, rejudged: Option<&Rejudged>) {
        if let Some(rejudged) = rejudged.filter(|rejudged| rejudged.violations > 0) {
            let message = format!("{} violations", rejudged.violations);
            self.add(Area::Policy, Exit::Violations, message);
        }
    }
}

/// Holds a trail against the checkpoint beside it.
fn compare(report: &Report, note: &Note, checkpoint: &Checkpoint) -> Result<(), (Exit, String)> {
    let tampered = |message: String| Err((Exit::Tampered, message));
    let Some(Signatures { origin, key, .. }) = &report.signatures else {
        return tampered(format!(
            "a checkpoint of {} is beside it, but the trail is not signed",
            checkpoint.origin()
        ));
    };
    if checkpoint.origin() != origin {
        return tampered(format!(
            "the checkpoint beside it is of another trail, {}",
            checkpoint.origin()
        ));
    }
    let (size, records) = (checkpoint.size(), report.records);
    let Some(StateAt {
        root, key: signer, ..
    }) = &report.at
    else {
        // A key that took over later is not in the trail any more.
        let by_known = note.signatures().iter().any(|line| line.id == key.id());
        if by_known && Checkpoint::open(note, key).is_err() {
            return tampered("the checkpoint beside it has a wrong signature".to_owned());
        }
        let message = format!(
            "{records} records, but the checkpoint beside it was signed over {size}: rolled back"
        );
        return Err((Exit::Incomplete, message));
    };
    if let Err(error) = Checkpoint::open(note, signer.as_ref().unwrap_or(key)) {
        return tampered(format!(
            "the checkpoint beside it is not by the trail's key: {:#}",
            anyhow::Error::from(error)
        ));
    }
    if checkpoint.root() != *root {
        return tampered(format!(
            "the checkpoint beside it was signed over other records than the first {size}"
        ));
    }
    Ok(())
}
