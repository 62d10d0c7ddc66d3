//! Targets that the operator names.

use crate::fake::{Fake, ext4};
use sandtrace_event::Layer;
use sandtrace_provider::{FindError, ManualSpec, ProviderKind, manual, manual_in};

fn spec(id: &str) -> ManualSpec {
    ManualSpec {
        sandbox_id: id.to_owned(),
        ..ManualSpec::default()
    }
}

#[test]
fn what_is_named_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.ext4");
    std::fs::write(&image, ext4()).unwrap();
    let target = manual(ManualSpec {
        agent_id: Some("agent-1".to_owned()),
        tap: Some("lo".to_owned()),
        disks: vec![image.clone()],
        overlay: Some(dir.path().to_owned()),
        ..spec("box")
    })
    .unwrap();
    assert_eq!(target.provider, ProviderKind::Manual);
    assert_eq!(target.agent_id.as_deref(), Some("agent-1"));
    assert_eq!((target.taps[0].index, &target.taps[0].netns), (1, &None));
    assert_eq!(target.disks[0].identity.kind, "ext4");
    assert_eq!(target.disks[0].open_path, image);
    assert_eq!(target.overlays.first().unwrap().identity.kind, "overlay");
    assert_eq!(target.coverage, []);
    let kinds = target.attached().disks.into_iter().map(|disk| disk.kind);
    assert_eq!(kinds.collect::<Vec<_>>(), ["ext4", "overlay"]);
}

#[test]
fn what_is_not_named_is_said_to_be_missing() {
    let target = manual(ManualSpec {
        tap: Some("lo".to_owned()),
        ..spec("box")
    });
    let coverage = target.unwrap().coverage;
    assert_eq!(coverage.len(), 1);
    assert_eq!(coverage[0].layer, Layer::Filesystem);
}

#[track_caller]
fn check_refused(spec: ManualSpec, expected: &str) {
    let error = manual(spec).unwrap_err().to_string();
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn what_does_not_exist_is_refused() {
    check_refused(spec("box"), "nothing to watch was given");
    check_refused(spec("../box"), "\"../box\" cannot be a sandbox id");
    let tap = |tap: &str| ManualSpec {
        tap: Some(tap.to_owned()),
        ..spec("box")
    };
    check_refused(
        tap("none-such"),
        "no interface \"none-such\" in this network namespace",
    );
    let netns = Some("none-such".to_owned());
    check_refused(
        ManualSpec { netns, ..tap("lo") },
        "open network namespace /run/netns/none-such: ",
    );
    let agent_id = Some("two words".to_owned());
    check_refused(
        ManualSpec {
            agent_id,
            ..tap("lo")
        },
        "\"two words\" cannot be an agent id",
    );
    let disk = |path: &str| ManualSpec {
        disks: vec![path.into()],
        ..spec("box")
    };
    check_refused(disk("/no/such"), "open disk /no/such: No such file");
    check_refused(
        disk("/dev"),
        "disk /dev is not a regular file or block device",
    );
    check_refused(disk("/dev/null"), "disk /dev/null is not a");
    let overlay = |path: &str| ManualSpec {
        overlay: Some(path.into()),
        ..spec("box")
    };
    check_refused(
        overlay("/dev/null"),
        "overlay upper dir /dev/null is not a directory",
    );
    let pid = ManualSpec {
        pid: Some(4_000_000_000),
        ..spec("box")
    };
    check_refused(pid, "look at process 4000000000: No such file");
}

#[test]
fn a_process_fills_in_what_is_not_named() {
    let fake = Fake::new(&["/firecracker", "--id", "vm-001"]);
    let dir = tempfile::tempdir().unwrap();
    let pid = Some(std::process::id());
    let of_process = manual_in(
        &fake.proc(),
        ManualSpec {
            pid,
            ..spec("mine")
        },
    )
    .unwrap();
    assert_eq!(of_process.sandbox_id, "mine");
    assert_eq!(of_process.provider, ProviderKind::Firecracker);
    assert_eq!((of_process.taps.len(), of_process.disks.len()), (1, 1));
    let overlay = Some(dir.path().to_owned());
    let with_overlay = ManualSpec {
        pid,
        overlay,
        ..spec("mine")
    };
    let with_overlay = manual_in(&fake.proc(), with_overlay).unwrap();
    assert_eq!((with_overlay.taps.len(), with_overlay.disks.len()), (1, 0));
    assert_eq!(with_overlay.coverage, of_process.coverage);
}

#[test]
fn any_process_will_do() {
    let pid = Some(std::process::id());
    let target = manual(ManualSpec {
        pid,
        ..spec("self")
    })
    .unwrap();
    assert_eq!(target.provider, ProviderKind::Manual);
    assert_eq!(target.vmm.unwrap().pid, std::process::id());
    let layers: Vec<_> = target.coverage.iter().map(|it| it.layer).collect();
    assert_eq!(layers, [Layer::Network, Layer::Filesystem]);
}

#[test]
fn permission_is_told_apart() {
    let denied = |kind: std::io::ErrorKind| FindError::Process {
        pid: 1,
        source: kind.into(),
    };
    assert!(denied(std::io::ErrorKind::PermissionDenied).is_permission());
    assert!(!denied(std::io::ErrorKind::NotFound).is_permission());
}
