//! `sandtrace list`: every sandbox of this host, and what can be captured of it.

use crate::args::ListArgs;
use crate::config::Options;
use crate::exit::{Exit, Failure, OrExit as _};
use crate::show::escaped;
use sandtrace_event::Layer;
use sandtrace_provider::{Discovery, Problem, ProcRoot, Target, discover};
use serde_json::{Value, json};
use std::io::{self, Write};

/// Looks once and prints.
pub(crate) fn run(args: &ListArgs) -> Result<Exit, Failure> {
    let options = Options::of_list(args.config.as_deref(), &args.discover)?;
    let discovery = discover(&ProcRoot::host(), &options.discover);
    if args.json {
        writeln!(io::stdout().lock(), "{}", as_json(&discovery)).or_exit(Exit::Io)?;
    } else {
        print(&discovery).or_exit(Exit::Io)?;
    }
    Ok(exit_of(&discovery))
}

/// Something that may not be looked at is no empty host.
fn exit_of(discovery: &Discovery) -> Exit {
    let refused = |problem: &Problem| matches!(problem, Problem::Find(it) if it.is_permission());
    if discovery.targets.is_empty() && discovery.problems.iter().any(refused) {
        Exit::NoPermission
    } else {
        Exit::Success
    }
}

fn print(discovery: &Discovery) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    for target in &discovery.targets {
        print_target(&mut out, target)?;
    }
    if discovery.targets.is_empty() {
        writeln!(out, "no sandbox was found on this host")?;
    }
    for problem in &discovery.problems {
        writeln!(out, "problem: {}", escaped(&problem.to_string()))?;
    }
    Ok(())
}

fn print_target(out: &mut impl Write, target: &Target) -> io::Result<()> {
    let pid = target.vmm.as_ref().map(|vmm| vmm.pid.to_string());
    let (id, provider) = (&target.sandbox_id, target.provider);
    let pid = pid.unwrap_or_default();
    let tier = target.tier().as_str();
    write!(out, "{id}  {provider}  pid {pid}  tier {tier}")?;
    for (name, value) in [("agent", &target.agent_id), ("template", &target.template)] {
        if let Some(value) = value {
            write!(out, "  {name} {}", escaped(value))?;
        }
    }
    writeln!(out)?;
    for tap in &target.taps {
        let netns = tap.netns.as_ref();
        let netns = netns.map_or_else(String::new, |name| format!(" in {}", escaped(name)));
        writeln!(out, "  network      {}{netns}", escaped(&tap.interface))?;
    }
    for disk in target.disks.iter().chain(&target.overlays) {
        let (path, kind) = (escaped(&disk.identity.path), &disk.identity.kind);
        writeln!(out, "  filesystem   {path} ({kind})")?;
    }
    for missing in &target.coverage {
        let layer = layer_name(missing.layer);
        writeln!(out, "  not visible  {layer}: {}", escaped(&missing.missing))?;
    }
    Ok(())
}

fn layer_name(layer: Layer) -> &'static str {
    match layer {
        Layer::Network => "network",
        Layer::Filesystem => "filesystem",
        Layer::Syscall => "syscall",
    }
}

fn as_json(discovery: &Discovery) -> Value {
    let sandbox = |target: &Target| {
        json!({
            "sandbox_id": target.sandbox_id,
            "agent_id": target.agent_id,
            "evidence_tier": target.tier(),
            "found": target.attached(),
        })
    };
    let problems = discovery.problems.iter().map(ToString::to_string);
    json!({
        "sandboxes": discovery.targets.iter().map(sandbox).collect::<Vec<_>>(),
        "problems": problems.collect::<Vec<_>>(),
    })
}
