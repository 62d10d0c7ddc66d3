//! `sandtrace keys`, and the host's key that vouches for every trail's.

use crate::args::{KeysCommand, KeysShowArgs, StateArgs};
use crate::config;
use crate::exit::{Exit, Failure, OrExit as _};
use crate::show;
use anyhow::Context as _;
use sandtrace_audit_chain::checkpoint::hand_over;
use sandtrace_audit_chain::key_file::{self, KeyFileError};
use sandtrace_audit_chain::note::{Algorithm, SigningKey};
use sandtrace_output::terminal::ascii_json;
use serde_json::{Value, json};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

const KEY: &str = "host.key";
/// Keys that were replaced, a line of JSON each: `vkey`, and `hand_over`, the
/// note in which it names its successor.
const HISTORY: &str = "host.history";
/// Longest history that is read.
const MAX_HISTORY: u64 = 1 << 20;

pub(crate) fn run(command: &KeysCommand) -> Result<Exit, Failure> {
    match command {
        KeysCommand::Init(state) => init(state),
        KeysCommand::Show(args) => show_key(args),
        KeysCommand::Rotate(state) => rotate(state),
    }
}

/// The host's key; made where there is none, which is told.
pub(crate) fn host_key(dir: &Path) -> Result<Arc<SigningKey>, Failure> {
    let (key, path) = loaded_or_made(dir)?;
    if let Some(path) = path {
        show::tell(&format!(
            "sandtrace: made this host's signing key {}; give auditors its verifier key:\n  {}",
            path.display(),
            key.verifier()
        ));
    }
    Ok(key)
}

/// The host's key, and where it is if it was made just now.
pub(crate) fn loaded_or_made(dir: &Path) -> Result<(Arc<SigningKey>, Option<PathBuf>), Failure> {
    let path = dir.join(KEY);
    match key_file::load(&path) {
        Err(KeyFileError::Missing { .. }) => {}
        loaded => {
            let key = loaded.or_exit(Exit::NoPermission)?;
            return Ok((Arc::new(key), None));
        }
    }
    match create(dir) {
        // Another process was faster.
        Err(KeyFileError::Exists { .. }) => {
            let key = key_file::load(&path).or_exit(Exit::NoPermission)?;
            Ok((Arc::new(key), None))
        }
        created => {
            let key = created
                .with_context(|| {
                    format!(
                        "make this host's key in {} (--state-dir DIR chooses another place)",
                        dir.display()
                    )
                })
                .or_exit(Exit::CannotCreate)?;
            Ok((Arc::new(key), Some(path)))
        }
    }
}

fn init(state: &StateArgs) -> Result<Exit, Failure> {
    let dir = directory_of(state)?;
    let key = create(&dir).or_exit(Exit::CannotCreate)?;
    print(&key.verifier().to_string())
}

fn show_key(args: &KeysShowArgs) -> Result<Exit, Failure> {
    let dir = directory_of(&args.state)?;
    let path = dir.join(KEY);
    let key = key_file::load(&path).map_err(|error| {
        let exit = match &error {
            KeyFileError::Missing { .. } => Exit::Unavailable,
            _ => Exit::NoPermission,
        };
        Failure {
            exit,
            error: anyhow::Error::from(error).context("sandtrace keys init makes one"),
        }
    })?;
    let verifier = key.verifier();
    if !args.json {
        return print(&verifier.to_string());
    }
    let earlier = history(&dir).or_exit(Exit::Malformed)?;
    let answer = json!({
        "path": path.display().to_string(),
        "name": verifier.name(),
        "id": verifier.id().to_string(),
        "vkey": verifier.to_string(),
        "earlier": earlier,
    });
    print(&ascii_json(&answer.to_string()))
}

