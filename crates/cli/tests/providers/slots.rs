//! E2B's pool: slots that one sandbox after the other is started in, the same
//! addresses and paths in all, and TCP that ends at the host.

use crate::fleet::{Watch, check_trail, of_type, records, trails_of};
use crate::support::{Alone, CANARY, config, lab};
use sandtrace_lab::{Slot, SlotSandbox, StandInConfig, StandInForm};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

/// Whom the guests call, and where only a proxy is.
const MEANT: &str = "203.0.113.80:80";
const ASKED: &[u8; 37] = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";

fn of_e2b(lab: &Alone, id: &str) -> StandInConfig {
    let mut config = config(lab, StandInForm::E2b, id);
    config.boot_args =
        format!("standin.tcp={MEANT} standin.frames=5 standin.gap_ms=20 standin.delay_ms=100");
    config
}

/// Serves so many connections, one after the other; the addresses that they
/// were meant for.
fn serve(listener: TcpListener, count: usize) -> JoinHandle<Vec<SocketAddr>> {
    std::thread::spawn(move || {
        let serve = |_| {
            let (mut stream, _) = listener.accept().unwrap();
            // To its end: what is not read makes a reset of the close.
            let mut asked = [0; ASKED.len()];
            stream.read_exact(&mut asked).unwrap();
            assert_eq!(&asked, ASKED);
            stream.write_all(ANSWER).unwrap();
            stream.local_addr().unwrap()
        };
        (0..count).map(serve).collect()
    })
}

/// Watched before its guest runs, so that the count of its frames is exact.
fn attached(watch: &Watch, slot: &Slot, config: &StandInConfig) -> (PathBuf, SlotSandbox) {
    let sandbox = slot.sandbox(config).unwrap();
    let trail = watch.await_trail(&config.sandbox_id, &format!("\"{}\"", run_of(&sandbox)));
    (trail, sandbox)
}

/// The random part of its name.
fn run_of(sandbox: &SlotSandbox) -> &str {
    sandbox.run().split_once('-').unwrap().1
}

fn last<'a>(records: &'a [Value], kind: &str) -> &'a Value {
    &of_type(records, kind).last().unwrap()["payload"]
}

/// Packets that it sent in the conversation that was redirected: SYN, ACK, the
/// request, an ACK of the answer and FIN, of which the last two may be one.
#[track_caller]
fn check_conversation(all: &[Value]) -> u64 {
    let mut flows = of_type(all, "network_egress");
    flows
        .retain(|flow| flow["payload"]["phase"] == "close" && flow["payload"]["protocol"] == "tcp");
    let [flow] = flows[..] else {
        panic!("{flows:?}")
    };
    let flow = &flow["payload"];
    let (address, port) = MEANT.split_once(':').unwrap();
    assert_eq!(flow["dst_ip"], address, "{flow}");
    assert_eq!(flow["dst_port"].to_string(), port, "{flow}");
    assert!(
        flow["bytes_received"].as_u64() >= Some(ANSWER.len() as u64),
        "{flow}"
    );
    flow["packets_sent"].as_u64().unwrap()
}

