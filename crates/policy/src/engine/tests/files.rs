//! Verdicts on file changes.

use crate::testing::*;
use sandtrace_event::{
    Bytes64, CaptureGap, Count, FileChange, FileKind, FileOp, GapCause, GapUnit, Layer,
    SecretsFound, Verdict, VerdictResult, WallTime,
};

const RULES: &str = r#"
rules:
  - {id: no-keys, type: filesystem, action: deny, paths: ["/home/agent/.ssh/**", "/home/agent/.ssh"]}
  - {id: docs, type: filesystem, paths: [/home/agent/docs/**], access: read-only}
  - {id: logs, type: filesystem, paths: [/var/log/**], access: read-write, max_file_bytes: 1000}
  - {id: home, type: filesystem, paths: [/home/agent/**]}
"#;

#[track_caller]
fn check(change: FileChange, expected: &str) {
    assert_eq!(judged(&mut engine(RULES), change), expected);
}

#[test]
fn paths_are_covered_or_denied() {
    use FileOp::*;
    check(
        change(Created, "/home/agent/x/y"),
        "allow home: /home/agent/x/y is covered",
    );
    check(
        change(Deleted, "/home/agent/x"),
        "allow home: /home/agent/x is covered",
    );
    check(
        change(Created, "/etc/cron.d/x"),
        "deny -: no rule covers path /etc/cron.d/x",
    );
    check(
        change(Created, "/home/agent2/x"),
        "deny -: no rule covers path /home/agent2/x",
    );
    check(
        change(Modified, "/home/agent/.ssh/id"),
        "deny no-keys: the rule denies /home/agent/.ssh/id",
    );
    let mut own = change(Metadata, "/home/agent");
    check(own.clone(), "deny -: no rule covers path /home/agent");
    own.kind = FileKind::Dir;
    check(own, "allow home: /home/agent is covered");
}

#[test]
fn access_limits_what_may_happen() {
    use FileOp::*;
    let read_only = "anomaly docs: /home/agent/docs/a was modified; docs is read-only there";
    check(change(Modified, "/home/agent/docs/a"), read_only);
    check(
        change(Modified, "/var/log/a"),
        "allow logs: /var/log/a is covered",
    );
    check(
        change(Deleted, "/var/log/a"),
        "anomaly logs: /var/log/a was deleted; logs is read-write there",
    );
    let mut large = change(Modified, "/var/log/a");
    large.size_after = Some(Count(1_001));
    check(
        large.clone(),
        "anomaly logs: 1,001 B exceeds 1,000 B for /var/log/a",
    );
    large.size_after = None;
    check(
        large.clone(),
        "anomaly logs: the size of /var/log/a is not known",
    );
    (large.size_after, large.kind) = (Some(Count(4096)), FileKind::Dir);
    check(large, "allow logs: /var/log/a is covered");
}

#[test]
fn a_rename_touches_two_paths() {
    let renamed = |from: Option<&str>, to: &str| {
        let mut change = change(FileOp::Renamed, to);
        change.renamed_from = from.map(ToOwned::to_owned);
        change
    };
    check(
        renamed(Some("/home/agent/a"), "/home/agent/b"),
        "allow home: /home/agent/b is covered",
    );
    check(
        renamed(Some("/etc/shadow"), "/home/agent/b"),
        "deny -: no rule covers path /etc/shadow",
    );
    check(
        renamed(Some("/home/agent/a"), "/etc/cron.d/x"),
        "deny -: no rule covers path /etc/cron.d/x",
    );
    check(
        renamed(Some("/home/agent/.ssh/id"), "/home/agent/b"),
        "deny no-keys: the rule denies /home/agent/.ssh/id",
    );
    check(
        renamed(Some("/var/log/a"), "/home/agent/b"),
        "anomaly home: /var/log/a was renamed; logs is read-write there",
    );
    check(
        renamed(None, "/home/agent/b"),
        "anomaly home: the former path is not known",
    );
}

#[test]
fn what_could_not_be_read_is_an_anomaly() {
    let mut unreadable = change(FileOp::Modified, "/home/agent/x");
    unreadable.unreadable = Some("inline_data".to_owned());
    check(
        unreadable.clone(),
        "anomaly home: /home/agent/x could not be read: inline_data",
    );
    unreadable.path = "/etc/x".to_owned();
    check(unreadable, "deny -: no rule covers path /etc/x");
}

#[test]
fn a_disk_that_could_not_be_read_is_an_anomaly() {
    let gap = |cause, layer| CaptureGap {
        cause,
        count: Count(1),
        detail: "feature casefold".to_owned(),
        first_at: WallTime(0),
        last_at: WallTime(1),
        layer,
        source: "/disk".to_owned(),
        unit: GapUnit::Paths,
    };
    let disk = |cause| gap(cause, Layer::Filesystem);
    let table = [
        (RULES, disk(GapCause::DiskUnreadable), true),
        (RULES, disk(GapCause::ScanBound), true),
        // The scan came all the same.
        (RULES, disk(GapCause::EventsLost), false),
        (RULES, gap(GapCause::RingDrop, Layer::Network), false),
        (
            "defaults: {filesystem: deny}",
            disk(GapCause::DiskUnreadable),
            true,
        ),
        (
            "defaults: {filesystem: allow}",
            disk(GapCause::DiskUnreadable),
            false,
        ),
    ];
    for (manifest, gap, is_judged) in table {
        let said = format!("{manifest}: {gap:?}");
        let verdict = engine(manifest).judge(&observed(gap)).verdict;
        let expected = is_judged.then(|| Verdict {
            policy_rule: Some("builtin:unreadable".to_owned()),
            reason: "/disk could not be read: feature casefold".to_owned(),
            result: VerdictResult::Anomaly,
        });
        assert_eq!(verdict, expected, "{said}");
    }
}

#[test]
fn forged_paths_are_covered_by_nothing() {
    for path in [
        "/home/agent/../../etc/passwd",
        "home/agent/x",
        "/home/agent//x",
        "",
        "/home/agent/./x",
    ] {
        let expected = format!("deny -: no rule can cover {path}: it is not a plain absolute path");
        check(change(FileOp::Created, path), &expected);
    }
}

#[test]
fn exact_bytes_are_matched_not_their_readable_form() {
    let mut odd = change(FileOp::Created, "/home/agent/\u{fffd}/x");
    odd.path_b64 = Some(Bytes64(b"/home/agent/\xff/x".to_vec()));
    check(odd.clone(), "allow home: /home/agent/\u{fffd}/x is covered");
    odd.path_b64 = Some(Bytes64(b"/home/agen\xff/x".to_vec()));
    check(odd, "deny -: no rule covers path /home/agent/\u{fffd}/x");
    let mut from = change(FileOp::Renamed, "/home/agent/x");
    from.renamed_from = Some("/home/agent/y".to_owned());
    from.renamed_from_b64 = Some(Bytes64(b"/home/agen\xff/y".to_vec()));
    check(from, "deny -: no rule covers path /home/agent/y");
    check(
        change(FileOp::Created, "/etc/\u{1b}[31m\n"),
        "deny -: no rule covers path /etc/\\u{1b}[31m\\n",
    );
}

#[test]
fn defaults_hold_without_file_rules() {
    let mut engine = engine("defaults: {filesystem: allow}");
    assert_eq!(
        judged(&mut engine, change(FileOp::Created, "/x")),
        "allow default:filesystem: the policy has no rule for changes to files (/x)"
    );
}

#[test]
fn what_looks_like_a_secret_is_an_anomaly() {
    let mut stolen = change(FileOp::Created, "/home/agent/notes");
    stolen.secrets = vec![SecretsFound {
        count: Count(2),
        rule: "private_key".to_owned(),
    }];
    check(
        stolen,
        "anomaly home: /home/agent/notes holds what looks like a secret (private_key, 2 times)",
    );
}
