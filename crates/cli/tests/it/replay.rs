//! Capture files that others published, replayed: the same path, the file's clock.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use sandtrace_capture::network::{EvidenceFrame, PcapNgWriter};
use sandtrace_event::{DetachReason, EndReason, GapCause, IngressFlow, Payload, VerdictResult};
use sandtrace_wire::Direction;

use crate::support::{Dir, assert_sealed, events, flows, judged, run, text, trail_end};

/// A file of the corpora, or nothing where they are absent and need not be there.
fn corpus(test: &str, file: &str) -> Option<PathBuf> {
    let root = std::env::var_os("SANDTRACE_CORPORA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpora"),
        PathBuf::from,
    );
    let path = root.join(file);
    if path.is_file() {
        return Some(path);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "no corpora at {}",
        path.display()
    );
    println!("skipped: {test}: no corpora");
    None
}

#[test]
fn the_same_file_makes_the_same_trail() {
    for file in ["ja4/pcap/latest.pcapng", "ja4/pcap/tls-handshake.pcapng"] {
        let Some(capture) = corpus("the_same_file_makes_the_same_trail", file) else {
            return;
        };
        let (dir, capture) = (Dir::new(), text(&capture));
        let trails = ["one", "two", "random"].map(|name| dir.text(name));
        for trail in &trails {
            let mut args = vec!["replay", &capture, "--trail", trail, "-o", "-"];
            if !trail.ends_with("random") {
                args.push("--deterministic");
            }
            let ran = run(&args).expect(0);
            assert_eq!(ran.stdout, fs::read_to_string(trail).unwrap());
        }
        let [one, two, random] = trails.map(|trail| fs::read(trail).unwrap());
        assert!(one == two, "{file}");
        assert!(one != random, "{file}");
    }
}

#[test]
fn the_clock_is_the_files() {
    let Some(capture) = corpus("the_clock_is_the_files", "ja4/pcap/latest.pcapng") else {
        return;
    };
    let dir = Dir::new();
    let trail = dir.text("trace.jsonl");
    run(&["replay", &text(&capture), "--trail", &trail]).expect(0);
    let events = assert_sealed(&trail);
    // The timestamps of the file's first and last packet block, in microseconds.
    let (first_us, last_us) = (1_687_555_544_173_804, 1_687_555_549_802_876);
    let [first, last] = [&events[0], &events[events.len() - 1]];
    assert_eq!(first.wall_time.0, first_us * 1000);
    assert_eq!(last.wall_time.0, last_us * 1000);
    assert_eq!(first.mono_us.0, 0);
    assert_eq!(last.mono_us.0, last_us - first_us);
    assert_eq!(trail_end(&events).reason, EndReason::EndOfFile);
    assert!(events.iter().any(|event| matches!(
        &event.payload,
        Payload::SandboxDetached(detached) if detached.reason == DetachReason::EndOfFile
    )));
}

#[test]
fn a_policy_judges_what_the_file_holds() {
    let Some(capture) = corpus("a_policy_judges", "ja4/pcap/tls-alpn-h2.pcap") else {
        return;
    };
    let dir = Dir::new();
    let policy = dir.file(
        "policy.yaml",
        "schema_version: \"1.0\"\nrules:\n  - id: net:one\n    type: network_egress\n    \
         destinations:\n      - host: api.stripe.com\n        port: 443\n",
    );
    let trail = dir.text("trace.jsonl");
    let capture = text(&capture);
    let args = ["replay", &capture, "--policy", &policy, "--trail", &trail];
    run(&args).expect(0);
    let events = assert_sealed(&trail);
    assert!(flows(&events).count() > 0);
    assert!(judged(&events, VerdictResult::Deny) > 0);
    run(&["verify", &trail, "--against", &policy]).expect(5);
}

