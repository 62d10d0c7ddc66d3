//! `watch --evidence-pcap` and `extract`: frames as they were, and whose they are.

use std::fs;
use std::process::Command;

use rustix::process::Signal;
use sandtrace_event::{FlowPhase, Payload};
use sandtrace_lab::Scenario;

use crate::support::{
    Dir, Kind, Link, Running, Stage, assert_sealed, flows, privileged, run, sandtrace,
};

#[test]
fn one_conversation_comes_out_of_files_that_the_trail_vouches_for() {
    if !privileged("evidence files") {
        return;
    }
    let dir = Dir::new();
    let (trail, files) = (dir.text("trace.jsonl"), dir.text("evidence"));
    let mut stage = Stage::set(Kind::Namespace, Scenario::StripeExfil);
    let mut args = stage.by_hand();
    let more = [
        "--trail",
        &trail,
        "--evidence-pcap",
        &files,
        "--max-size",
        "8K",
    ];
    args.extend(more.map(str::to_owned));
    args.extend(["--pid".to_owned(), stage.pid().to_string()]);
    let watch = Running::start(sandtrace(&args)).ready();
    stage.play();
    watch.wait().expect(0);

    let events = assert_sealed(&trail);
    let vouched: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.payload {
            Payload::EvidenceFile(file) => Some(file),
            _ => None,
        })
        .collect();
    assert!(!vouched.is_empty(), "{vouched:?}");
    for file in &vouched {
        let path = format!("{files}/{}", file.file);
        let output = Command::new("sha256sum").arg(&path).output().unwrap();
        let sum = String::from_utf8(output.stdout).unwrap();
        let stated = file.sha256.to_string();
        assert_eq!(sum.split(' ').next(), stated.strip_prefix("sha256:"));
        assert_eq!(fs::metadata(&path).unwrap().len(), file.bytes.0);
        assert_eq!(lines_of("tcpdump", &["-n", "-r", &path]), file.frames.0);
    }
    let mut extracted = 0;
    for (_, flow) in flows(&events).filter(|(_, flow)| flow.phase == FlowPhase::Close) {
        let (number, out) = (
            flow.flow_id.to_string(),
            dir.text(&format!("{}.pcapng", flow.flow_id)),
        );
        let args = [
            "extract",
            &trail,
            "--flow",
            &number,
            "--evidence",
            &files,
            "-o",
            &out,
        ];
        run(&args).expect(0);
        // Readers that share no code with ours.
        let frames = lines_of("tcpdump", &["-n", "-r", &out]);
        assert_eq!(lines_of("tshark", &["-n", "-r", &out]), frames);
        let counted = flow.packets_sent.0 + flow.packets_received.0;
        assert_eq!(frames, counted, "{flow:?}");
        extracted += 1;
        run(&args).expect(73).one_line(&["create", &out]);
    }
    assert!(extracted > 2, "{extracted}");

    run(&["extract", &trail, "--flow", "99999", "--evidence", &files])
        .expect(69)
        .one_line(&["no flow 99999"]);
    let changed = format!("{files}/{}", vouched[0].file);
    let mut bytes = fs::read(&changed).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&changed, bytes).unwrap();
    let out = dir.text("changed.pcapng");
    run(&[
        "extract",
        &trail,
        "--flow",
        "1",
        "--evidence",
        &files,
        "-o",
        &out,
    ])
    .expect(1)
    .one_line(&["was changed", &changed]);
    assert!(!fs::exists(&out).unwrap());
}

/// What a reader of captures prints: one line a frame, for these readers.
#[track_caller]
fn lines_of(program: &str, args: &[&str]) -> u64 {
    let read = Command::new(program).args(args).output().unwrap();
    assert!(read.status.success(), "{read:?}");
    read.stdout.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[test]
fn a_conversation_is_found_over_all_files_of_a_trail() {
    if !privileged("evidence of a trail in segments") {
        return;
    }
    let dir = Dir::new();
    let (trail, files) = (dir.text("trace.jsonl"), dir.text("evidence"));
    let link = Link::new();
    let mut args = link.watch(&trail);
    let more = ["--evidence-pcap", &files, "--segment-size", "64K"];
    args.extend(more.map(str::to_owned));
    let watch = Running::start(sandtrace(&args)).ready();
    let mut frame = [
        &[
            2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 32, 0, 1, 0, 0,
        ][..],
        &[
            64, 17, 0, 0, 10, 0, 0, 2, 192, 0, 2, 1, 0, 0, 0x1f, 0x90, 0, 12, 0, 0,
        ],
        b"once",
    ]
    .concat();
    for port in 1000_u16..1200 {
        frame[34..36].copy_from_slice(&port.to_be_bytes());
        link.send(&frame).unwrap();
    }
    watch.signal(Signal::INT);
    watch.wait().expect(0);
    assert!(fs::exists(dir.text("trace.0002.jsonl")).unwrap());
    for number in ["1", "200"] {
        let out = dir.text(&format!("{number}.pcapng"));
        let args = [
            "extract",
            &trail,
            "--flow",
            number,
            "--evidence",
            &files,
            "-o",
            &out,
        ];
        run(&args).expect(0);
        assert_eq!(lines_of("tcpdump", &["-n", "-r", &out]), 1);
    }
}
