//! The program inside a lab sandbox: `/init` of the microVM, and the agent that plays a script.
//!
//! Started without arguments as process 1 it boots the VM and then starts itself again as
//! `agent --root /disk`. A namespace sandbox starts it as `agent` right away.
//! Called `firecracker`, `cloud-hypervisor` or `msbrun` it stands in for that VMM.

mod init;
mod play;
mod standin;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use sandtrace_guest::Message;

const USAGE: &str = "usage: sandtrace-guest agent [--root DIR] < script.json";

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    let args: Vec<OsString> = args.collect();
    if let Some(vmm) = standin::Vmm::called(&program) {
        return standin::run(vmm, &args);
    }
    let mode = Mode::from_args(&args, std::process::id());
    let outcome = match mode {
        Some(Mode::Init) => init::run(),
        Some(Mode::Agent { root }) => play::run(root.as_deref()),
        None => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            say(&Message::Failed { failed });
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Mode {
    Init,
    Agent { root: Option<PathBuf> },
}

impl Mode {
    fn from_args(args: &[OsString], pid: u32) -> Option<Self> {
        match args {
            [word] if word == "agent" => Some(Self::Agent { root: None }),
            [word, flag, root] if word == "agent" && flag == "--root" => Some(Self::Agent {
                root: Some(root.into()),
            }),
            // The kernel hands unknown words of its command line to /init.
            _ if pid == 1 => Some(Self::Init),
            _ => None,
        }
    }
}

/// Tells the lab something. A console that is gone is no reason to stop.
fn say(message: &Message) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{message}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(args: &[&str], pid: u32, expected: Option<&Mode>) {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        assert_eq!(Mode::from_args(&args, pid).as_ref(), expected);
    }

    #[test]
    fn modes() {
        check(&[], 1, Some(&Mode::Init));
        check(&["nopti"], 1, Some(&Mode::Init));
        check(&["agent"], 1, Some(&Mode::Agent { root: None }));
        let root = Some(PathBuf::from("/disk"));
        check(
            &["agent", "--root", "/disk"],
            9,
            Some(&Mode::Agent { root }),
        );
        check(&["agent", "--root"], 9, None);
        check(&[], 9, None);
    }
}
