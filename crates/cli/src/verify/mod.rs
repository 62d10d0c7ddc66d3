//! `sandtrace verify`: is the trail what was written, is all of it there,
//! who vouches for it, and does it break the policy?

mod answer;
mod args;
mod directory;
mod json;
mod judge;
mod place;
mod rejudge;
mod settings;

pub(crate) use args::{EXAMPLES, VerifyArgs};

use crate::exit::{Exit, Failure, OrExit as _};
use crate::prove;
use anyhow::Context as _;
use judge::Judgement;
use place::Place;
use rejudge::{Judge, Rejudged, Violation};
use sandtrace_audit_chain::{Outcome, Report, verify};
use settings::Settings;
use std::io::{self, Write};
use std::path::Path;

/// Verifies, and judges again where asked.
pub(crate) fn run(args: &VerifyArgs) -> Result<Exit, Failure> {
    let from_stdin = args.trail == Path::new("-");
    if from_stdin && args.against.is_some() {
        return Err(Failure::new(
            Exit::Usage,
            "--against reads the trail twice: give a file instead of -",
        ));
    }
    // What does not load is said before a long trail is read.
    let settings = Settings::resolve(args)?;
    if args.proof {
        let (hosts, policy) = (&settings.pins[..], settings.witnesses.as_ref());
        return prove::verify(&args.trail, &prove::Trust { hosts, policy }, settings.json);
    }
    if from_stdin {
        let report = verify(io::stdin(), &settings.options(None))
            .context("read standard input")
            .or_exit(Exit::Malformed)?;
        return Checked::new("-", report, None, None, &settings).tell(&settings, None);
    }
    if args.trail.is_dir() {
        return directory::run(&args.trail, &settings);
    }
    let place = Place::find(&args.trail)?;
    Checked::file(&args.trail, &place, &settings)?.tell(&settings, Some(&place))
}

/// The code that [`run`] would give for a file, and not a word.
pub(crate) fn quietly(args: &VerifyArgs) -> Result<Exit, Failure> {
    let settings = Settings::resolve(args)?;
    let place = Place::find(&args.trail)?;
    let checked = Checked::file(&args.trail, &place, &settings)?;
    Ok(checked.judgement.exit)
}

/// A trail that was looked at.
pub(crate) struct Checked {
    /// As it was given.
    name: String,
    report: Report,
    rejudged: Option<Rejudged>,
    judgement: Judgement,
    /// The file with the fault and the offset in it, where there are several.
    fault_file: Option<String>,
    has_pins: bool,
    is_live: bool,
    required_level: u8,
}

impl Checked {
    fn file(trail: &Path, place: &Place, settings: &Settings) -> Result<Self, Failure> {
        let name = trail.display().to_string();
        let root_at = place.beside.as_ref().and_then(place::Beside::size);
        let reader = place.open()?;
        let sizes = reader.sizes().to_vec();
        let report = verify(reader, &settings.options(root_at))
            .with_context(|| format!("read {name}"))
            .or_exit(Exit::Malformed)?;
        let rejudged = match (&settings.against, &report.outcome) {
            (Some(policy), Outcome::Intact { .. } | Outcome::Incomplete(_)) => {
                let resolvers = &settings.resolvers;
                let judge = Judge { policy, resolvers };
                Some(judge.rejudge(place.open()?, &report)?)
            }
            // Events of a trail that was changed prove nothing about anybody.
            _ => None,
        };
        let mut checked = Self::new(&name, report, rejudged, Some(place), settings);
        checked.fault_file = match &checked.report.outcome {
            Outcome::Tampered(fault) | Outcome::Malformed(fault) if sizes.len() > 1 => place
                .locate(&sizes, fault.byte_offset)
                .map(|(file, offset)| format!("{}, byte {offset}", file.display())),
            _ => None,
        };
        Ok(checked)
    }

    fn new(
        name: &str,
        report: Report,
        rejudged: Option<Rejudged>,
        place: Option<&Place>,
        settings: &Settings,
    ) -> Self {
        Self {
            name: name.to_owned(),
            judgement: Judgement::of(&report, settings, place, rejudged.as_ref()),
            report,
            rejudged,
            fault_file: None,
            has_pins: !settings.pins.is_empty(),
            is_live: settings.live,
            required_level: settings.level,
        }
    }

    fn tell(&self, settings: &Settings, place: Option<&Place>) -> Result<Exit, Failure> {
        let printed = if settings.json {
            self.print_json(settings, place)
        } else {
            answer::print(self, &mut anstream::stdout().lock()).map_err(printing)
        };
        heard(printed)?;
        Ok(self.judgement.exit)
    }

    fn print_json(&self, settings: &Settings, place: Option<&Place>) -> Result<(), Failure> {
        // Not into memory: there may be many violations.
        let mut out = io::BufWriter::new(io::stdout().lock());
        let each = |hear: &mut dyn FnMut(&Violation) -> io::Result<()>| {
            let (Some(place), Some(policy), Some(_)) = (place, &settings.against, &self.rejudged)
            else {
                return Ok(());
            };
            let resolvers = &settings.resolvers;
            let judge = Judge { policy, resolvers };
            let trail = place
                .open()
                .map_err(|failure| io::Error::other(failure.error))?;
            judge
                .each_violation(trail, &self.report, |violation| {
                    hear(violation).map_err(printing)
                })
                .map_err(|failure| io::Error::other(failure.error))
        };
        json::print(self, &mut out, each).map_err(printing)?;
        out.flush().map_err(printing)
    }
}

fn printing(error: io::Error) -> Failure {
    Failure {
        exit: Exit::Io,
        error: anyhow::Error::from(error).context("write to standard output"),
    }
}

/// Where nobody reads the answer to its end, the code is an answer too.
fn heard(printed: Result<(), Failure>) -> Result<(), Failure> {
    match printed {
        Err(failure) if crate::is_broken_pipe(&failure.error) => Ok(()),
        printed => printed,
    }
}
