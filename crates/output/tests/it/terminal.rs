//! Readable lines of whole events.

use crate::events::{denied, end, event, file, flow, verdict, with};
use sandtrace_event::{AuditEvent, Payload};
use sandtrace_output::terminal::{Look, line, summary};
use serde_json::{Value, json};

#[track_caller]
fn check(event: &AuditEvent, expected: &str) {
    assert_eq!(line(event, Look::default()), expected);
}

#[test]
fn network() {
    check(
        &denied(),
        "12:00:01.123 NET  deny    close    10.0.0.2 → evil.example:443 tls               12.4 kB  no rule matches host",
    );
    let open = with(
        flow("2001:db8::7"),
        json!({ "phase": "open", "protocol": "udp", "tls": null, "bytes_sent": 0,
                "src_ip": "2001:db8::2", "dst_ip": "2001:db8::7", "end_reason": null }),
    );
    check(
        &event(
            "network_egress",
            open,
            verdict("allow", Some("net:quic"), "destination allowed"),
        ),
        "12:00:01.123 NET  allow   open     2001:db8::2 → [2001:db8::7]:443 udp               0 B  destination allowed [net:quic]",
    );
    let ingress = with(
        flow("198.51.100.4"),
        json!({ "tls": null, "findings": ["odd"] }),
    );
    check(
        &event("network_ingress", ingress, Value::Null),
        "12:00:01.123 IN   -       close    10.0.0.2:40112 ← 198.51.100.4 tcp             12.4 kB  odd",
    );
    let arp = json!({ "protocol": "ethernet", "ether_type": 35_020, "tls": null, "dst_port": null,
                      "src_ip": null, "dst_ip": null });
    check(
        &event(
            "network_egress",
            with(flow("01:80:c2:00:00:0e"), arp),
            Value::Null,
        ),
        "12:00:01.123 NET  -       close     → 01:80:c2:00:00:0e ether/0x88cc             12.4 kB",
    );
}

#[test]
fn dns() {
    let query = json!({
        "answers": ["203.0.113.9"], "latency_us": 1234, "matched": true, "name": "evil.example",
        "qtype": "A", "rcode": "NOERROR", "resolver": "10.0.0.1", "resolver_accepted": false,
        "resolver_port": 53,
    });
    check(
        &event(
            "dns_query",
            query.clone(),
            verdict("deny", None, "no rule allows this resolver"),
        ),
        "12:00:01.123 DNS  deny    A        evil.example                                           → 203.0.113.9  NOERROR in 1.2 ms, resolver 10.0.0.1 not accepted  no rule allows this resolver",
    );
    let silent = json!({ "answers": [], "latency_us": null, "rcode": null, "matched": false,
                         "resolver_accepted": true, "qtype": "TYPE65535" });
    check(
        &event("dns_query", with(query, silent), Value::Null),
        "12:00:01.123 DNS  -       TYPE655… evil.example                                           no answer",
    );
}

#[test]
fn files() {
    check(
        &event(
            "filesystem_change",
            file("/home/agent/notes/summary.md"),
            verdict("allow", Some("tool:write"), "path allowed"),
        ),
        "12:00:01.123 FS   allow   created  /home/agent/notes/summary.md                   1.2 kB  sha256:ab12cd34ef56…  path allowed [tool:write]",
    );
    let gone = json!({ "op": "deleted", "sha256": null, "size_after": null, "size_before": 5000 });
    check(
        &event("filesystem_change", with(file("/tmp/x"), gone), Value::Null),
        "12:00:01.123 FS   -       deleted  /tmp/x                                         5.0 kB",
    );
    let link = json!({ "kind": "symlink", "sha256": null, "symlink_target": "/etc/passwd" });
    check(
        &event("filesystem_change", with(file("/tmp/l"), link), Value::Null),
        "12:00:01.123 FS   -       created  /tmp/l                                                 symlink  → /etc/passwd",
    );
    let moved = json!({ "op": "renamed", "renamed_from": "/tmp/a", "unreadable": "over 1 GiB",
                        "sha256_scope": "head_tail" });
    check(
        &event(
            "filesystem_change",
            with(file("/tmp/b"), moved),
            Value::Null,
        ),
        "12:00:01.123 FS   -       renamed  /tmp/b                                         1.2 kB  from /tmp/a  sha256:ab12cd34ef56… (head and tail)  unreadable: over 1 GiB",
    );
}

