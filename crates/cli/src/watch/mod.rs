//! `sandtrace watch`: from a sandbox to its trail.

mod capture_mode;
mod evidence;
mod files;
mod fleet;
pub(crate) mod judge;
pub(crate) mod law;
pub(crate) mod moment;
pub(crate) mod opening;
mod outlet;
mod pause;
mod reload;
pub(crate) mod session;
pub(crate) mod settings;
pub(crate) mod start;
mod states;
mod syscalls;
pub(crate) mod trail;

use crate::args::WatchArgs;
use crate::config::Options;
use crate::exit::{Exit, Failure, OrExit as _};
use crate::show;
use anyhow::Context as _;
pub(crate) use capture_mode::CaptureMode;
use reload::Rules;
use sandtrace_output::WhenBusy;
use sandtrace_output::terminal;
use session::Session;
use settings::{Settings, Signing};
use std::io::{PipeReader, pipe};
use std::os::fd::AsFd as _;
pub(crate) use syscalls::SyscallMode;
use trail::Finished;

/// Watches until the sandbox ends, the time is over or somebody interrupts.
pub(crate) fn run(args: &WatchArgs) -> Result<Exit, Failure> {
    let interrupted = interruptions()?;
    let hangups = readable_at(&[signal_hook::consts::SIGHUP])?;
    let rules = Rules::load(&Options::of_watch(args)?)?;
    let Some(sandbox_id) = &args.sandbox_id else {
        let signing = Signing::of(&rules.options)?;
        return fleet::run(&rules, args, signing, [&interrupted, &hangups]);
    };
    let settings = Settings::of_one(&rules, args, sandbox_id)?;
    let sinks = show::sinks(&rules.options.show, WhenBusy::DROP)?;
    let session = Session::start(&settings, sinks)?;
    let (law, queue) = session.law();
    states::follow(&settings, &rules.options, &law, &queue)?;
    reload::follow(rules, hangups, law, queue)?;
    let finished = session.run(interrupted.as_fd(), || announce(&settings))?;
    summarise(&finished);
    Ok(Exit::Success)
}

/// Readable once SIGINT or SIGTERM arrived.
pub(crate) fn interruptions() -> Result<PipeReader, Failure> {
    readable_at(&[signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM])
}

/// Readable once one of these signals arrived.
fn readable_at(signals: &[i32]) -> Result<PipeReader, Failure> {
    let (reader, writer) = pipe().or_exit(Exit::Internal)?;
    for signal in signals {
        let writer = writer.try_clone().or_exit(Exit::Internal)?;
        signal_hook::low_level::pipe::register(*signal, writer)
            .with_context(|| format!("handle signal {signal}"))
            .or_exit(Exit::Internal)?;
    }
    Ok(reader)
}

fn announce(settings: &Settings) {
    let target = &settings.target;
    show::tell(&format!(
        "watching {} ({}), trail {}; Ctrl-C ends",
        target.sandbox_id,
        target.provider,
        settings.trail.display()
    ));
    for missing in &target.coverage {
        show::tell(&format!("  not visible: {}", missing.missing));
    }
    if settings.policy.is_none() {
        show::tell("  no policy given: events are recorded, not judged");
    }
}

/// Tells people what is in the trail now.
pub(crate) fn summarise(finished: &Finished) {
    show::tell(&terminal::summary(&finished.end));
    for output in finished.outputs.iter().filter(|output| output.dropped > 0) {
        show::tell(&format!(
            "output {}: {} events were not delivered; the trail has them all",
            output.name, output.dropped
        ));
    }
    let trail = finished.path.display();
    if let Some(head) = &finished.head {
        show::tell(&format!(
            "{trail}: {} records, head {}",
            head.seq, head.record_hash
        ));
    }
    show::tell(&format!("next: sandtrace verify {trail}"));
}
