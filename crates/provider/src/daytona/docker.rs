//! As much of the Docker Engine API as tells which containers are Daytona's
//! (docs.docker.com/reference/api/engine, `ContainerList` and
//! `ContainerInspect`). Requests without a version get the newest one.

use super::environment::Environment;
use super::rounds::ONE;
use crate::http::{Client, place_of};
use sandtrace_sys::clock;
use sandtrace_sys::process::{Process, connect_at_once};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest answer: a thousand containers take about 2 MB.
const MAX_BODY: usize = 32 << 20;

/// Most containers that are looked at.
const MAX_CONTAINERS: usize = 4096;

/// Most mounts of a container that are told of.
const MAX_MOUNTS: usize = 64;

/// A running container of Daytona's.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) pid: u32,
    pub(crate) labels: BTreeMap<String, String>,
    /// The snapshot that it was made from.
    pub(crate) template: Option<String>,
    pub(crate) upper: Option<PathBuf>,
    pub(crate) mounts: Vec<String>,
    pub(crate) shares_network: bool,
    /// When Docker was asked for it, in clock ticks since boot.
    asked_ticks: u64,
}

/// Why Docker's word cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// Nobody listens, or this program may not ask.
    #[error("connect: {0}")]
    Connect(io::Error),
    /// No whole answer came.
    #[error("GET {0}: {1}")]
    Http(String, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// Docker refused.
    #[error("GET {0}: status {1}")]
    Status(String, u16),
    /// The answer is something else, from this place on.
    #[error("GET {0}: the answer is malformed: {1}")]
    Json(String, String),
    /// Entries of the list that are none.
    #[error("GET /containers/json: {0} entries are malformed")]
    Odd(usize),
    /// More containers than are looked at.
    #[error("GET /containers/json: {0} containers are more than are looked at")]
    TooMany(usize),
    /// Time was over before each container was asked for.
    #[error("no time was left to ask for {0} of the containers")]
    Unfinished(usize),
}

