//! Many sandboxes whose frames are counted by programs that all share.

use crate::fleet::{Watch, check_trail, of_type, records};
use crate::support::{config, lab, started};
use sandtrace_lab::StandInForm;

#[test]
fn sandboxes_that_share_programs_have_their_own_frames() {
    let Some(lab) = lab("sandboxes_that_share_programs_have_their_own_frames") else {
        return;
    };
    // What is taken where nothing is asked for.
    let watch = Watch::start(&lab, &[]);
    let mut vmms: Vec<_> = (0..6)
        .map(|number| {
            let id = format!("i{}shared{number}", lab.id());
            let vmm = started(&lab, &config(&lab, StandInForm::Firecracker, &id));
            (id, vmm)
        })
        .collect();
    for (id, _) in &vmms {
        watch.await_trail(id, "network_egress");
    }
    // All but one end while the others go on.
    let last = vmms.pop();
    for (_, vmm) in &mut vmms {
        // Five frames, 20 ms apart.
        std::thread::sleep(std::time::Duration::from_millis(150));
        vmm.kill();
    }
    vmms.extend(last);
    for (_, vmm) in &mut vmms {
        vmm.kill();
    }
    for (id, _) in &vmms {
        let trail = watch.await_trail(id, "trail_end");
        check_trail(&trail, id, 5);
        let records = records(&trail);
        let start = of_type(&records, "trail_start")[0];
        let backends = start["payload"]["capture"].as_array().unwrap();
        assert!(
            backends
                .iter()
                .any(|it| it["backend"] == "ebpf" && it["layer"] == "network")
        );
        assert!(of_type(&records, "capture_gap").is_empty());
    }
    watch.interrupt();
}
