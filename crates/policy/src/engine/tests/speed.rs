//! Nanoseconds per verdict with a hundred rules. Run with
//! `cargo test --release -p sandtrace-policy speed -- --ignored --nocapture`.

use crate::Engine;
use crate::testing::*;
use sandtrace_event::{FileOp, Observation};
use std::fmt::Write as _;
use std::time::Instant;

fn hundred_rules() -> Engine {
    let mut rules = "rules:\n".to_owned();
    for i in 0..50 {
        let hosts = format!(
            "{{host: api{i}.example, port: 443}}, {{host: \"*.tenant{i}.example\"}}, {{cidr: 10.{i}.0.0/16}}"
        );
        writeln!(rules, "- {{id: net{i}, type: network_egress, destinations: [{hosts}], max_bytes_per_call: 4096}}").unwrap();
        writeln!(
            rules,
            "- {{id: fs{i}, type: filesystem, paths: [/srv/data{i}/**, /opt/*/app{i}/*.log]}}"
        )
        .unwrap();
    }
    engine(&rules)
}

/// The fastest of many short runs: other work on the machine only adds time.
fn measure(what: &str, engine: &mut Engine, observation: &Observation) {
    const ROUNDS: u32 = 1_000;
    let mut run = || {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            std::hint::black_box(engine.judge(std::hint::black_box(observation)));
        }
        start.elapsed() / ROUNDS
    };
    let fastest = (0..200).map(|_| run()).min().unwrap();
    println!("{what:<32} {:>6} ns", fastest.as_nanos());
}

#[test]
#[ignore = "prints how long a verdict takes"]
fn speed_of_a_verdict() {
    let mut engine = hundred_rules();
    let table = [
        (
            "egress, exact host, last rule",
            observed(https("api49.example")),
        ),
        (
            "egress, wildcard host",
            observed(https("x.tenant49.example")),
        ),
        ("egress, no rule", observed(https("evil.test"))),
        ("dns question", observed(query("api49.example", RESOLVER))),
        (
            "file, last rule",
            observed(change(FileOp::Modified, "/srv/data49/a/b/c.txt")),
        ),
        (
            "file, pattern",
            observed(change(FileOp::Modified, "/opt/x/app49/y.log")),
        ),
        (
            "file, no rule",
            observed(change(FileOp::Created, "/etc/cron.d/agent-refresh")),
        ),
    ];
    for (what, observation) in &table {
        measure(what, &mut engine, observation);
    }
}

#[test]
#[ignore = "prints how long the largest manifests take to load"]
fn speed_of_loading() {
    let rule = |i: usize, kind: &str| match kind {
        "hosts" => {
            format!("- {{id: r{i}, type: network_egress, destinations: [{{host: a{i}.*}}]}}\n")
        }
        "ranges" => format!(
            "- {{id: r{i}, type: network_egress, destinations: [{{cidr: 10.{}.{}.0/24}}]}}\n",
            i / 256,
            i % 256
        ),
        _ => format!("- {{id: r{i}, type: filesystem, paths: [/a*/x{i}*/b]}}\n"),
    };
    for kind in ["hosts", "ranges", "paths"] {
        let rules: String = (0..10_000).map(|i| rule(i, kind)).collect();
        let text = format!("schema_version: \"1.0\"\nrules:\n{rules}");
        let start = Instant::now();
        let loaded = crate::Policy::parse("large", text.as_bytes());
        let result = loaded.map_or_else(|errors| errors.to_string(), |_| "loaded".to_owned());
        println!(
            "10,000 {kind:<8} {:>6} ms, {result}",
            start.elapsed().as_millis()
        );
    }
}
