//! A network namespace with one tap, removed at the end.

use anyhow::{Context as _, Result, bail};
use sandtrace_sys::netns;
use sandtrace_sys::tap::Tap;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Name of the tap; the namespace keeps it apart from all others.
pub(crate) const TAP: &str = "tap0";

/// A namespace of its own and the far end of its tap.
pub(crate) struct Ground {
    namespace: Namespace,
    tap: Tap,
}

/// A named network namespace.
struct Namespace(String);

impl Ground {
    /// Makes both; needs root and iproute2.
    pub(crate) fn prepare() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("stb-{}-{count}", std::process::id());
        ip(&["netns", "add", &name])?;
        let namespace = Namespace(name);
        let path = netns::path_of(&namespace.0);
        let tap = netns::within(Some(&path), || Tap::open(TAP))?.context("opening a tap")?;
        // The host must not speak on this tap by itself.
        ip(&[
            "-n",
            &namespace.0,
            "link",
            "set",
            TAP,
            "addrgenmode",
            "none",
        ])?;
        ip(&["-n", &namespace.0, "link", "set", TAP, "up"])?;
        Ok(Self { namespace, tap })
    }

    /// The namespace's name.
    pub(crate) fn netns(&self) -> &str {
        &self.namespace.0
    }

    /// The sandbox's end of the tap.
    pub(crate) fn tap(&self) -> &Tap {
        &self.tap
    }

    /// A command that will run inside the namespace.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.netns(), program]);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = ip(&["netns", "del", &self.0]) {
            println!("namespace {} is left behind: {error:#}", self.0);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let spelled = arguments.join(" ");
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .with_context(|| format!("running ip {spelled}"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!("ip {spelled}: {}", why.trim());
    }
    Ok(())
}