#[test]
fn an_address_tells_directions() {
    #[track_caller]
    fn check(capture: &str, sandbox: &[&str], egress: bool) {
        let dir = Dir::new();
        let trail = dir.text("trace.jsonl");
        let mut args = vec!["replay", capture, "--trail", &trail];
        for ip in sandbox {
            args.extend(["--sandbox-ip", ip]);
        }
        run(&args).expect(0);
        let events = assert_sealed(&trail);
        let (mut sent, mut received) = (0, 0);
        for event in &events {
            match &event.payload {
                Payload::NetworkEgress(_) => sent += 1,
                Payload::NetworkIngress(_) => received += 1,
                _ => {}
            }
        }
        assert!(if egress { sent > 0 } else { sent == 0 }, "{sent}");
        assert!(
            if egress { received == 0 } else { received > 0 },
            "{received}"
        );
    }
    let file = "ja4/pcap/tls-alpn-h2.pcap";
    let Some(capture) = corpus("an_address_tells_directions", file) else {
        return;
    };
    let capture = text(&capture);
    check(&capture, &[], true);
    check(&capture, &["2001:4998:ef83:14:8000::100d"], true);
    check(&capture, &["2606:4700::6811:d209"], false);
}

#[test]
fn bad_files() {
    let dir = Dir::new();
    #[track_caller]
    fn check(dir: &Dir, file: &str, parts: &[&str]) {
        let trail = dir.text("none.jsonl");
        let ran = run(&["replay", file, "--trail", &trail]).expect(4);
        assert_eq!(ran.one_line(parts).stdout, "");
        assert!(!Path::new(&trail).exists());
    }
    check(
        &dir,
        "/no/such.pcap",
        &["read capture /no/such.pcap", "No such file"],
    );
    check(&dir, &text(dir.at()), &["Is a directory"]);
    check(&dir, "/dev/null", &["so a file is needed"]);
    let neither = "it is neither pcap nor pcapng";
    check(&dir, &dir.file("empty", ""), &[neither]);
    check(
        &dir,
        &dir.file("text", "no capture, but a text"),
        &[neither],
    );
    check(
        &dir,
        &dir.file("short", b"\xd4\xc3\xb2\xa1\x02\0"),
        &[neither],
    );
    check(
        &dir,
        &dir.file("section", b"\x0a\x0d\x0d\x0a\0\0\0\0"),
        &[neither],
    );
    let mut header = b"\xd4\xc3\xb2\xa1\x02\0\x04\0".to_vec();
    header.extend([0; 8]);
    header.extend(b"\0\0\x04\0\x69\0\0\0");
    check(&dir, &dir.file("wlan", header), &["its link type is 105"]);
}

#[test]
fn the_trail_vouches_for_what_was_read() {
    let test = "the_trail_vouches_for_what_was_read";
    let Some(capture) = corpus(test, "ja4/pcap/tls-alpn-h2.pcap") else {
        return;
    };
    let whole = fs::read(capture).unwrap();
    let dir = Dir::new();
    let check = |bytes: &[u8], code| {
        let (file, trail) = (dir.file("capture", bytes), dir.text("trace.jsonl"));
        run(&["replay", &file, "--trail", &trail]).expect(code);
        let events = events(&trail);
        let vouched = events.iter().find_map(|event| match &event.payload {
            Payload::EvidenceFile(file) => Some(file),
            _ => None,
        });
        let vouched = vouched.unwrap().clone();
        assert_eq!(vouched.file, "capture");
        assert_eq!(vouched.bytes.0, u64::try_from(bytes.len()).unwrap());
        assert_eq!(vouched.sha256.0, *Sha256::digest(bytes));
        (vouched.frames.0, trail)
    };
    let (frames, trail) = check(&whole[..whole.len() - 7], 4);
    fs::remove_file(trail).unwrap();
    let (all, trail) = check(&whole, 0);
    assert_eq!(all, frames + 1);
    // The capture is evidence as frames that a watch kept are.
    let out = dir.text("one.pcapng");
    let directory = dir.text(".");
    let extract = ["extract", &trail, "--evidence", &directory, "--flow", "1"];
    run(&[&extract[..], &["-o", &out]].concat()).expect(0);
    assert!(fs::metadata(&out).unwrap().len() > 100);
}

