//! Plays the script that arrives on standard input.
//!
//! The script is also the signal to start: until its line is complete the agent does nothing,
//! so that a watcher can attach first.

use std::io::{self, BufRead};
use std::path::Path;

use sandtrace_guest::{Message, Script, agent};

use crate::{init, say};

/// The longest script, in bytes.
const MAX_SCRIPT: u64 = 1 << 20;

pub(crate) fn run(root: Option<&Path>) -> Result<(), String> {
    let script = read_script(io::stdin().lock())?;
    if let Some(root) = root {
        enter(root).map_err(|error| format!("change root to {}: {error}", root.display()))?;
    } else if std::process::id() == 1 {
        init::mount_proc().map_err(|error| format!("mount /proc: {error}"))?;
    }
    agent::run(&script, Path::new("/"), &mut |report| {
        say(&Message::Step(report));
    })
    .map_err(|error| error.to_string())?;
    say(&Message::Done { done: true });
    Ok(())
}

fn enter(root: &Path) -> io::Result<()> {
    std::os::unix::fs::chroot(root)?;
    std::env::set_current_dir("/")
}

fn read_script(input: impl BufRead) -> Result<Script, String> {
    let mut line = String::new();
    let read = input.take(MAX_SCRIPT).read_line(&mut line);
    read.map_err(|error| format!("read the script: {error}"))?;
    serde_json::from_str(&line).map_err(|error| format!("understand the script: {error}"))
}
