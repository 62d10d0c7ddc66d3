//! Settings files, right and wrong.

use super::*;
use proptest::prelude::*;
use std::time::Duration;

const PATH: &str = "/etc/sandtrace/config.toml";

#[track_caller]
fn refused(text: &str, expected: &str) {
    let error = SettingsFile::parse(Path::new(PATH), text.as_bytes());
    let said = error.unwrap_err().to_string();
    let said = said.strip_prefix(&format!("settings {PATH}:"));
    let said = said.expect("begins with the place");
    assert!(said.starts_with(expected), "{text:?}: {said}");
}

#[test]
fn every_key_is_read() {
    let text = r#"
        [watch]
        policy = "policy.yaml"
        trail = "/var/lib/sandtrace/trace.jsonl"
        trail_dir = "/var/lib/sandtrace"
        resolvers = ["10.0.0.1", "fd00::1"]
        scan_interval = "2s"
        scan_secrets = true
        capture = "ebpf"
        call_pause = "1s"
        syscalls = "off"
        syscall_interval = "5s"
        state_interval = "0s"
        max_sandboxes = 200
        state_dir = "keys"
        witness = ["http://witness.example:7380", "unix:///run/w.sock"]
        segment_size = "256M"
        segment_age = "24h"
        evidence_pcap = "frames"
        max_size = "64M"
        [providers]
        kinds = ["firecracker", "e2b"]
        docker_socket = "/run/docker.sock"
        [output]
        targets = ["-", "events.jsonl", "unix:///run/collector.sock"]
        filter_type = ["network_egress", "policy_change"]
        filter_tier = ["hypervisor"]
        filter_verdict = ["deny", "anomaly"]
    "#;
    let file = SettingsFile::parse(Path::new(PATH), text.as_bytes()).unwrap();
    let keys: Vec<_> = Layer::ALL.iter().map(|setting| setting.key).collect();
    assert_eq!(file.layer.keys(), keys);
    let layer = file.layer;
    assert_eq!(layer.policy, Some("/etc/sandtrace/policy.yaml".into()));
    assert_eq!(layer.trail_dir, Some("/var/lib/sandtrace".into()));
    assert_eq!(layer.scan_interval, Some(Duration::from_secs(2)));
    assert_eq!(layer.max_sandboxes, NonZeroUsize::new(200));
    assert_eq!(layer.state_dir, Some("/etc/sandtrace/keys".into()));
    assert_eq!(layer.evidence_pcap, Some("/etc/sandtrace/frames".into()));
    assert_eq!(layer.segment_size, Some(Size(256 << 20)));
    assert_eq!(layer.max_size, Some(Size(64 << 20)));
    assert_eq!(layer.segment_age, Some(Duration::from_secs(86_400)));
    let witnesses = layer.witnesses.unwrap();
    assert_eq!(witnesses[0].to_string(), "http://witness.example:7380");
    let kinds = vec![ProviderKind::Firecracker, ProviderKind::E2b];
    assert_eq!(layer.providers, Some(kinds));
    let targets = layer.outputs.unwrap();
    assert_eq!(
        targets[1],
        Target::File("/etc/sandtrace/events.jsonl".into())
    );
}

#[test]
fn an_empty_file_sets_nothing() {
    let file = SettingsFile::parse(Path::new(PATH), b"# nothing\n").unwrap();
    assert_eq!(file.layer, Layer::default());
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    refused("[watch]\npolicy = 3\n", "2:10: invalid type: integer `3`");
    refused(
        "[watch]\npolcy = \"x\"\n",
        "2:1: unknown field `polcy`, expected one of `policy`",
    );
    refused("[wacht]\n", "1:2: unknown field `wacht`");
    refused(
        "[providers]\nkinds = [\"e2b\", \"xen\"]\n",
        "2:17: \"xen\": not a provider: use one of firecracker, e2b",
    );
    refused(
        "[watch]\nscan_interval = \"soon\"\n",
        "2:17: \"soon\": expected number at 0: give a time such as 2s or 1h",
    );
    refused(
        "[watch]\nresolvers = [\"nine\"]\n",
        "2:14: \"nine\": invalid IP address",
    );
    refused("[watch]\nmax_sandboxes = -1\n", "2:17: invalid value");
    // It would watch nothing and say nothing.
    refused("[watch]\nmax_sandboxes = 0\n", "2:17: invalid value");
    refused(
        "[watch]\nsegment_size = \"much\"\n",
        "2:16: \"much\": a size is a number of bytes",
    );
    refused(
        "[watch]\nwitness = [\"https://w:1\"]\n",
        "2:12: \"https://w:1\": https is not spoken here",
    );
    refused(
        "[watch]\nsyscalls = \"some\"\n",
        "2:12: \"some\": not a way",
    );
    refused(
        "[output]\ntargets = [\"tcp://x:1\"]\n",
        "2:12: \"tcp://x:1\": output scheme",
    );
    refused(
        "[watch]\ntrail = \"a\"\ntrail = \"b\"\n",
        "3:1: duplicate key",
    );
    refused("[watch\n", "1:7: ");
    refused("[watch]\n# \u{e9}\u{e9}\ntrail = \n", "3:9: ");
}

#[test]
fn what_is_no_text_is_refused() {
    let error = SettingsFile::parse(Path::new("x"), b"a\xff").unwrap_err();
    assert_eq!(error.to_string(), "settings x: not UTF-8 from byte 1");
    let long = vec![b'#'; (1 << 20) + 1];
    let error = SettingsFile::parse(Path::new("x"), &long).unwrap_err();
    assert_eq!(error.to_string(), "settings x: longer than 1048576 bytes");
}

proptest! {
    #[test]
    fn no_file_panics(bytes: Vec<u8>) {
        _ = SettingsFile::parse(Path::new("x"), &bytes);
    }

    #[test]
    fn no_text_panics(text in "[\\[\\]\\w=\"'\n.,{}#é-]{0,80}") {
        _ = SettingsFile::parse(Path::new("x"), text.as_bytes());
    }
}
