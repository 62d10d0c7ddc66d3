//! The scripted agent: what it does inside the sandbox, for real, over real sockets and files.
//!
//! It knows nothing of being watched and needs nothing but the sandbox's own network and
//! file system: no shared libraries, no resolver library, no certificates but the script's.

mod disorder;
mod dns;
mod files;
mod form;
pub mod hosts;
mod http;
mod https;
mod memory;
mod stories;
mod work;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;

use crate::{Report, Scenario, Script};
use files::Root;
use http::Response;
use https::Https;

pub use disorder::DISORDER;
pub use stories::{CRON_JOB, MEMORY, NEW_TASK_LINE, SHELL_CACHE};
pub use work::DIGEST;

/// Why the agent could not play its part to the end.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The script's authority is no certificate.
    #[error("trust the certificate of the script: {0}")]
    Trust(String),
    /// A file of the sandbox.
    #[error("{doing} {path}: {source}")]
    File {
        /// `read`, `write` or `delete`.
        doing: &'static str,
        /// The path as the agent knows it.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// A name has no address.
    #[error("resolve {name}: {detail}")]
    Resolve {
        /// The name.
        name: String,
        /// What the resolver said, or that it said nothing.
        detail: String,
    },
    /// A conversation with a server failed.
    #[error("{doing} {host}: {source}")]
    Network {
        /// `connect to`, `shake hands with`, `talk to`.
        doing: &'static str,
        /// The server's name.
        host: String,
        /// The cause.
        source: io::Error,
    },
    /// A server refused what an honest agent may do.
    #[error("{host} answered with status {status}")]
    Refused {
        /// The server's name.
        host: String,
        /// The HTTP status.
        status: u16,
    },
    /// The file that should carry an instruction carries none.
    #[error("find an instruction in {path}: {detail}")]
    Instruction {
        /// The file.
        path: String,
        /// What is wrong with it.
        detail: String,
    },
}

/// Plays the script's scenario below `root` (`/` in a sandbox) and hands every step to
/// `report` as soon as it is done.
///
/// # Errors
/// When a step that the story needs fails. A step that a sandbox may well forbid (the post
/// to a foreign host) is reported as failed, and the story goes on.
pub fn run(script: &Script, root: &Path, report: &mut dyn FnMut(Report)) -> Result<(), AgentError> {
    let mut agent = Agent {
        resolver: script.network.resolver,
        tls: https::trusting(&script.ca_pem)?,
        root: Root::new(root),
        report,
    };
    match script.scenario {
        Scenario::StripeExfil => stories::stripe_exfil(&mut agent),
        Scenario::PersistPlant => stories::persist_plant(&mut agent),
        Scenario::PersistAct => stories::persist_act(&mut agent),
        Scenario::Work => work::work(&mut agent),
        Scenario::Disorder { seed, operations } => disorder::disorder(&mut agent, seed, operations),
    }
}

/// The agent's hands: each method does one thing and tells of it.
struct Agent<'a> {
    resolver: Ipv4Addr,
    tls: Arc<ClientConfig>,
    root: Root,
    report: &'a mut dyn FnMut(Report),
}

impl Agent<'_> {
    fn tell(&mut self, step: &str, detail: String) {
        (self.report)(Report {
            step: step.to_owned(),
            detail,
        });
    }

    fn read(&mut self, path: &str) -> Result<String, AgentError> {
        let text = self.root.read(path)?;
        self.tell("read", format!("Reads {path}, {} bytes.", text.len()));
        Ok(text)
    }

    fn write(&mut self, path: &str, contents: &str) -> Result<(), AgentError> {
        self.root.write(path, contents)?;
        self.tell("write", format!("Writes {path}, {} bytes.", contents.len()));
        Ok(())
    }

    fn append(&mut self, path: &str, line: &str) -> Result<(), AgentError> {
        self.root.append(path, line)?;
        self.tell(
            "append",
            format!("Adds {} bytes at the end of {path}.", line.len()),
        );
        Ok(())
    }

    fn delete(&mut self, path: &str) -> Result<(), AgentError> {
        self.root.delete(path)?;
        self.tell("delete", format!("Deletes {path}."));
        Ok(())
    }

    fn resolve(&mut self, host: &str) -> Result<Ipv4Addr, AgentError> {
        let address = dns::lookup(self.resolver, host)?;
        self.tell("resolve", format!("Resolves {host} to {address}."));
        Ok(address)
    }

    fn connect_tls(&mut self, host: &str) -> Result<Https, AgentError> {
        let address = self.resolve(host)?;
        let connection = Https::connect(SocketAddr::from((address, 443)), host, &self.tls)?;
        self.tell(
            "connect",
            format!("Opens a TLS 1.3 connection to {host}:443."),
        );
        Ok(connection)
    }

    fn post(&mut self, to: &mut Https, path: &str, body: &str) -> Result<Response, AgentError> {
        let request = http::post(to.host(), path, body);
        let response = to.exchange(&request)?;
        self.tell(
            "post",
            format!(
                "Posts {} bytes to https://{}{path}; status {}.",
                request.len(),
                to.host(),
                response.status
            ),
        );
        Ok(response)
    }

    fn get_plain(&mut self, host: &str, path: &str) -> Result<Response, AgentError> {
        let address = self.resolve(host)?;
        let request = http::get(host, path);
        let response = http::fetch(SocketAddr::from((address, 80)), host, &request)?;
        self.tell(
            "get",
            format!("Fetches http://{host}{path}; status {}.", response.status),
        );
        Ok(response)
    }
}

/// The path that an absolute path of the sandbox has below another root.
fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}
