//! The container-like sandbox from its start to its end.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sandtrace_guest::agent::hosts;
use sandtrace_lab::{Ending, NamespaceConfig, Scenario, scenario};

use super::support::{PATIENCE, assert_steps, lab_and_script, privileged};

#[test]
fn leaves_what_it_did_in_the_upper_directory() {
    if !privileged("namespace sandbox plays the scenario") {
        return;
    }
    let (lab, world, script) = lab_and_script(Scenario::StripeExfil);
    let overlay = lab.overlay(&scenario::base_tree()).unwrap();
    let config = NamespaceConfig {
        sandbox_id: "box-1".into(),
        script,
        overlay,
    };
    let mut sandbox = lab.namespace(&config).unwrap();
    assert_own_namespaces(sandbox.pid());
    assert_eq!(fs::read_dir(sandbox.upper()).unwrap().count(), 0);

    sandbox.resume().unwrap();
    let outcome = sandbox.wait(PATIENCE).unwrap();
    println!("{}: {:?}", outcome.status, outcome.elapsed);
    assert_eq!(outcome.ending, Ending::Done, "{}", sandbox.console());
    assert_steps(
        &outcome,
        &["read", "resolve", "connect", "post", "write", "delete"],
    );
    let upper = sandbox.upper();
    assert!(upper.join("home/agent/notes/summary.md").is_file());
    let whiteout = fs::symlink_metadata(upper.join("home/agent/old-draft.txt")).unwrap();
    assert_eq!(
        (whiteout.mode() & 0o170_000, whiteout.rdev()),
        (0o020_000, 0)
    );
    assert!(
        sandbox.lowers()[0]
            .join("home/agent/old-draft.txt")
            .is_file()
    );
    assert!(world.log().requests(hosts::API).count() >= 2);
    assert_eq!(
        overlay_mounts(lab.dir()),
        0,
        "the mount is the sandbox's alone"
    );
}

fn assert_own_namespaces(pid: u32) {
    for kind in ["net", "mnt", "pid"] {
        let inside = fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_ne!(
            inside,
            fs::read_link(format!("/proc/self/ns/{kind}")).unwrap(),
            "{kind}"
        );
    }
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    assert!(
        mounts
            .lines()
            .all(|line| line.contains("overlay") || line.contains(" /proc ")),
        "{mounts}"
    );
}

fn overlay_mounts(below: &Path) -> usize {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts
        .lines()
        .filter(|line| line.contains(&*below.to_string_lossy()))
        .count()
}

#[test]
fn a_second_run_goes_on_over_the_same_overlay() {
    if !privileged("a second run over the same overlay") {
        return;
    }
    let (lab, world, script) = lab_and_script(Scenario::PersistPlant);
    let overlay = lab.overlay(&scenario::base_tree()).unwrap();
    let network = script.network.clone();
    let scripts = [
        script,
        scenario::script(Scenario::PersistAct, &world, network),
    ];
    for (id, script) in ["persist-1", "persist-2"].into_iter().zip(scripts) {
        let overlay = overlay.clone();
        let config = NamespaceConfig {
            sandbox_id: id.into(),
            script,
            overlay,
        };
        let mut sandbox = lab.namespace(&config).unwrap();
        sandbox.resume().unwrap();
        assert_eq!(
            sandbox.wait(PATIENCE).unwrap().ending,
            Ending::Done,
            "{}",
            sandbox.console()
        );
    }
}
