//! Containers as they start or pause, by Docker's word. What is lost here the
//! look at everything finds.

use super::State;
use super::arrivals::Job;
use super::known::name_of;
use crate::show;
use sandtrace_provider::{
    ContainerEvent, ContainerEvents, DiscoverConfig, DockerError, ProcRoot, ProviderKind, Sighting,
};
use std::sync::mpsc::Sender;
use std::time::Duration;

/// Longest wait for an event, and so for the end of this thread.
const PATIENCE: Duration = Duration::from_millis(100);

/// Waits of that length before Docker is asked anew.
const PAUSES: u32 = 10;

/// Hands on each container that starts, until the watch is over.
pub(super) fn follow(state: &State, jobs: &Sender<Job>) {
    let mut told = false;
    while !state.arrivals.is_over() {
        let edition = state.shared.edition();
        let config = edition.discover();
        if config.wants(ProviderKind::Daytona) {
            let outcome = hear(state, config, jobs);
            if let Err(DockerError::Status(..)) = outcome
                && !std::mem::replace(&mut told, true)
            {
                show::tell(
                    "  containers are noticed up to a second after their start: Docker does not tell of its events",
                );
            }
        }
        for _ in 0..PAUSES {
            if !state.arrivals.is_over() {
                std::thread::sleep(PATIENCE);
            }
        }
    }
}

/// Until the watch is over, Docker ends, or other settings hold.
fn hear(state: &State, config: &DiscoverConfig, jobs: &Sender<Job>) -> Result<(), DockerError> {
    let mut events = ContainerEvents::open(config)?;
    while !state.arrivals.is_over() && state.shared.edition().discover() == config {
        if let Some(event) = events.next(PATIENCE)? {
            take(state, config, &event, jobs);
        }
    }
    Ok(())
}

fn take(state: &State, config: &DiscoverConfig, event: &ContainerEvent, jobs: &Sender<Job>) {
    // Of one that fails the look at everything tells.
    let Ok(Some(sighting)) = Sighting::of_container_id(&ProcRoot::host(), config, &event.id) else {
        return;
    };
    if !event.started {
        state.states.hurry(name_of(&sighting));
    } else if state.arrivals.is_due(&sighting) {
        // Where nobody attaches any more the watch is over.
        let _over = jobs.send(Job::Attach(Box::new(sighting)));
    }
}
