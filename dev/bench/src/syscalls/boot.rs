//! What a microVM's boot takes while its VMM is watched.

use super::watching::Watcher;
use crate::Options;
use crate::statistics::median;
use anyhow::{Result, ensure};
use sandtrace_lab::world::World;
use sandtrace_lab::{
    Ending, Lab, LabConfig, MicroVmConfig, Network, Scenario, make_image, scenario,
};
use std::time::{Duration, Instant};

/// An emulated machine under strace.
const PATIENCE: Duration = Duration::from_secs(60);

/// Prints seconds from the guest's first instruction to QEMU's end, of which
/// booting is nearly all.
pub(super) fn run(options: &Options) -> Result<()> {
    let ways = ["nobody", "eBPF", "ptrace", "strace -c -f"];
    let mut times = [const { Vec::new() }; 4];
    for _ in 0..options.runs.min(3) {
        for (way, own) in ways.iter().zip(&mut times) {
            own.push(boot(way)?.as_secs_f64());
        }
    }
    println!("  a microVM's boot, work and end (QEMU), seconds");
    let medians = times.map(median);
    let [nobody, ..] = medians;
    for (way, median) in ways.iter().zip(medians) {
        println!("  {way:16} {median:7.2}  {:.2} times", median / nobody);
    }
    Ok(())
}

fn boot(way: &str) -> Result<Duration> {
    let lab = Lab::new(&LabConfig::default())?;
    let world = World::start(lab.netns())?;
    let network = Network::behind_tap(world.resolver());
    let script = scenario::script(Scenario::PersistPlant, &world, network);
    let disk = lab.dir().join("rootfs.ext4");
    make_image(&disk, 32 << 20, &scenario::base_tree())?;
    let mut vm = lab.microvm(&MicroVmConfig::new("bench", script, &disk))?;
    let watcher = match way {
        "eBPF" => Some(Watcher::own("ebpf", vm.pid())?),
        "ptrace" => Some(Watcher::own("ptrace", vm.pid())?),
        "strace -c -f" => Some(Watcher::strace(vm.pid())?),
        _ => None,
    };
    let began = Instant::now();
    vm.resume()?;
    let outcome = vm.wait(PATIENCE)?;
    let took = began.elapsed();
    ensure!(outcome.ending == Ending::Done, "{way}: {}", vm.console());
    drop(watcher);
    Ok(took)
}