/// One that is odd does not hide the others.
#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Whole(Listed),
    Odd(IgnoredAny),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    name: String,
    state: State,
    config: Config,
    #[serde(default)]
    host_config: HostConfig,
    #[serde(default)]
    graph_driver: Option<GraphDriver>,
    #[serde(default)]
    mounts: Option<Vec<Mount>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    pid: u32,
    running: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    env: Option<Environment>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    #[serde(default)]
    network_mode: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GraphDriver {
    #[serde(default)]
    data: Option<GraphData>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GraphData {
    #[serde(default)]
    upper_dir: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Mount {
    destination: String,
    #[serde(default, rename = "RW")]
    writable: bool,
}

/// What Docker says of the containers that run, with nothing asked twice.
pub(super) struct Docker {
    socket: PathBuf,
    client: Client,
    /// Whether an answer may still be on its way, so that what comes next
    /// would be taken for another's.
    spoilt: bool,
}

impl Docker {
    pub(super) fn connect(socket: &Path) -> Result<Self, DockerError> {
        Ok(Self {
            socket: socket.to_owned(),
            client: open(socket)?,
            spoilt: false,
        })
    }

    /// The containers that run.
    pub(super) fn list(&mut self, patience: Duration) -> Result<List, DockerError> {
        let entries: Vec<Entry> = self.get("/containers/json", patience)?;
        let mut list = List::default();
        for entry in entries {
            match entry {
                Entry::Whole(listed) if is_id(&listed.id) => {
                    if list.containers.len() < MAX_CONTAINERS {
                        list.containers.insert(listed.id, first_name(listed.names));
                    } else {
                        list.beyond += 1;
                    }
                }
                _ => list.odd += 1,
            }
        }
        Ok(list)
    }

    /// One container.
    pub(super) fn inspect(&mut self, id: &str, patience: Duration) -> Result<Word, DockerError> {
        let asked = now_ticks();
        match self.get::<Inspected>(&format!("/containers/{id}/json"), patience) {
            Ok(inspected) => Ok(inspected.into_word(id, asked)),
            Err(DockerError::Status(_, 404)) => Ok(Word::Rests),
            Err(error) => Err(error),
        }
    }

    fn get<T: for<'a> Deserialize<'a>>(
        &mut self,
        path: &str,
        patience: Duration,
    ) -> Result<T, DockerError> {
        if std::mem::replace(&mut self.spoilt, false) {
            self.client = open(&self.socket)?;
        }
        self.client.give(patience);
        let answer = self.client.get(path).map_err(|error| {
            self.spoilt = true;
            DockerError::Http(path.to_owned(), Box::new(error))
        })?;
        if answer.status != 200 {
            return Err(DockerError::Status(path.to_owned(), answer.status));
        }
        serde_json::from_slice(&answer.body)
            .map_err(|error| DockerError::Json(path.to_owned(), place_of(&error)))
    }
}

/// What Docker says of one container.
#[derive(Debug)]
pub(super) enum Word {
    /// Daytona's, and it runs.
    Runs(Box<Container>),
    /// Daytona's without a process, as while it restarts, or one that is gone.
    Rests,
    /// Anybody else's.
    Other,
}

impl Word {
    pub(super) fn runs(self) -> Option<Container> {
        match self {
            Self::Runs(container) => Some(*container),
            Self::Rests | Self::Other => None,
        }
    }
}

/// Whether Docker says within `patience` that a container of this name or id runs.
pub(crate) fn lists(socket: &Path, name: &str, patience: Duration) -> bool {
    let list = Docker::connect(socket).and_then(|mut docker| docker.list(patience));
    list.is_ok_and(|list| {
        let mut containers = list.containers.iter();
        containers.any(|(id, its)| id == name || its == name)
    })
}

/// The containers that run.
#[derive(Default)]
pub(super) struct List {
    /// Ids, and names for messages.
    pub(super) containers: BTreeMap<String, String>,
    /// How many more there are.
    pub(super) beyond: usize,
    /// How many entries are malformed.
    pub(super) odd: usize,
}

/// Whether this process is the container's: it ran already when Docker named its
/// pid. Of a younger one, which may have the pid after it, Docker is asked again,
/// until `deadline` and for [`ONE`] at least.
pub(crate) fn is_same(
    socket: &Path,
    container: &Container,
    process: &Process,
    deadline: Instant,
) -> Result<bool, DockerError> {
    if process.start_ticks() < container.asked_ticks {
        return Ok(true);
    }
    let patience = deadline.saturating_duration_since(Instant::now());
    let mut docker = Docker::connect(socket)?;
    let now = docker.inspect(&container.id, patience.max(ONE))?;
    Ok(now.runs().is_some_and(|now| now.pid == container.pid))
}

/// Linux counts start times in hundredths of a second since boot.
fn now_ticks() -> u64 {
    clock::boot_us() / 10_000
}

pub(super) fn open(socket: &Path) -> Result<Client, DockerError> {
    let stream = connect_at_once(socket).map_err(DockerError::Connect)?;
    Ok(Client::new(stream, Duration::ZERO, MAX_BODY))
}

fn first_name(names: Option<Vec<String>>) -> String {
    let name = names.unwrap_or_default().into_iter().next();
    let name = name.unwrap_or_default();
    name.strip_prefix('/').unwrap_or(&name).to_owned()
}

pub(super) fn is_id(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Inspected {
    fn into_word(self, id: &str, asked_ticks: u64) -> Word {
        let labels = self.config.labels.unwrap_or_default();
        let environment = self.config.env.unwrap_or_default();
        let labelled = labels.keys().any(|name| name.starts_with("daytona."));
        let is_daytonas = labelled || environment.sandbox.is_some();
        if !is_daytonas {
            return Word::Other;
        }
        if !self.state.running || self.state.pid == 0 {
            return Word::Rests;
        }
        let name = self.name.strip_prefix('/').unwrap_or(&self.name).to_owned();
        let mode = self.host_config.network_mode.as_str();
        let upper = self.graph_driver.and_then(|driver| driver.data?.upper_dir);
        let mounts = self.mounts.unwrap_or_default().into_iter();
        Word::Runs(Box::new(Container {
            id: id.to_owned(),
            name,
            pid: self.state.pid,
            labels,
            template: environment.snapshot,
            upper: upper.filter(|path| path.is_absolute()),
            mounts: mounts
                .filter(|mount| mount.writable)
                .map(|mount| mount.destination)
                .take(MAX_MOUNTS)
                .collect(),
            shares_network: mode == "host" || mode.starts_with("container:"),
            asked_ticks,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Word {
        let inspected: Inspected = serde_json::from_str(json).unwrap();
        inspected.into_word(&"0".repeat(64), 0)
    }

    #[test]
    fn daytonas_containers() {
        let json = r#"{"Name":"/6c1d","State":{"Pid":77,"Running":true,"Status":"running"},
            "Config":{"Labels":{"daytona.organization_id":"org","token":"CANARY-1"},
                      "Env":["DAYTONA_SANDBOX_ID=6c1d","DAYTONA_SANDBOX_SNAPSHOT=py","API_KEY=CANARY-2","odd"]},
            "HostConfig":{"NetworkMode":"runner-bridge"},
            "GraphDriver":{"Name":"overlay2","Data":{"UpperDir":"/var/lib/docker/overlay2/x/diff"}},
            "Mounts":[{"Type":"bind","Destination":"/vol","RW":true},{"Destination":"/ro","RW":false}]}"#;
        let container = parse(json).runs().unwrap();
        assert_eq!((container.name.as_str(), container.pid), ("6c1d", 77));
        assert_eq!(
            container.upper,
            Some("/var/lib/docker/overlay2/x/diff".into())
        );
        assert_eq!(container.mounts, ["/vol"]);
        assert!(!container.shares_network);
        let claims = container.claims();
        assert_eq!(claims.template.as_deref(), Some("py"));
        assert!(!format!("{claims:?}").contains("CANARY"));
    }

    #[test]
    fn other_containers_are_none() {
        let json = |env: &str, running: bool| {
            format!(
                r#"{{"Name":"/x","State":{{"Pid":7,"Running":{running}}},"Config":{{"Labels":null,"Env":{env}}},"GraphDriver":{{"Name":"overlayfs","Data":null}},"Mounts":null}}"#
            )
        };
        let of = |env, running| parse(&json(env, running));
        assert!(matches!(of("null", true), Word::Other));
        assert!(matches!(of(r#"["PATH=/bin"]"#, true), Word::Other));
        let daytonas = r#"["DAYTONA_SANDBOX_ID=x"]"#;
        assert!(matches!(of(daytonas, false), Word::Rests));
        assert!(matches!(of(daytonas, true), Word::Runs(_)));
    }

    #[test]
    fn ids_are_hexadecimal() {
        assert!(is_id(&"0f".repeat(32)));
        assert!(!is_id("0f"));
        assert!(!is_id(&"../".repeat(22)));
    }
}