/// Makes the next key, has the old one vouch for it, and overwrites the old one.
fn rotate(state: &StateArgs) -> Result<Exit, Failure> {
    let dir = directory_of(state)?;
    let path = dir.join(KEY);
    let old = key_file::load(&path).or_exit(Exit::Unavailable)?;
    let next = random_key(old.verifier().name()).or_exit(Exit::Internal)?;
    let note = hand_over(next.verifier(), &old).or_exit(Exit::Internal)?;
    let replaced = json!({
        "vkey": old.verifier().to_string(),
        "hand_over": note.to_string(),
    });
    let next_path = dir.join("host.key.next");
    key_file::create(&next_path, &next).or_exit(Exit::CannotCreate)?;
    append_history(&dir, &replaced)
        .and_then(|()| put_in_place(&path, &next_path))
        .with_context(|| format!("replace the key {}", path.display()))
        .or_exit(Exit::Io)?;
    show::tell(
        "sandtrace: trails that are being written keep the key that they were certified with; \
         give auditors the new verifier key",
    );
    print(&next.verifier().to_string())
}

fn create(dir: &Path) -> Result<SigningKey, KeyFileError> {
    let path = dir.join(KEY);
    let failed = |doing| {
        let path = path.clone();
        move |source| KeyFileError::Io {
            doing,
            path,
            source,
        }
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(failed("making the directory of"))?;
    let key = random_key(&host_name())
        .map_err(io::Error::other)
        .map_err(failed("making"))?;
    key_file::create(&path, &key)?;
    Ok(key)
}

/// Name of this host's key and of its trails' origins.
pub(crate) fn host_name() -> String {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy();
    let safe = |char: char| char.is_ascii_alphanumeric() || "._-".contains(char);
    let name: String = name
        .chars()
        .map(|char| if safe(char) { char } else { '-' })
        .collect();
    format!("sandtrace/{name}")
}

fn random_key(name: &str) -> anyhow::Result<SigningKey> {
    let mut secret = Zeroizing::new([0; 32]);
    rustix::rand::getrandom(secret.as_mut_slice(), rustix::rand::GetRandomFlags::empty())
        .context("get random bytes for a key")?;
    Ok(SigningKey::new(name, Algorithm::Ed25519, &secret)?)
}

/// The new key takes the place of the old one, whose bytes are overwritten
/// before its last name goes.
fn put_in_place(path: &Path, next: &Path) -> io::Result<()> {
    let old = path.with_extension("key.old");
    fs::rename(path, &old)?;
    fs::rename(next, path)?;
    let mut file = OpenOptions::new().write(true).open(&old)?;
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(0);
    file.write_all(&vec![0; length])?;
    file.sync_all()?;
    fs::remove_file(&old)?;
    fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

fn append_history(dir: &Path, replaced: &Value) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .open(dir.join(HISTORY))?;
    writeln!(file, "{replaced}")?;
    file.sync_all()
}

fn history(dir: &Path) -> anyhow::Result<Vec<Value>> {
    use io::Read as _;
    let path = dir.join(HISTORY);
    let mut text = String::new();
    match fs::File::open(&path) {
        Ok(file) => file.take(MAX_HISTORY).read_to_string(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("read {}", path.display())))
        .collect()
}

fn print(line: &str) -> Result<Exit, Failure> {
    writeln!(io::stdout().lock(), "{line}").or_exit(Exit::Io)?;
    Ok(Exit::Success)
}

/// Where this host's key is, by the command line, the environment or the
/// settings file.
pub(crate) fn directory_of(args: &StateArgs) -> Result<PathBuf, Failure> {
    directory(config::state_dir(args)?.as_deref())
}

/// Where it is, where it was said or at the usual place.
pub(crate) fn directory(named: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(dir) = named {
        return Ok(dir.to_owned());
    }
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/sandtrace".into());
    }
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    set("XDG_STATE_HOME")
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".local/state")))
        .map(|dir| dir.join("sandtrace"))
        .ok_or_else(|| {
            let message = "no place for this host's key: give --state-dir DIR";
            Failure::new(Exit::Usage, message)
        })
}
