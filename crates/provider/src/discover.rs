//! Finding sandboxes: all of them, or one by its id.

use crate::claims::quoted;
use crate::daytona::{self, Containers, DockerError};
use crate::describe::describe;
use crate::inspect::{Namespaces, Wanted};
use crate::sighting::Sighting;
use crate::{DiscoverConfig, FindError, Found, ProcRoot, ProviderKind, Target, is_valid_id};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Threads that ask APIs at the same time: one that hangs does not hold up
/// the others.
const ASKING: usize = 16;

/// How long Docker may take to list its containers while a VMM waits.
const AT_ONCE: Duration = Duration::from_millis(250);

/// What there is on a host.
#[derive(Debug, Default)]
pub struct Discovery {
    /// Every sandbox, in ascending order of pids.
    pub targets: Vec<Target>,
    /// Sandboxes that could not be looked at, and ids that are not unique.
    pub problems: Vec<Problem>,
}

/// Something that discovery could not do.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// A sandbox that could not be looked at, or an id that is not unique.
    #[error(transparent)]
    Find(#[from] FindError),
    /// A sandbox whose own id cannot be one here.
    #[error("process {pid} calls itself {}, which cannot be a sandbox id; it is listed as {id}", quoted(.claimed))]
    UnusableId {
        /// The process.
        pid: u32,
        /// What it calls itself.
        claimed: String,
        /// What it is called here.
        id: String,
    },
    /// Docker did not tell all of its containers.
    #[error("Daytona's containers: Docker's API {}: {source}", .socket.display())]
    Docker {
        /// Where it was asked.
        socket: PathBuf,
        /// Why not.
        source: DockerError,
    },
    /// Docker did not tell of one container, which may be one of Daytona's.
    #[error("container {} ({}): Docker does not tell of it: {source}", quoted(.name), .id.get(..12).unwrap_or(.id))]
    Container {
        /// Docker's id of it.
        id: String,
        /// What it is called.
        name: String,
        /// Why not.
        source: Arc<DockerError>,
    },
}

impl Problem {
    /// What it is about, in words that stay the same while it lasts.
    #[must_use]
    pub fn topic(&self) -> String {
        match self {
            Self::Docker {
                source: DockerError::Unfinished(_),
                socket,
            } => format!("no time for {}", socket.display()),
            Self::Container { id, .. } => format!("container {id}"),
            other => other.to_string(),
        }
    }
}

/// Every sandbox of the host.
///
/// Asks each Firecracker's and each Cloud Hypervisor's API, which serves its
/// main loop: not to be done every second.
#[must_use]
pub fn discover(proc: &ProcRoot, config: &DiscoverConfig) -> Discovery {
    let deadline = Instant::now() + config.patience;
    let mut discovery = Discovery::default();
    let mut containers = Containers::default();
    let (sightings, problems) = match sightings(proc, config, &mut containers) {
        Ok(found) => found,
        Err(source) => {
            discovery.problems.push(FindError::List { source }.into());
            return discovery;
        }
    };
    discovery.problems.extend(problems);
    discovery.problems.extend(ids_that_are_wrong(&sightings));
    for described in describe_all(proc, config, &sightings, deadline) {
        match described {
            Ok(target) => discovery.targets.push(target),
            Err(error) => discovery.problems.push(error.into()),
        }
    }
    discovery
}

/// Every sandbox of the host, without asking any VMM, in ascending order of
/// pids, and what could not be looked at. Processes that end meanwhile, or
/// that may not be looked at at all, are none. `containers` is what earlier
/// looks learnt.
///
/// # Errors
/// When processes cannot be listed.
pub fn sightings(
    proc: &ProcRoot,
    config: &DiscoverConfig,
    containers: &mut Containers,
) -> io::Result<(Vec<Sighting>, Vec<Problem>)> {
    let mut found = vmms(proc, config)?;
    let (contained, problems) = contained(proc, config, containers);
    found.extend(contained);
    found.sort_by_key(Sighting::pid);
    Ok((found, problems))
}

/// The VMMs among the processes; asks nobody, so that it takes no time.
///
/// # Errors
/// When processes cannot be listed.
pub fn vmms(proc: &ProcRoot, config: &DiscoverConfig) -> io::Result<Vec<Sighting>> {
    let sighting = |pid| Sighting::of_process(proc, pid, config).ok()?;
    Ok(proc.pids()?.into_iter().filter_map(sighting).collect())
}