/// A namespace of the pool is nobody's: the one after has its own trail.
#[test]
fn sandboxes_of_a_slot_and_runs_of_an_id_are_told_apart() {
    let Some(lab) = lab("sandboxes_of_a_slot_and_runs_of_an_id_are_told_apart") else {
        return;
    };
    let slots = [1, 2].map(|index| lab.slot(index).unwrap());
    let served = [(0, 2), (1, 1)].map(|(slot, count)| serve(slots[slot].proxy(80).unwrap(), count));
    let watch = Watch::start(&lab, &[]);
    let [one, other] = ["one", "other"].map(|name| of_e2b(&lab, &format!("i{}{name}", lab.id())));
    // One is resumed in another slot while another takes its own.
    let mut runs = Vec::new();
    for (slot, config) in [(0, &one), (0, &other), (1, &one)] {
        let slot = &slots[slot];
        let (trail, mut sandbox) = attached(&watch, slot, config);
        sandbox.start().unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        sandbox.kill();
        runs.push((trail, sandbox, slot, config));
    }
    for (trail, sandbox, slot, config) in &runs {
        let id = &config.sandbox_id;
        while !fs::read_to_string(trail).unwrap().contains("\"trail_end\"") {
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_millis(100));
        let all = records(trail);
        check_trail(trail, id, 5 + check_conversation(&all));
        assert!(of_type(&all, "capture_gap").is_empty(), "{all:?}");
        let found = last(&all, "sandbox_attached");
        assert_eq!(found["provider"], "e2b");
        assert_eq!(found["labels"]["e2b.run"], run_of(sandbox));
        assert_eq!(found["vmm"]["pid"], sandbox.pid());
        assert_eq!(found["template"], "tpl-1");
        assert_eq!(found["agent_id"], "billing");
        assert_eq!(found["taps"][0]["interface"], "tap0");
        assert_eq!(found["taps"][0]["netns"], slot.netns());
        assert_eq!(found["disks"][0]["path"], sandbox.disk().to_str().unwrap());
    }
    assert_eq!(trails_of(&watch.trails, &one.sandbox_id).len(), 2);
    assert_eq!(trails_of(&watch.trails, &other.sandbox_id).len(), 1);
    let said = watch.interrupt();
    assert!(said.contains("3 sandboxes were watched"), "{said}");
    for served in served {
        let meant: SocketAddr = MEANT.parse().unwrap();
        assert!(served.join().unwrap().iter().all(|it| *it == meant));
    }
}

#[track_caller]
fn sandtrace(args: &[&str], code: i32) -> String {
    let mut sandtrace = Command::new(env!("CARGO_BIN_EXE_sandtrace"));
    let output = sandtrace.args(args).output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(!said.contains(CANARY), "{said}");
    said
}

/// As a guest writes.
fn write_to(device: &Path, name: &str) {
    let mut debugfs = Command::new("debugfs");
    let order = format!("write /etc/hostname {name}");
    let output = debugfs.args(["-w", "-R", &order]).arg(device).output();
    assert!(output.unwrap().status.success());
}

/// Two at once, whose disks and configurations have the same names inside.
#[test]
fn disks_of_sandboxes_that_call_them_the_same_are_their_own() {
    let Some(lab) = lab("disks_of_sandboxes_that_call_them_the_same_are_their_own") else {
        return;
    };
    let slots = [1, 2].map(|index| lab.slot(index).unwrap());
    let watch = Watch::start(&lab, &["--syscalls", "off"]);
    let configs = ["one", "two"].map(|name| of_e2b(&lab, &format!("i{}{name}", lab.id())));
    let mut both: Vec<_> = slots
        .iter()
        .zip(&configs)
        .map(|(slot, config)| (attached(&watch, slot, config), config))
        .collect();
    // The baselines, then a write to each.
    std::thread::sleep(Duration::from_millis(800));
    for (number, ((_, sandbox), config)) in both.iter().enumerate() {
        write_to(sandbox.disk(), &format!("planted-{number}"));
        watch.await_trail(&config.sandbox_id, &format!("/planted-{number}"));
    }
    for (number, ((trail, sandbox), config)) in both.iter_mut().enumerate() {
        let template = config.disk.to_str().unwrap();
        let expected = format!("created   /planted-{number}");
        let said = sandtrace(&["fsdiff", template, "--sandbox", sandbox.run()], 0);
        assert!(said.starts_with(&expected), "{said}");
        assert!(said.ends_with("1 difference\n"), "{said}");
        sandbox.kill();
        // It is gone; what it wrote is kept.
        let cow = sandbox.cow().unwrap();
        let said = sandtrace(&["fsdiff", template, cow.to_str().unwrap()], 0);
        assert!(said.starts_with(&expected), "{said}");
        watch.await_trail(&config.sandbox_id, "trail_end");
        let all = records(trail);
        let changes = of_type(&all, "filesystem_change");
        let paths: Vec<_> = changes.iter().map(|it| &it["payload"]["path"]).collect();
        assert_eq!(paths, [&format!("/planted-{number}")]);
    }
    watch.interrupt();
}
