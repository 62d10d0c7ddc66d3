//! The microVM from its start to its end.

use std::fs;
use std::path::Path;

use sandtrace_guest::agent::hosts;
use sandtrace_lab::{
    Accelerator, Ending, Lab, LabError, MicroVm, MicroVmConfig, Scenario, Script, make_image,
    scenario,
};

use super::support::{PATIENCE, assert_steps, debugfs_cat, lab_and_script, privileged};

const DISK_SIZE: u64 = 64 << 20;

fn start(lab: &Lab, id: &str, script: &Script) -> MicroVm {
    let disk = lab.dir().join(format!("{id}.img"));
    make_image(&disk, DISK_SIZE, &scenario::base_tree()).unwrap();
    lab.microvm(&MicroVmConfig::new(id, script.clone(), &disk))
        .unwrap()
}

#[test]
fn plays_the_scenario_on_a_real_disk_and_network() {
    if !privileged("microvm plays the scenario") {
        return;
    }
    let (lab, world, script) = lab_and_script(Scenario::StripeExfil);
    let mut vm = start(&lab, "micro-1", &script);
    // Paused: nothing has been said or sent.
    assert_eq!(vm.fresh_reports(), []);
    assert!(world.log().questions.is_empty());
    assert_found_like_any_vmm(&vm);

    vm.resume().unwrap();
    let outcome = vm.wait(PATIENCE).unwrap();
    println!(
        "{} with {}: {:?}",
        outcome.status,
        vm.accelerator(),
        outcome.elapsed
    );
    assert_eq!(outcome.ending, Ending::Done, "{}", vm.console());
    assert!(outcome.status.success());
    assert_steps(
        &outcome,
        &["read", "resolve", "connect", "post", "write", "delete"],
    );
    assert_eq!(vm.fresh_reports(), outcome.reports);
    assert!(!debugfs_cat(vm.disk(), "/home/agent/notes/summary.md").is_empty());
    assert_eq!(debugfs_cat(vm.disk(), "/home/agent/old-draft.txt"), "");
    assert!(world.log().requests(hosts::API).count() >= 2);
}

/// What a provider looks at: the command line, the tap behind a descriptor, the namespace.
fn assert_found_like_any_vmm(vm: &MicroVm) {
    let proc = Path::new("/proc").join(vm.pid().to_string());
    let cmdline = fs::read(proc.join("cmdline")).unwrap();
    let args: Vec<&[u8]> = cmdline.split(|&byte| byte == 0).collect();
    let name = args.iter().position(|arg| *arg == b"-name").unwrap();
    assert_eq!(args[name + 1], b"micro-1");

    let descriptors = fs::read_dir(proc.join("fd")).unwrap().flatten();
    let links: Vec<_> = descriptors
        .filter_map(|fd| Some((fd.file_name(), fs::read_link(fd.path()).ok()?)))
        .collect();
    assert!(links.iter().any(|(_, target)| target == vm.disk()));
    let (tun, _) = links
        .iter()
        .find(|(_, target)| target == Path::new("/dev/net/tun"))
        .unwrap();
    let info = fs::read_to_string(proc.join("fdinfo").join(tun)).unwrap();
    assert!(info.contains(&format!("iff:\t{}", vm.tap())), "{info}");
}

#[test]
fn two_labs_run_side_by_side() {
    if !privileged("two labs side by side") {
        return;
    }
    let (one, _world_one, script_one) = lab_and_script(Scenario::PersistPlant);
    let (two, _world_two, script_two) = lab_and_script(Scenario::PersistPlant);
    assert_ne!(one.netns(), two.netns());
    let mut vms = [
        start(&one, "side", &script_one),
        start(&two, "side", &script_two),
    ];
    for vm in &mut vms {
        vm.resume().unwrap();
    }
    for vm in &mut vms {
        let outcome = vm.wait(PATIENCE).unwrap();
        assert_eq!(outcome.ending, Ending::Done, "{}", vm.console());
    }
}

#[test]
fn a_second_run_goes_on_over_the_same_disk() {
    if !privileged("a second run over the same disk") {
        return;
    }
    let (lab, world, script) = lab_and_script(Scenario::PersistPlant);
    let mut first = start(&lab, "persist-1", &script);
    let disk = first.disk().to_owned();
    first.resume().unwrap();
    assert_eq!(first.wait(PATIENCE).unwrap().ending, Ending::Done);
    drop(first);

    let script = scenario::script(Scenario::PersistAct, &world, script.network);
    let mut second = lab
        .microvm(&MicroVmConfig::new("persist-2", script, &disk))
        .unwrap();
    second.resume().unwrap();
    assert_eq!(
        second.wait(PATIENCE).unwrap().ending,
        Ending::Done,
        "{}",
        second.console()
    );
}

#[test]
fn says_why_it_cannot_start() {
    if !privileged("microvm says why it cannot start") {
        return;
    }
    let (lab, _world, script) = lab_and_script(Scenario::StripeExfil);
    let gone = lab.dir().join("none-such.img");
    let mut config = MicroVmConfig::new("gone", script, &gone);
    config.accelerator = Some(Accelerator::Tcg);
    let error = lab.microvm(&config).unwrap_err();
    assert!(matches!(error, LabError::Died { .. }), "{error}");
    assert!(error.to_string().contains("none-such.img"), "{error}");

    config.sandbox_id = "-S".to_owned();
    assert!(matches!(lab.microvm(&config), Err(LabError::BadId(_))));
}