/// The containers of which Docker tells, which may take its time. A VMM inside
/// of one is found as itself; the container then is another sandbox around it.
pub fn contained(
    proc: &ProcRoot,
    config: &DiscoverConfig,
    containers: &mut Containers,
) -> (Vec<Sighting>, Vec<Problem>) {
    if !config.wants(ProviderKind::Daytona) {
        return Default::default();
    }
    // What is left of the time is for the others.
    let round = containers.look(proc, &config.docker_socket, config.patience / 2);
    let errors = round.errors.into_iter().filter(|error| {
        // A host without Docker has no containers of Daytona's.
        let absent =
            matches!(error, DockerError::Connect(why) if why.kind() == io::ErrorKind::NotFound);
        !absent || config.providers.contains(&ProviderKind::Daytona)
    });
    let general = errors.map(|source| Problem::Docker {
        socket: config.docker_socket.clone(),
        source,
    });
    let failed = round.failed.into_iter();
    let single = failed.map(|(id, name, source)| Problem::Container { id, name, source });
    let problems = general.chain(single).collect();
    let found = round.found.into_iter();
    let found = found.map(|(process, container)| Sighting::of_container(process, container));
    (found.collect(), problems)
}

fn ids_that_are_wrong(sightings: &[Sighting]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut by_id: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for sighting in sightings {
        by_id.entry(&sighting.id).or_default().push(sighting.pid());
        if let Some(claimed) = sighting.unusable_id.clone() {
            problems.push(Problem::UnusableId {
                pid: sighting.pid(),
                claimed,
                id: sighting.id.clone(),
            });
        }
    }
    for (id, pids) in by_id.into_iter().filter(|(_, pids)| pids.len() > 1) {
        let id = id.to_owned();
        problems.push(FindError::Ambiguous { id, pids }.into());
    }
    problems
}

fn describe_all(
    proc: &ProcRoot,
    config: &DiscoverConfig,
    sightings: &[Sighting],
    deadline: Instant,
) -> Vec<Result<Target, FindError>> {
    let namespaces = Namespaces::of(proc);
    let next = AtomicUsize::new(0);
    let described = Mutex::new(BTreeMap::new());
    let work = || {
        while let Some((place, sighting)) = take(sightings, &next) {
            let result = describe(sighting, &namespaces, Wanted::ALL, config, deadline);
            let mut described = described.lock().unwrap_or_else(|error| error.into_inner());
            described.insert(place, result);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..sightings.len().min(ASKING) {
            // Where the system gives no thread, there is one the less.
            let _missing = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    let described = described.into_inner();
    let described = described.unwrap_or_else(|error| error.into_inner());
    described.into_values().collect()
}

fn take<'a>(sightings: &'a [Sighting], next: &AtomicUsize) -> Option<(usize, &'a Sighting)> {
    let place = next.fetch_add(1, Ordering::Relaxed);
    sightings.get(place).map(|sighting| (place, sighting))
}

/// The sandbox of this id on this host.
///
/// # Errors
/// When the id is malformed, unknown (the error lists what there is) or
/// ambiguous, or the sandbox ends meanwhile.
pub fn find(id: &str) -> Result<Target, FindError> {
    find_in(&ProcRoot::host(), id, &DiscoverConfig::default())
}

/// As [`find`], among the processes of `proc`, with other settings.
///
/// # Errors
/// As for [`find`].
pub fn find_in(proc: &ProcRoot, id: &str, config: &DiscoverConfig) -> Result<Target, FindError> {
    let mut found = vmms(proc, config).map_err(|source| FindError::List { source })?;
    let mut problems = Vec::new();
    // A VMM does not wait for a Docker that is silent. One that is not says at once
    // whether a container has the same name, as which a program in it may pose.
    let is_vmms = found.iter().any(|it| it.answers_to(id));
    if !is_vmms || is_container(config, id) {
        let (contained, why) = contained(proc, config, &mut Containers::default());
        found.extend(contained);
        found.sort_by_key(Sighting::pid);
        problems = why;
    }
    let matching: Vec<_> = found.iter().filter(|it| it.answers_to(id)).collect();
    match matching.as_slice() {
        [only] => only.describe(proc, config, Instant::now() + config.patience),
        [] if is_valid_id(id) => Err(unknown(id, &found, problems)),
        [] => Err(FindError::InvalidId { id: id.to_owned() }),
        several => Err(FindError::Ambiguous {
            id: id.to_owned(),
            pids: several.iter().map(|it| it.pid()).collect(),
        }),
    }
}

fn is_container(config: &DiscoverConfig, id: &str) -> bool {
    config.wants(ProviderKind::Daytona) && daytona::lists(&config.docker_socket, id, AT_ONCE)
}

fn unknown(id: &str, sightings: &[Sighting], problems: Vec<Problem>) -> FindError {
    let found: Vec<Found> = sightings.iter().map(Sighting::found).collect();
    FindError::Unknown {
        id: id.to_owned(),
        found,
        problems,
    }
}