#[test]
fn control_records() {
    let start = json!({
        "capture": [{ "backend": "af_packet", "layer": "network", "reason": "interface tap0" }],
        "nonce": "00ff00ff00ff00ff", "origin": "sandtrace/host-7/trace-001",
        "policy_path": "policy.yaml", "tool_version": "0.1.0",
    });
    check(
        &event("trail_start", start, Value::Null),
        "12:00:01.123 CTL  -       start    trail trace-001                                        policy policy.yaml  network by af_packet",
    );
    let attached = json!({
        "coverage": [{ "layer": "network", "missing": "vsock is not on the tap" }],
        "disks": [{ "device": "8:1", "inode": 77, "kind": "ext4", "path": "/var/lib/vm/rootfs.ext4" }],
        "provider": "firecracker",
        "taps": [{ "index": 3, "interface": "tap0", "netns": "fc0" }],
        "vmm": { "name": "firecracker", "pid": 4242, "start_ticks": 991 },
    });
    check(
        &event("sandbox_attached", attached, Value::Null),
        "12:00:01.123 CTL  -       attached vm-001                                                 by firecracker  firecracker pid 4242  tap0 in fc0  ext4 /var/lib/vm/rootfs.ext4  not visible: network: vsock is not on the tap",
    );
    check(
        &event(
            "sandbox_detached",
            json!({ "reason": "vmm_exited" }),
            Value::Null,
        ),
        "12:00:01.123 CTL  -       detached vm-001                                                 its VMM ended",
    );
    let gap = json!({
        "cause": "ring_drop", "count": 12, "detail": "the kernel dropped frames",
        "first_at": "2025-03-25T12:00:00.000000000Z", "last_at": "2025-03-25T12:00:01.000000000Z",
        "layer": "network", "source": "tap0", "unit": "packets",
    });
    check(
        &event("capture_gap", gap, Value::Null),
        "12:00:01.123 CTL  -       gap      network tap0                                           NOT SEEN: 12 packets, ring full  the kernel dropped frames",
    );
    check(
        &end(),
        "12:00:01.123 CTL  -       end      interrupted                                            5 records: 3 allow, 1 deny",
    );
}

#[test]
fn what_the_guest_chose_moves_no_terminal() {
    let hostile = "/tmp/\u{1b}[2J\u{202e}gpj.exe\nFS   allow   created  /tmp/fake";
    let event = event("filesystem_change", file(hostile), Value::Null);
    check(
        &event,
        "12:00:01.123 FS   -       created  /tmp/\\u{1b}[2J\\u{202e}gpj.exe\\nFS   allow   created  /tmp/fake   1.2 kB  sha256:ab12cd34ef56…",
    );
    let hostile = "a.example\u{1b}]0;owned\u{7}";
    let line = line(
        &crate::events::event("network_egress", flow(hostile), Value::Null),
        Look::default(),
    );
    assert!(
        line.contains("a.example\\u{1b}]0;owned\\u{7}:443"),
        "{line}"
    );
}

#[test]
fn exact_bytes_are_shown_where_a_path_is_not_utf8() {
    let payload = with(file("/tmp/\u{fffd}"), json!({ "path_b64": "L3RtcC//" }));
    let line = line(
        &event("filesystem_change", payload, Value::Null),
        Look::default(),
    );
    assert!(line.contains("/tmp/\\xff "), "{line}");
}

#[test]
fn long_text_is_cut_and_lines_fit_the_terminal() {
    let deep = format!("/home/{}/last-part.txt", "deep/".repeat(800));
    let reason = "why ".repeat(500);
    let event = event(
        "filesystem_change",
        file(&deep),
        verdict("deny", None, &reason),
    );
    let wide = line(&event, Look::default());
    assert!(
        wide.contains("/home/deep/deep/deep/deep/deep/deep…p/deep/deep/deep/deep//last-part.txt"),
        "{wide}"
    );
    assert!(wide.chars().count() <= 400, "{wide}");
    let narrow = line(
        &event,
        Look {
            colour: false,
            width: Some(80),
        },
    );
    assert_eq!(narrow.chars().count(), 80, "{narrow}");
    assert!(narrow.ends_with('…'), "{narrow}");
}

#[test]
fn only_the_verdict_is_coloured() {
    let look = Look {
        colour: true,
        width: None,
    };
    let deny = line(&denied(), look);
    assert!(
        deny.starts_with("12:00:01.123 NET  \u{1b}[1m\u{1b}[31mdeny\u{1b}[0m    close    10.0.0.2"),
        "{deny:?}"
    );
    assert_eq!(deny.matches('\u{1b}').count(), 3, "{deny:?}");
}

#[test]
fn summaries() {
    let Payload::TrailEnd(mut end) = end().payload else {
        panic!("not an end")
    };
    assert_eq!(
        summary(&end),
        "records   5 (4 network_egress, 1 trail_start)\nverdicts  4 (3 allow, 1 deny)"
    );
    let counters = json!({
        "flow_bytes_received": 4000, "flow_bytes_sent": 13_000,
        "flow_packets_received": 9, "flow_packets_sent": 12, "interface": "tap0",
        "interface_bytes_received": 4000, "interface_bytes_sent": 13_000,
        "interface_packets_received": 9, "interface_packets_sent": 12,
        "matches": true, "ring_drops": 0,
    });
    end.verdicts.clear();
    end.reconciliation = serde_json::from_value(json!([
        counters,
        with(
            counters.clone(),
            json!({ "matches": false, "ring_drops": 3, "interface_packets_sent": 15 })
        ),
    ]))
    .unwrap();
    assert_eq!(
        summary(&end),
        "records   5 (4 network_egress, 1 trail_start)\n\
         verdicts  none\n\
         tap0  21 frames, 17.0 kB: all in the trail, 0 dropped\n\
         tap0  interface counted 24 frames, 17.0 kB; the trail has 21 frames, 17.0 kB; 3 dropped by the kernel"
    );
}
