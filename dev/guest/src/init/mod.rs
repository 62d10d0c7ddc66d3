//! What process 1 of the microVM does: devices, network, disk, agent, end.

mod link;
mod system;

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use sandtrace_guest::{Message, Network, Script};

use crate::say;
pub(crate) use system::mount_proc;

/// The word on the kernel's command line with which the lab asks only whether it boots.
const PROBE: &str = "sandtrace.probe";
/// That it is to do nothing more once it has.
const REST: &str = "sandtrace.rest";
const SCRIPT: &str = "/script.json";
const DISK_DEVICE: &str = "/dev/vda";
const DISK: &str = "/disk";
const INTERFACE: &str = "eth0";
/// How long devices may take to appear once their drivers are in.
const DEVICE_PATIENCE: Duration = Duration::from_secs(10);

/// Never returns in a VM: process 1 must not end, the machine must.
pub(crate) fn run() -> Result<(), String> {
    if let Err(failed) = boot_and_play() {
        say(&Message::Failed { failed });
    }
    system::restart().map_err(doing("restart"))
}

fn boot_and_play() -> Result<(), String> {
    system::mount_pseudo("/").map_err(doing("mount /proc, /sys and /dev"))?;
    let rests = command_line_has(REST)?;
    if rests || command_line_has(PROBE)? {
        say(&Message::Done { done: true });
        if !rests {
            return Ok(());
        }
        loop {
            thread::park();
        }
    }
    system::load_modules("/modules")?;
    connect(&read_network()?)?;
    mount_disk()?;
    let played = play();
    system::unmount_disk(DISK).map_err(doing("unmount the disk"))?;
    played
}

fn command_line_has(word: &str) -> Result<bool, String> {
    let line = fs::read_to_string("/proc/cmdline").map_err(doing("read /proc/cmdline"))?;
    Ok(line.split_whitespace().any(|found| found == word))
}

fn read_network() -> Result<Network, String> {
    let text = fs::read_to_string(SCRIPT).map_err(doing("read the script"))?;
    let script: Script =
        serde_json::from_str(&text).map_err(|error| format!("understand the script: {error}"))?;
    Ok(script.network)
}

fn connect(network: &Network) -> Result<(), String> {
    system::wait_for(Path::new("/sys/class/net").join(INTERFACE), DEVICE_PATIENCE)?;
    link::set_up("lo").map_err(doing("set up lo"))?;
    link::set_up(INTERFACE).map_err(doing("set up eth0"))?;
    link::add_address(INTERFACE, network.address, network.prefix)
        .map_err(doing("add the address"))?;
    link::add_default_route(INTERFACE, network.gateway).map_err(doing("add the default route"))
}

fn mount_disk() -> Result<(), String> {
    system::wait_for(DISK_DEVICE, DEVICE_PATIENCE)?;
    system::mount_disk(DISK_DEVICE, DISK).map_err(doing("mount the disk"))?;
    system::mount_pseudo(DISK).map_err(doing("mount /proc, /sys and /dev on the disk"))
}

/// The agent runs as a child with the disk as its root, so that this process can still
/// unmount the disk afterwards.
fn play() -> Result<(), String> {
    let script = File::open(SCRIPT).map_err(doing("open the script"))?;
    let status = Command::new("/init")
        .args(["agent", "--root", DISK])
        .stdin(Stdio::from(script))
        .status()
        .map_err(doing("start the agent"))?;
    // A failed agent has said so itself, a killed one has not.
    match status.code() {
        Some(_) => Ok(()),
        None => Err(format!("the agent ended by {status}")),
    }
}

fn doing(what: &str) -> impl Fn(io::Error) -> String {
    move |error| format!("{what}: {error}")
}
