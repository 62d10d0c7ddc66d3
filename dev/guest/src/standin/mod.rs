//! Stands in for a VMM: the same arguments, API, open files and packets, and
//! no guest. Started under the VMM's name (argv\[0\]).

mod api;
mod cloud_hypervisor;
mod config;
mod firecracker;
mod libkrun;
mod machine;
mod tcp;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

/// Whom it stands in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vmm {
    Firecracker,
    CloudHypervisor,
    Libkrun,
}

impl Vmm {
    pub(crate) fn called(program: &OsStr) -> Option<Self> {
        match Path::new(program).file_name()?.to_str()? {
            "firecracker" => Some(Self::Firecracker),
            "cloud-hypervisor" => Some(Self::CloudHypervisor),
            "msbrun" => Some(Self::Libkrun),
            _ => None,
        }
    }
}

/// Runs until it is killed.
pub(crate) fn run(vmm: Vmm, args: &[OsString]) -> ExitCode {
    let args: Vec<String> = args
        .iter()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let outcome = match vmm {
        Vmm::Firecracker => firecracker::run(&args),
        Vmm::CloudHypervisor => cloud_hypervisor::run(&args),
        Vmm::Libkrun => libkrun::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            use std::io::Write;
            // Nobody listens in a jail; the exit code tells as well.
            let _ = writeln!(std::io::stderr(), "{why}");
            ExitCode::FAILURE
        }
    }
}

/// The value after an option.
fn option<'a>(args: &'a [String], name: &str) -> Option<&'a str> {
    let at = args.iter().position(|arg| arg == name)?;
    args.get(at + 1).map(String::as_str)
}
