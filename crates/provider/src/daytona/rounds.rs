//! All containers of a host, looked at in rounds.

use super::docker::{Container, Docker, DockerError, List, Word};
use sandtrace_sys::process::{ProcRoot, Process};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest wait for Docker's word on one container: one that hangs must not
/// use up the time of all.
pub(super) const ONE: Duration = Duration::from_millis(500);

/// Containers that are known, whose process lives, and that are asked for
/// again in a round.
const AGAIN: usize = 16;

/// Longest time in rounds until a container that failed is asked for again.
const MAX_WAIT: u32 = 64;

/// What is known of Docker's containers from one look to the next, so that
/// each look asks first for what none has asked for before: neither a
/// container of which Docker will not speak nor a Docker that is slow hides
/// the others for good.
#[derive(Debug, Default)]
pub struct Containers {
    known: BTreeMap<String, Known>,
    /// The last that was asked for again.
    turn: String,
}

#[derive(Debug)]
enum Known {
    /// Somebody else's, as long as it is there: labels and environment are for
    /// good.
    Other,
    /// Daytona's, and the start of its process.
    Ours { container: Container, start: u64 },
    /// Docker did not tell. Asked for again after `wait` rounds, twice as many
    /// each time.
    Failed {
        why: Arc<DockerError>,
        wait: u32,
        next: u32,
    },
}

/// What one round found.
#[derive(Debug, Default)]
pub(crate) struct Round {
    pub(crate) found: Vec<(Process, Container)>,
    /// What concerns all containers.
    pub(crate) errors: Vec<DockerError>,
    /// Id and name of those of which Docker does not tell, and why.
    pub(crate) failed: Vec<(String, String, Arc<DockerError>)>,
}

impl Containers {
    /// Every running container of Daytona's that Docker tells of within
    /// `patience`.
    pub(crate) fn look(&mut self, proc: &ProcRoot, socket: &Path, patience: Duration) -> Round {
        let deadline = Instant::now() + patience;
        let mut round = Round::default();
        let asked = Docker::connect(socket).and_then(|mut docker| {
            let list = docker.list(patience)?;
            self.known.retain(|id, _| list.containers.contains_key(id));
            let left = self.ask(proc, &mut docker, &list, deadline)?;
            Ok((list, left))
        });
        match asked {
            Ok((list, left)) => {
                let counted = [
                    (list.odd, DockerError::Odd as fn(usize) -> _),
                    (list.beyond, DockerError::TooMany),
                    (left, DockerError::Unfinished),
                ];
                let counted = counted.into_iter().filter(|(count, _)| *count > 0);
                round.errors = counted.map(|(count, error)| error(count)).collect();
                round.failed = self.failed(&list);
            }
            Err(error) => round.errors.push(error),
        }
        round.found = self.living(proc);
        round
    }

    /// Returns how many there was no time for, of those that nobody asked for
    /// before.
    fn ask(
        &mut self,
        proc: &ProcRoot,
        docker: &mut Docker,
        list: &List,
        deadline: Instant,
    ) -> Result<usize, DockerError> {
        let order = self.order(proc, list);
        for (done, id) in order.iter().enumerate() {
            if deadline.saturating_duration_since(Instant::now()) < ONE {
                let left = order.iter().skip(done);
                return Ok(left.filter(|id| !self.known.contains_key(*id)).count());
            }
            self.turn.clone_from(id);
            match docker.inspect(id, ONE) {
                Err(error @ DockerError::Connect(_)) => return Err(error),
                Err(why) => self.note_failure(id, why),
                Ok(Word::Other) => _ = self.known.insert(id.clone(), Known::Other),
                // It may run by the next round.
                Ok(Word::Rests) => _ = self.known.remove(id),
                Ok(Word::Runs(container)) => self.note(proc, *container),
            }
        }
        Ok(0)
    }

    /// Those that are new; those that failed and whose time has come; those
    /// whose process is another one by now; and some of all others in turns.
    fn order(&mut self, proc: &ProcRoot, list: &List) -> Vec<String> {
        let (mut order, mut due, mut again) = (Vec::new(), Vec::new(), Vec::new());
        for id in list.containers.keys() {
            match self.known.get_mut(id) {
                None => order.push(id.clone()),
                Some(Known::Other) => {}
                Some(Known::Failed { wait: 0, .. }) => due.push(id.clone()),
                Some(Known::Failed { wait, .. }) => *wait -= 1,
                Some(Known::Ours { container, start }) => {
                    match held(proc, container, *start) {
                        Some(_) => again.push(id.clone()),
                        None => order.push(id.clone()),
                    };
                }
            }
        }
        let split = again.partition_point(|id| *id <= self.turn);
        again.rotate_left(split);
        again.truncate(AGAIN);
        order.extend(due);
        order.extend(again);
        order
    }

    fn note(&mut self, proc: &ProcRoot, container: Container) {
        // One whose process is gone already is looked at in the next round.
        if let Ok(process) = proc.process(container.pid) {
            let start = process.start_ticks();
            let id = container.id.clone();
            self.known.insert(id, Known::Ours { container, start });
        } else {
            self.known.remove(&container.id);
        }
    }

    fn note_failure(&mut self, id: &str, why: DockerError) {
        let next = match self.known.get(id) {
            Some(Known::Failed { next, .. }) => *next,
            _ => 1,
        };
        let failed = Known::Failed {
            why: Arc::new(why),
            wait: next,
            next: (next * 2).min(MAX_WAIT),
        };
        self.known.insert(id.to_owned(), failed);
    }

    fn failed(&self, list: &List) -> Vec<(String, String, Arc<DockerError>)> {
        let failed = self.known.iter().filter_map(|(id, known)| match known {
            Known::Failed { why, .. } => {
                let name = list.containers.get(id).cloned().unwrap_or_default();
                Some((id.clone(), name, Arc::clone(why)))
            }
            _ => None,
        });
        failed.collect()
    }

    fn living(&self, proc: &ProcRoot) -> Vec<(Process, Container)> {
        let living = self.known.values().filter_map(|known| match known {
            Known::Ours { container, start } => {
                Some((held(proc, container, *start)?, container.clone()))
            }
            _ => None,
        });
        living.collect()
    }
}

/// The container's process, unless that is another one by now.
fn held(proc: &ProcRoot, container: &Container, start: u64) -> Option<Process> {
    let process = proc.process(container.pid).ok()?;
    (process.start_ticks() == start).then_some(process)
}
