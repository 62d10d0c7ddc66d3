//! Which layer counts, and settings that do not go together.

use super::*;

/// A word that every variable takes, and another one.
const WORDS: &[(&str, &str, &str)] = &[
    ("SANDTRACE_POLICY", "a.yaml", "b.yaml"),
    ("SANDTRACE_TRAIL", "a", "b"),
    ("SANDTRACE_TRAIL_DIR", "a", "b"),
    ("SANDTRACE_RESOLVERS", "10.0.0.1", "10.0.0.2,fd00::1"),
    ("SANDTRACE_SCAN_INTERVAL", "1s", "2s"),
    ("SANDTRACE_SCAN_SECRETS", "true", "false"),
    ("SANDTRACE_CAPTURE", "ebpf", "af-packet"),
    ("SANDTRACE_CALL_PAUSE", "1s", "2s"),
    ("SANDTRACE_SYSCALLS", "off", "ptrace"),
    ("SANDTRACE_SYSCALL_INTERVAL", "1s", "2s"),
    ("SANDTRACE_STATE_INTERVAL", "1s", "0s"),
    ("SANDTRACE_MAX_SANDBOXES", "1", "2"),
    ("SANDTRACE_STATE_DIR", "a", "b"),
    ("SANDTRACE_WITNESS", "http://a:1", "http://b:1,unix:///w"),
    ("SANDTRACE_SEGMENT_SIZE", "1M", "2M"),
    ("SANDTRACE_SEGMENT_AGE", "1h", "2h"),
    ("SANDTRACE_EVIDENCE_PCAP", "a", "b"),
    ("SANDTRACE_MAX_SIZE", "1M", "2M"),
    ("SANDTRACE_PROVIDERS", "e2b", "qemu,daytona"),
    ("SANDTRACE_DOCKER_SOCKET", "a", "b"),
    ("SANDTRACE_OUTPUT", "-", "a"),
    ("SANDTRACE_FILTER_TYPE", "dns_query", "trail_end"),
    ("SANDTRACE_FILTER_TIER", "kernel", "hypervisor"),
    ("SANDTRACE_FILTER_VERDICT", "deny", "allow"),
];

fn layer(words: impl Fn(&str) -> Option<&'static str>) -> Layer {
    let read = Layer::from_variables(|name| words(name).map(str::to_owned));
    read.unwrap_or_else(|(name, why)| panic!("{name}: {why}"))
}

fn one(name: &'static str, word: &'static str) -> Layer {
    layer(|other| (other == name).then_some(word))
}

#[test]
fn every_setting_of_a_higher_layer_goes_over_a_lower_one() {
    let names: Vec<_> = Layer::ALL.iter().map(|setting| setting.variable).collect();
    let tried: Vec<_> = WORDS.iter().map(|(variable, ..)| *variable).collect();
    assert_eq!(names, tried);
    let empty = Layer::default;
    for &(name, first, second) in WORDS {
        let (first, second) = (one(name, first), one(name, second));
        assert_ne!(first, second, "{name}");
        assert_eq!(first.clone().over(second.clone()), first, "{name}");
        assert_eq!(second.clone().over(first.clone()), second, "{name}");
        assert_eq!(empty().over(first.clone()), first, "{name}");
        assert_eq!(first.clone().over(empty()), first, "{name}");
    }
}

#[test]
fn a_default_that_is_written_out_changes_nothing() {
    let none = Layer::default();
    for setting in Layer::ALL {
        let Some(default) = setting.default else {
            continue;
        };
        let written = one(setting.variable, default);
        assert_eq!(none.renewed(written.clone()).1, [""; 0], "{}", setting.key);
        assert_eq!(written.renewed(none.clone()).1, [""; 0], "{}", setting.key);
    }
    let empty = Layer {
        filter_type: Some(Vec::new()),
        ..Layer::default()
    };
    assert_eq!(none.renewed(empty).1, [""; 0]);
    let other = one("SANDTRACE_SCAN_INTERVAL", "3s");
    assert_eq!(none.renewed(other).1, ["watch.scan_interval"]);
}

#[test]
fn a_variable_that_holds_no_such_value_is_named() {
    // A path may be anything.
    let paths = [
        "POLICY",
        "TRAIL",
        "TRAIL_DIR",
        "STATE_DIR",
        "EVIDENCE_PCAP",
        "DOCKER_SOCKET",
    ];
    for variable in Layer::ALL.iter().map(|setting| setting.variable) {
        let read = Layer::from_variables(|name| (name == variable).then(|| "tcp://?".to_owned()));
        let is_path = paths
            .iter()
            .any(|path| variable == format!("SANDTRACE_{path}"));
        match read {
            Ok(_) => assert!(is_path, "{variable}"),
            Err((name, _)) => assert_eq!(name, variable),
        }
    }
}

#[track_caller]
fn check_wrong(arguments: Layer, environment: Layer, code: Exit, part: &str) {
    let below = Below {
        file: None,
        environment,
    };
    let failure = Options::resolve(arguments, below).err().unwrap();
    assert_eq!(failure.exit, code);
    let said = failure.error.to_string();
    assert!(said.contains(part), "{said}");
}

#[test]
fn what_does_not_go_together_is_the_fault_of_who_said_it() {
    let none = Layer::default;
    let size = || one("SANDTRACE_MAX_SIZE", "1M");
    check_wrong(size(), none(), Exit::Usage, "evidence_pcap");
    check_wrong(none(), size(), Exit::Config, "evidence_pcap");
    let never = || one("SANDTRACE_SCAN_INTERVAL", "0s");
    check_wrong(never(), none(), Exit::Usage, "scan_interval");
    check_wrong(none(), never(), Exit::Config, "scan_interval");
    let below = Below {
        file: None,
        environment: one("SANDTRACE_EVIDENCE_PCAP", "frames"),
    };
    let place = Options::resolve(size(), below).unwrap().evidence.unwrap();
    assert_eq!(place.directory, Path::new("frames"));
    assert_eq!(place.max_bytes, 1 << 20);
}

/// A row for each setting, in order, with what SIGHUP does about it.
#[test]
fn the_documentation_has_every_setting() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows: Vec<_> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    assert_eq!(rows.len(), Layer::ALL.len());
    for (row, setting) in rows.iter().zip(Layer::ALL) {
        let cells: Vec<_> = row.split(" | ").collect();
        let reload = match setting.reload {
            layer::Reload::Again => "read again",
            layer::Reload::Restart => "restart",
        };
        assert_eq!(cells[0], format!("| `{}`", setting.key));
        assert_eq!(cells[1], format!("`{}`", setting.variable));
        if let Some(default) = setting.default {
            assert_eq!(cells[2], format!("`{default}`"));
        }
        assert_eq!(cells[3], reload, "{row}");
    }
}
