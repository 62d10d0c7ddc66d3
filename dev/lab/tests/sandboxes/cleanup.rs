//! Nothing stays behind, however a lab ends.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sandtrace_lab::{
    Lab, LabConfig, MicroVmConfig, NamespaceConfig, Scenario, make_image, scenario,
};

use super::support::{lab_and_script, privileged};

/// Everything of one lab that the host can see.
struct Traces {
    netns: PathBuf,
    boxed: PathBuf,
    dir: PathBuf,
    entry: PathBuf,
    processes: Vec<PathBuf>,
}

impl Traces {
    fn all(&self) -> Vec<&Path> {
        let fixed = [&self.netns, &self.boxed, &self.dir, &self.entry];
        fixed
            .into_iter()
            .chain(&self.processes)
            .map(PathBuf::as_path)
            .collect()
    }
}

/// Starts one sandbox of each kind, hands out what can be seen of them, then does `end`.
fn run_then(end: impl FnOnce(Lab), seen: &mut Option<Traces>) {
    let (lab, _world, script) = lab_and_script(Scenario::StripeExfil);
    let disk = lab.dir().join("disk.img");
    make_image(&disk, 32 << 20, &scenario::base_tree()).unwrap();
    let vm = lab
        .microvm(&MicroVmConfig::new("gone-1", script.clone(), &disk))
        .unwrap();
    let overlay = lab.overlay(&scenario::base_tree()).unwrap();
    let config = NamespaceConfig {
        sandbox_id: "gone-2".into(),
        script,
        overlay,
    };
    let mut sandbox = lab.namespace(&config).unwrap();
    sandbox.resume().unwrap();

    let named = Path::new("/run/netns");
    let traces = Traces {
        netns: named.join(lab.netns()),
        boxed: named.join(sandbox.netns()),
        dir: lab.dir().to_owned(),
        entry: PathBuf::from(format!("/run/sandtrace-lab/{}.json", lab.id())),
        processes: [vm.pid(), sandbox.pid()]
            .map(|pid| PathBuf::from(format!("/proc/{pid}")))
            .to_vec(),
    };
    for trace in traces.all() {
        assert!(trace.exists(), "{}", trace.display());
    }
    *seen = Some(traces);
    end(lab);
}

#[track_caller]
fn assert_gone(seen: Option<Traces>) {
    for trace in seen.expect("the lab has run").all() {
        assert!(!trace.exists(), "{} stayed", trace.display());
    }
}

#[test]
fn a_dropped_lab_leaves_nothing() {
    if privileged("a dropped lab leaves nothing") {
        let mut seen = None;
        // The lab goes before its sandboxes, which keep what they need.
        run_then(drop, &mut seen);
        assert_gone(seen);
    }
}

#[test]
fn a_panic_leaves_nothing() {
    if privileged("a panic leaves nothing") {
        let mut seen = None;
        let run = || run_then(|_lab| panic!("on purpose"), &mut seen);
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
        assert_gone(seen);
    }
}

/// Not a test of its own: what [`a_killed_lab_is_swept`] kills.
#[test]
#[ignore = "run by another test, which kills it"]
fn waits_to_be_killed() {
    run_then(
        |lab| {
            fs::write(
                "/proc/self/fd/1",
                format!("\nlab {} {}\n", lab.id(), lab.dir().display()),
            )
            .unwrap();
            std::thread::sleep(std::time::Duration::from_secs(60));
        },
        &mut None,
    );
}

#[test]
fn a_killed_lab_is_swept() {
    if !privileged("a killed lab is swept") {
        return;
    }
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args([
            "cleanup::waits_to_be_killed",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = read_lab_line(victim.stdout.take().unwrap());
    let (id, dir) = said.split_once(' ').unwrap();
    let entry = PathBuf::from(format!("/run/sandtrace-lab/{id}.json"));
    let children = recorded_children(&entry);
    assert_eq!(children.len(), 2);
    victim.kill().unwrap();
    victim.wait().unwrap();

    let living = Lab::new(&LabConfig::default()).unwrap();
    assert!(Lab::sweep().unwrap() >= 1);
    for pid in children {
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z "), "{state}");
    }
    let left = fs::read_dir("/run/netns").unwrap().flatten();
    assert!(
        left.map(|entry| entry.file_name())
            .all(|name| !name.to_string_lossy().contains(id))
    );
    assert!(!entry.exists() && !Path::new(dir).exists());
    assert!(
        living.dir().exists(),
        "a lab whose process lives is left alone"
    );
}

fn read_lab_line(output: impl std::io::Read) -> String {
    use std::io::{BufRead, BufReader};
    let mut lines = BufReader::new(output).lines().map_while(Result::ok);
    lines
        .find_map(|line| line.strip_prefix("lab ").map(str::to_owned))
        .expect("the lab tells its id")
}

fn recorded_children(entry: &Path) -> Vec<u64> {
    let json: serde_json::Value = serde_json::from_slice(&fs::read(entry).unwrap()).unwrap();
    let children = json["children"].as_array().unwrap().iter();
    children
        .map(|child| child["pid"].as_u64().unwrap())
        .collect()
}
