//! `sandtrace verify`: is the trail what was written, is all of it there,
//! and does it break the policy?

mod answer;
mod rejudge;

use crate::args::VerifyArgs;
use crate::exit::{Exit, Failure, OrExit as _};
use crate::policy_file;
use answer::Answer;
use anyhow::Context as _;
use rejudge::Rejudged;
use sandtrace_audit_chain::{Outcome, Report, VerifyOptions, verify};
use std::fs::File;
use std::io::{self, Seek as _};
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
    // A policy that does not load is said before a long trail is read.
    let policy = args.against.as_deref().map(policy_file::load).transpose()?;
    let options = VerifyOptions::default();
    let (report, rejudged) = if from_stdin {
        (
            verify(io::stdin(), &options)
                .context("read standard input")
                .or_exit(Exit::Malformed)?,
            None,
        )
    } else {
        let mut file = open(&args.trail)?;
        let report = verify(&file, &options)
            .with_context(|| format!("read {}", args.trail.display()))
            .or_exit(Exit::Malformed)?;
        let rejudged = match (&policy, &report.outcome) {
            (Some(policy), Outcome::Intact { .. } | Outcome::Incomplete(_)) => {
                file.rewind().or_exit(Exit::Malformed)?;
                Some(rejudge::rejudge(&file, policy, &report, &args.resolver)?)
            }
            // Events of a trail that was changed prove nothing about anybody.
            _ => None,
        };
        (report, rejudged)
    };
    let exit = exit_of(&report, rejudged.as_ref());
    let answer = Answer {
        report: &report,
        rejudged: rejudged.as_ref(),
        exit,
    };
    let printed = if args.json {
        answer.print_json()
    } else {
        answer.print_text()
    };
    match printed {
        // Nobody read the answer to its end; the code is an answer too.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(exit),
        printed => {
            printed
                .context("write to standard output")
                .or_exit(Exit::Io)?;
            Ok(exit)
        }
    }
}

fn open(path: &Path) -> Result<File, Failure> {
    let file = File::open(path)
        .with_context(|| format!("open trail {}", path.display()))
        .or_exit(Exit::Malformed)?;
    let is_dir = file.metadata().is_ok_and(|metadata| metadata.is_dir());
    if is_dir {
        let message = format!("{} is a directory: name the trail in it", path.display());
        return Err(Failure::new(Exit::Malformed, message));
    }
    Ok(file)
}

fn exit_of(report: &Report, rejudged: Option<&Rejudged>) -> Exit {
    match &report.outcome {
        Outcome::Tampered(_) => Exit::Tampered,
        Outcome::Malformed(_) => Exit::Malformed,
        Outcome::Incomplete(_) | Outcome::Empty => Exit::Incomplete,
        Outcome::Intact { .. } => match rejudged {
            Some(rejudged) if rejudged.violations > 0 => Exit::Violations,
            _ => Exit::Success,
        },
    }
}
