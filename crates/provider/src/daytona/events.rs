//! Docker's events as they come (docs.docker.com/reference/api/engine,
//! `SystemEvents`).

use super::docker::{Docker, DockerError, is_id};
use super::rounds::ONE;
use crate::http::{Client, HttpError};
use crate::{DiscoverConfig, ProcRoot, Sighting};
use sandtrace_sys::process::connect_at_once;
use serde::Deserialize;
use std::time::Duration;

/// Longest event: it repeats all labels of its container.
const MAX_EVENT: usize = 1 << 20;

/// Longest wait for the head of the answer, which comes before any event.
const HEAD: Duration = Duration::from_secs(2);

/// `{"type":["container"],"event":["start","pause","unpause"]}`. How one ends
/// its process says.
const PATH: &str = "/events?filters=%7B%22type%22%3A%5B%22container%22%5D%2C\
    %22event%22%3A%5B%22start%22%2C%22pause%22%2C%22unpause%22%5D%7D";

/// Docker's events of containers.
pub struct ContainerEvents {
    client: Client,
    /// Bytes of an event that is not there in whole.
    rest: Vec<u8>,
}

/// What became of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerEvent {
    /// Docker's id of it.
    pub id: String,
    /// Whether it started; otherwise it was paused, or goes on.
    pub started: bool,
}

/// The members that are looked at: the others repeat labels.
#[derive(Deserialize)]
struct Event {
    #[serde(rename = "Action")]
    action: String,
    #[serde(rename = "Actor")]
    actor: Actor,
}

#[derive(Deserialize)]
struct Actor {
    #[serde(rename = "ID")]
    id: String,
}

impl ContainerEvents {
    /// Asks Docker to tell from now on.
    ///
    /// # Errors
    /// When nobody listens, or Docker refuses.
    pub fn open(config: &DiscoverConfig) -> Result<Self, DockerError> {
        let stream = connect_at_once(&config.docker_socket).map_err(DockerError::Connect)?;
        let mut client = Client::new(stream, HEAD, MAX_EVENT);
        match client.open_stream(PATH).map_err(failed)? {
            200 => Ok(Self {
                client,
                rest: Vec::new(),
            }),
            status => Err(DockerError::Status(NAME.to_owned(), status)),
        }
    }

    /// The next event; `None` where none came within `patience`.
    ///
    /// # Errors
    /// When Docker does not go on, or what it says is no event any more.
    pub fn next(&mut self, patience: Duration) -> Result<Option<ContainerEvent>, DockerError> {
        loop {
            while let Some(end) = self.rest.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                // One that cannot be read the next look at all containers makes good.
                if let Some(event) = parse(&line) {
                    return Ok(Some(event));
                }
            }
            if self.rest.len() > MAX_EVENT {
                return Err(failed(HttpError::LongBody(MAX_EVENT)));
            }
            match self.client.next_piece(patience).map_err(failed)? {
                Some(piece) => self.rest.extend(piece),
                None => return Ok(None),
            }
        }
    }
}

/// How messages call it.
const NAME: &str = "/events";

fn failed(error: HttpError) -> DockerError {
    DockerError::Http(NAME.to_owned(), Box::new(error))
}

fn parse(line: &[u8]) -> Option<ContainerEvent> {
    let event: Event = serde_json::from_slice(line).ok()?;
    let started = match event.action.as_str() {
        "start" => true,
        "pause" | "unpause" => false,
        _ => return None,
    };
    let id = event.actor.id;
    is_id(&id).then_some(ContainerEvent { id, started })
}

impl Sighting {
    /// One container by Docker's id of it, within half a second. `None` where
    /// it is none of Daytona's, or does not run.
    ///
    /// # Errors
    /// When Docker does not tell.
    pub fn of_container_id(
        proc: &ProcRoot,
        config: &DiscoverConfig,
        id: &str,
    ) -> Result<Option<Self>, DockerError> {
        let mut docker = Docker::connect(&config.docker_socket)?;
        let Some(container) = docker.inspect(id, ONE)?.runs() else {
            return Ok(None);
        };
        let process = proc.process(container.pid).ok();
        Ok(process.map(|process| Self::of_container(process, container)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events() {
        let id = "0f".repeat(32);
        let event = |action: &str| {
            let json = format!(
                r#"{{"status":"{action}","id":"{id}","from":"i","Type":"container","Action":"{action}","Actor":{{"ID":"{id}","Attributes":{{"name":"x","token":"t"}}}},"scope":"local","time":1,"timeNano":2}}"#
            );
            parse(json.as_bytes()).map(|event| event.started)
        };
        assert_eq!(event("start"), Some(true));
        assert_eq!(event("unpause"), Some(false));
        assert_eq!(event("exec_start: sh"), None);
        assert_eq!(parse(br#"{"Action":"start","Actor":{"ID":"../x"}}"#), None);
        assert_eq!(parse(b"\n"), None);
    }
}