#[test]
fn a_file_that_is_cut_short_says_so() {
    let test = "a_file_that_is_cut_short_says_so";
    for file in ["ja4/pcap/latest.pcapng", "ja4/pcap/tls-alpn-h2.pcap"] {
        let Some(capture) = corpus(test, file) else {
            return;
        };
        let dir = Dir::new();
        let whole = fs::read(capture).unwrap();
        let cut = dir.file("cut", &whole[..whole.len() - 7]);
        let trail = dir.text("trace.jsonl");
        let ran = run(&["replay", &cut, "--trail", &trail]).expect(4);
        let last = ran.stderr.lines().last().unwrap();
        assert!(last.contains("it is cut short after"), "{ran:?}");
        let events = events(&trail);
        assert_eq!(trail_end(&events).reason, EndReason::CaptureFailed);
        assert!(events.iter().any(|event| matches!(
            &event.payload,
            Payload::CaptureGap(gap) if gap.cause == GapCause::FileDamaged
        )));
        assert!(flows(&events).count() > 0);
    }
}

/// A capture of one datagram at each of these seconds.
fn datagrams(seconds: &[u32]) -> Vec<u8> {
    let mut file = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
    for word in [0x0004_0002, 0, 0, 65_535, 1_u32] {
        file.extend(word.to_le_bytes());
    }
    let header = [
        &[
            2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 32, 0, 1, 0, 0,
        ][..],
        &[
            64, 17, 0, 0, 10, 0, 0, 2, 192, 0, 2, 1, 0x30, 0x39, 0x1f, 0x90, 0, 12, 0, 0,
        ],
    ];
    let frame = [&header.concat()[..], b"call"].concat();
    for second in seconds {
        let length = u32::try_from(frame.len()).unwrap();
        for word in [1_700_000_000 + second, 0, length, length] {
            file.extend(word.to_le_bytes());
        }
        file.extend(&frame);
    }
    file
}

#[test]
fn a_pause_ends_a_call_where_it_is_to() {
    let dir = Dir::new();
    let capture = dir.text("datagrams.pcap");
    fs::write(&capture, datagrams(&[0, 1, 5, 6])).unwrap();
    for (number, (pause, calls)) in [(None, 1), (Some("0s"), 1), (Some("3s"), 2), (Some("1s"), 4)]
        .into_iter()
        .enumerate()
    {
        let trail = dir.text(&format!("{number}.jsonl"));
        let mut args = vec!["replay", &capture, "--trail", &trail];
        args.extend(pause.into_iter().flat_map(|pause| ["--call-pause", pause]));
        run(&args).expect(0);
        let events = assert_sealed(&trail);
        let (_, last) = flows(&events).last().unwrap();
        assert_eq!((last.calls.0, last.bytes_sent.0), (calls, 16), "{pause:?}");
    }
}

#[test]
fn a_step_of_the_files_clock_is_recorded() {
    let dir = Dir::new();
    let (capture, trail) = (dir.text("steps.pcap"), dir.text("trace.jsonl"));
    fs::write(&capture, datagrams(&[7200, 7201, 3600, 3610])).unwrap();
    run(&["replay", &capture, "--trail", &trail]).expect(0);
    let events = assert_sealed(&trail);
    let steps: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.payload {
            Payload::CaptureGap(gap) => Some((gap.cause, gap.count.0)),
            _ => None,
        })
        .collect();
    assert_eq!(steps, [(GapCause::ClockStep, 1)]);
    let (_, last) = flows(&events).last().unwrap();
    assert_eq!(last.duration_us.0, 11_000_000);
}

#[test]
fn files_of_our_own_say_which_way_frames_went() {
    let dir = Dir::new();
    let (capture, trail) = (dir.text("own.pcapng"), dir.text("trace.jsonl"));
    let mut writer = PcapNgWriter::new(Vec::new(), "tap0").unwrap();
    // Without the file's word whoever sends first would be the sandbox.
    let frame = EvidenceFrame {
        wall_ns: 1_700_000_000_000_000_000,
        direction: Some(Direction::ToSandbox),
        bytes: &datagrams(&[0])[40..],
        wire_len: 46,
        vlan: None,
    };
    writer.frame(&frame).unwrap();
    fs::write(&capture, writer.finish(frame.wall_ns, 0).unwrap()).unwrap();
    run(&["replay", &capture, "--trail", &trail]).expect(0);
    let events = assert_sealed(&trail);
    let began = events.iter().find_map(|event| match &event.payload {
        Payload::NetworkIngress(IngressFlow(flow)) => Some(flow),
        _ => None,
    });
    let flow = began.expect("what the outside began");
    assert_eq!((flow.packets_sent.0, flow.packets_received.0), (0, 1));
}
