//! As much of the Docker Engine API as tells which containers are Daytona's
//! (docs.docker.com/reference/api/engine, `ContainerList` and
//! `ContainerInspect`). Requests without a version get the newest one.

use crate::http::{Client, HttpError};
use sandtrace_sys::process::connect_at_once;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Longest answer: a thousand containers take about 2 MB.
const MAX_BODY: usize = 32 << 20;

/// Most containers that are looked at.
const MAX_CONTAINERS: usize = 4096;

/// Most mounts of a container that are told of.
const MAX_MOUNTS: usize = 64;

/// A running container of Daytona's.
#[derive(Debug)]
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
    /// The answer is something else.
    #[error("GET {0}: {1}")]
    Json(String, serde_json::Error),
    /// Time was over before each container was asked for.
    #[error("no time was left to ask for {0} of the containers")]
    Unfinished(usize),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
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

/// The two variables that the runner sets. All others may be secrets and are
/// forgotten while they are read.
#[derive(Default)]
struct Environment {
    sandbox: Option<String>,
    snapshot: Option<String>,
}

/// Every running container of Daytona's that Docker tells of until `deadline`,
/// and what came in between.
pub(crate) fn containers(
    socket: &Path,
    deadline: Instant,
) -> (Vec<Container>, Option<DockerError>) {
    let mut found = Vec::new();
    let result = collect(socket, deadline, &mut found);
    (found, result.err())
}

fn collect(
    socket: &Path,
    deadline: Instant,
    found: &mut Vec<Container>,
) -> Result<(), DockerError> {
    let mut client = client(socket, deadline)?;
    let listed: Vec<Listed> = get(&mut client, "/containers/json")?;
    let ids = listed.into_iter().map(|listed| listed.id);
    let ids: Vec<_> = ids.filter(|id| is_id(id)).take(MAX_CONTAINERS).collect();
    for (done, id) in ids.iter().enumerate() {
        match inspect(&mut client, id) {
            Ok(container) => found.extend(container),
            // It ended between the two questions.
            Err(DockerError::Status(_, 404)) => {}
            Err(_) if Instant::now() >= deadline => {
                return Err(DockerError::Unfinished(ids.len() - done));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether the container still runs as the process that it was.
pub(crate) fn is_same(socket: &Path, container: &Container, deadline: Instant) -> bool {
    let now = client(socket, deadline).and_then(|mut client| inspect(&mut client, &container.id));
    matches!(now, Ok(Some(now)) if now.pid == container.pid)
}

fn client(socket: &Path, deadline: Instant) -> Result<Client, DockerError> {
    let stream = connect_at_once(socket).map_err(DockerError::Connect)?;
    let patience = deadline.saturating_duration_since(Instant::now());
    Ok(Client::new(stream, patience, MAX_BODY))
}

fn inspect(client: &mut Client, id: &str) -> Result<Option<Container>, DockerError> {
    let inspected: Inspected = get(client, &format!("/containers/{id}/json"))?;
    Ok(inspected.into_container(id))
}

fn get<T: for<'a> Deserialize<'a>>(client: &mut Client, path: &str) -> Result<T, DockerError> {
    let failed = |error: HttpError| DockerError::Http(path.to_owned(), Box::new(error));
    let answer = client.get(path).map_err(failed)?;
    if answer.status != 200 {
        return Err(DockerError::Status(path.to_owned(), answer.status));
    }
    serde_json::from_slice(&answer.body).map_err(|error| DockerError::Json(path.to_owned(), error))
}

fn is_id(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Inspected {
    /// `None` for a container of anybody else, or one that does not run.
    fn into_container(self, id: &str) -> Option<Container> {
        let labels = self.config.labels.unwrap_or_default();
        let environment = self.config.env.unwrap_or_default();
        let labelled = labels.keys().any(|name| name.starts_with("daytona."));
        let is_daytonas = labelled || environment.sandbox.is_some();
        if !is_daytonas || !self.state.running || self.state.pid == 0 {
            return None;
        }
        let name = self.name.strip_prefix('/').unwrap_or(&self.name).to_owned();
        let mode = self.host_config.network_mode.as_str();
        let upper = self.graph_driver.and_then(|driver| driver.data?.upper_dir);
        let mounts = self.mounts.unwrap_or_default().into_iter();
        Some(Container {
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
        })
    }
}

impl<'de> Deserialize<'de> for Environment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Variables;

        impl<'de> Visitor<'de> for Variables {
            type Value = Environment;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of variables")
            }

            fn visit_unit<E>(self) -> Result<Environment, E> {
                Ok(Environment::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Environment, A::Error> {
                let mut environment = Environment::default();
                while let Some(variable) = list.next_element::<String>()? {
                    let (name, value) = variable.split_once('=').unwrap_or_default();
                    match name {
                        "DAYTONA_SANDBOX_ID" => environment.sandbox = Some(value.to_owned()),
                        "DAYTONA_SANDBOX_SNAPSHOT" => environment.snapshot = Some(value.to_owned()),
                        _ => {}
                    }
                }
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(environment)
            }
        }
        deserializer.deserialize_any(Variables)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Option<Container> {
        let inspected: Inspected = serde_json::from_str(json).unwrap();
        inspected.into_container(&"0".repeat(64))
    }

    #[test]
    fn daytonas_containers() {
        let json = r#"{"Name":"/6c1d","State":{"Pid":77,"Running":true,"Status":"running"},
            "Config":{"Labels":{"daytona.organization_id":"org","token":"CANARY-1"},
                      "Env":["DAYTONA_SANDBOX_ID=6c1d","DAYTONA_SANDBOX_SNAPSHOT=py","API_KEY=CANARY-2","odd"]},
            "HostConfig":{"NetworkMode":"runner-bridge"},
            "GraphDriver":{"Name":"overlay2","Data":{"UpperDir":"/var/lib/docker/overlay2/x/diff"}},
            "Mounts":[{"Type":"bind","Destination":"/vol","RW":true},{"Destination":"/ro","RW":false}]}"#;
        let container = parse(json).unwrap();
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
        assert!(parse(&json("null", true)).is_none());
        assert!(parse(&json(r#"["PATH=/bin"]"#, true)).is_none());
        assert!(parse(&json(r#"["DAYTONA_SANDBOX_ID=x"]"#, false)).is_none());
        assert!(parse(&json(r#"["DAYTONA_SANDBOX_ID=x"]"#, true)).is_some());
    }

    #[test]
    fn ids_are_hexadecimal() {
        assert!(is_id(&"0f".repeat(32)));
        assert!(!is_id("0f"));
        assert!(!is_id(&"../".repeat(22)));
    }
}
