//! Which sandboxes are looked for, and how many, changed while some are watched.

use crate::fleet::{Watch, of_type, records, trails_of};
use crate::support::{Alone, config, lab};
use sandtrace_lab::{StandIn, StandInForm};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Longer than the time between two looks at everything.
const LOOKED: Duration = Duration::from_millis(2500);

/// The record of the change of this number, from 1.
#[track_caller]
fn change(trail: &Path, number: usize) -> Value {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let text = fs::read_to_string(trail).unwrap();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let all = whole.lines();
        let all = all.map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut changes = all.filter(|it| it["event_type"] == "policy_change");
        if let Some(found) = changes.nth(number - 1) {
            return found["payload"].clone();
        }
        assert!(Instant::now() < deadline, "no change {number}: {text}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn started(lab: &Alone, form: StandInForm, name: &str) -> (String, StandIn) {
    let id = format!("i{}{name}", lab.id());
    let vmm = crate::support::started(lab, &config(lab, form, &id));
    (id, vmm)
}

#[test]
fn providers_and_the_bound_change_without_a_restart() {
    let Some(lab) = lab("providers_and_the_bound_change_without_a_restart") else {
        return;
    };
    let settings = lab.dir().join("config.toml");
    let set = |kinds: &str, most: u32| {
        let text = format!("[watch]\nmax_sandboxes = {most}\n[providers]\nkinds = [{kinds}]\n");
        fs::write(&settings, text).unwrap();
    };
    set("\"firecracker\"", 1);
    let command = Command::new(env!("CARGO_BIN_EXE_sandtrace"));
    let watch = Watch::over(command, &lab, &["--config", settings.to_str().unwrap()]);
    let (first, _first) = started(&lab, StandInForm::Firecracker, "first");
    let trail = watch.await_trail(&first, "sandbox_attached");
    let (other, _other) = started(&lab, StandInForm::CloudHypervisor, "other");
    std::thread::sleep(LOOKED);
    assert!(trails_of(&watch.trails, &other).is_empty());
    // Its kind is looked for now, but there is no room for it.
    set("\"firecracker\", \"cloud-hypervisor\"", 1);
    watch.hang_up();
    let kinds = change(&trail, 1);
    assert_eq!(kinds["accepted"], true, "{kinds}");
    assert_eq!(kinds["providers"].as_array().unwrap().len(), 2, "{kinds}");
    assert_ne!(kinds["old_settings"], kinds["new_settings"], "{kinds}");
    std::thread::sleep(LOOKED);
    assert!(trails_of(&watch.trails, &other).is_empty());
    // Room for one more.
    set("\"firecracker\", \"cloud-hypervisor\"", 2);
    watch.hang_up();
    let room = change(&trail, 2);
    assert_eq!(room["old_settings"], kinds["new_settings"], "{room}");
    let second = watch.await_trail(&other, "sandbox_attached");
    // The others' kind is no longer looked for; the one that is watched stays so.
    set("\"cloud-hypervisor\"", 9);
    watch.hang_up();
    assert_eq!(
        change(&trail, 3)["providers"],
        serde_json::json!(["cloud-hypervisor"])
    );
    assert_eq!(change(&second, 1)["accepted"], true);
    let (late, _late) = started(&lab, StandInForm::Firecracker, "late");
    std::thread::sleep(LOOKED);
    assert!(trails_of(&watch.trails, &late).is_empty());
    let all = records(&trail);
    assert!(of_type(&all, "trail_end").is_empty());
    let said = watch.interrupt();
    assert!(said.contains("which --max-sandboxes allows"), "{said}");
    assert!(said.contains("2 sandboxes were watched"), "{said}");
}
