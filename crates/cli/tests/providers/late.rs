//! A sandbox whose VMM had started when the watch of all began.

use crate::fleet::{Watch, of_type, records};
use crate::support::{config, lab, started};
use sandtrace_lab::StandInForm;
use std::time::Duration;

#[test]
fn what_a_sandbox_sent_before_it_was_found_is_a_gap_by_number() {
    let Some(lab) = lab("what_a_sandbox_sent_before_it_was_found_is_a_gap_by_number") else {
        return;
    };
    for capture in ["af-packet", "ebpf"] {
        let id = format!("i{}late{}", lab.id(), capture.len());
        let mut vmm = started(&lab, &config(&lab, StandInForm::Firecracker, &id));
        // Its five frames are over.
        std::thread::sleep(Duration::from_millis(800));
        let watch = Watch::start(&lab, &["--capture", capture]);
        watch.await_trail(&id, "sandbox_attached");
        std::thread::sleep(Duration::from_millis(300));
        vmm.kill();
        let records = records(&watch.await_trail(&id, "trail_end"));
        let attached = of_type(&records, "sandbox_attached")[0];
        let [passed] = &attached["payload"]["passed_before"].as_array().unwrap()[..] else {
            panic!("{attached}");
        };
        let what = ["interface", "own", "packets_sent"].map(|it| passed[it].to_string());
        assert_eq!(what, ["\"tap0\"", "true", "5"], "{passed}");
        let received = passed["packets_received"].as_u64().unwrap();
        let [gap] = of_type(&records, "capture_gap")[..] else {
            panic!("{records:?}");
        };
        assert_eq!(gap["payload"]["cause"], "before_capture");
        assert_eq!(gap["payload"]["count"], 5 + received);
        let end = &of_type(&records, "trail_end")[0]["payload"];
        assert_eq!(end["reconciliation"][0]["matches"], true, "{end}");
        watch.interrupt();
    }
}
