//! What these tests share.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sandtrace_lab::world::World;
use sandtrace_lab::{Lab, LabConfig, Network, Outcome, Scenario, Script, scenario};

/// An emulated machine on a busy host.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A plain user hears what was skipped; where root is at hand nothing is.
pub(crate) fn privileged(test: &str) -> bool {
    let root = fs::metadata("/proc/self").is_ok_and(|me| {
        use std::os::unix::fs::MetadataExt;
        me.uid() == 0
    });
    if !root {
        assert!(
            std::env::var_os("CI").is_none(),
            "{test} must run as root in CI"
        );
        println!("skipped: {test}: not root");
    }
    root
}

/// A lab with its outside world, and a script that plays there.
pub(crate) fn lab_and_script(story: Scenario) -> (Lab, World, Script) {
    let lab = Lab::new(&LabConfig::default()).unwrap();
    let world = World::start(lab.netns()).unwrap();
    let network = Network::behind_tap(world.resolver());
    let script = scenario::script(story, &world, network);
    (lab, world, script)
}

pub(crate) fn debugfs_cat(image: &Path, path: &str) -> String {
    let request = format!("cat {path}");
    let output = Command::new("/sbin/debugfs")
        .args(["-R", &request])
        .arg(image)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
pub(crate) fn assert_steps(outcome: &Outcome, steps: &[&str]) {
    let found: Vec<&str> = outcome
        .reports
        .iter()
        .map(|report| report.step.as_str())
        .collect();
    for step in steps {
        assert!(found.contains(step), "no step {step} in {found:?}");
    }
}
