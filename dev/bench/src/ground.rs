//! A network namespace with one tap, removed at the end.

use crate::load;
use anyhow::{Context as _, Result, bail};
use sandtrace_sys::netns;
use sandtrace_sys::tap::Tap;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Name of the tap; the namespace keeps it apart from all others.
pub(crate) const TAP: &str = "tap0";
/// The host's way on from the tap, where it has one, and that cable's far end.
const UPLINK: &str = "out0";
const FAR_END: &str = "far0";

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

    /// Lets the host route what it is sent, as one does that gives its sandboxes a way
    /// out: through the IP stack, and out by a cable whose far end takes nothing.
    pub(crate) fn route(&self) -> Result<()> {
        let inside = |words: &[&str]| ip(&[&["-n", self.netns()], words].concat());
        inside(&[
            "link",
            "set",
            TAP,
            "address",
            load::HOST_MAC,
            "mtu",
            "65521",
        ])?;
        inside(&["addr", "add", load::HOST, "dev", TAP])?;
        inside(&[
            "link", "add", UPLINK, "type", "veth", "peer", "name", FAR_END,
        ])?;
        for end in [UPLINK, FAR_END] {
            inside(&["link", "set", end, "addrgenmode", "none"])?;
            inside(&["link", "set", end, "mtu", "65521", "arp", "off", "up"])?;
        }
        inside(&["route", "add", "default", "dev", UPLINK])?;
        let set = self
            .command("sysctl")
            .args(["-q", "net.ipv4.ip_forward=1"])
            .status();
        if !set.context("running sysctl")?.success() {
            bail!("the namespace cannot be made to forward");
        }
        Ok(())
    }

    /// Packets that went out by the host's way on.
    pub(crate) fn routed(&self) -> Result<u64> {
        let statistic = format!("/sys/class/net/{UPLINK}/statistics/tx_packets");
        let output = self.command("cat").arg(&statistic).output();
        let text = String::from_utf8(
            output
                .with_context(|| format!("reading {statistic}"))?
                .stdout,
        )?;
        text.trim()
            .parse()
            .with_context(|| format!("{statistic} holds {text:?}"))
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
