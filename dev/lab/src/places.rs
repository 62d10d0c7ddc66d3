//! Where the lab keeps things, and the environment variables that move them.

use std::env;
use std::path::PathBuf;

/// Names the directory of what is kept between runs: the kernel.
pub const STATE_VARIABLE: &str = "SANDTRACE_LAB_STATE";
/// Names the static guest program.
pub const GUEST_VARIABLE: &str = "SANDTRACE_GUEST";

const STATE: &str = "/var/lib/sandtrace/lab";
/// Records of running labs; gone after a restart of the machine, as the labs are.
pub(crate) const RUN: &str = "/run/sandtrace-lab";

pub(crate) fn state() -> PathBuf {
    env::var_os(STATE_VARIABLE).map_or_else(|| STATE.into(), PathBuf::from)
}

pub(crate) fn guest_from_environment() -> Option<PathBuf> {
    env::var_os(GUEST_VARIABLE).map(PathBuf::from)
}

/// A real program to run beside its stand-in: `SANDTRACE_TEST_FIRECRACKER`,
/// `SANDTRACE_TEST_JAILER`, `SANDTRACE_TEST_CLOUD_HYPERVISOR`.
pub(crate) fn vmm_from_environment(name: &str) -> Option<PathBuf> {
    let name = name.to_uppercase().replace('-', "_");
    env::var_os(format!("SANDTRACE_TEST_{name}")).map(PathBuf::from)
}
