//! A guest that sends and writes whatever could hurt.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;

use rustix::process::Signal;
use sandtrace_event::{GapCause, Payload};

use crate::support::{
    Dir, Link, Running, assert_sealed, events, finish, flows, privileged, run, sandtrace,
};

/// Frames of chance, and real beginnings with ends of chance: every one of them is counted.
#[test]
fn garbage_frames() {
    if !privileged("garbage frames") {
        return;
    }
    const FRAMES: u64 = 3000;
    let dir = Dir::new();
    let trail = dir.text("trace.jsonl");
    let link = Link::new();
    let watch = Running::start(sandtrace(&link.watch(&trail))).ready();
    let mut chance = Chance(1);
    let mut bytes = 0;
    for number in 0..FRAMES {
        let frame = garbage(number, &mut chance);
        bytes += u64::try_from(frame.len()).unwrap();
        link.send(&frame).unwrap();
    }
    watch.signal(Signal::INT);
    let watch = watch.wait().expect(0);
    assert!(!watch.stdout.contains('\x1b'));
    let events = assert_sealed(&trail);
    let sent: u64 = flows(&events).map(|(_, flow)| flow.packets_sent.0).sum();
    let ingress: u64 = ingress_frames(&events);
    assert_eq!(sent + ingress, FRAMES);
    let wire: u64 = flows(&events).map(|(_, flow)| flow.wire_bytes_sent.0).sum();
    assert!(wire <= bytes);
}

/// What the guest sent in conversations that look as if the outside had begun them.
fn ingress_frames(events: &[sandtrace_event::AuditEvent]) -> u64 {
    let closed = events.iter().filter_map(|event| match &event.payload {
        Payload::NetworkIngress(flow) if flow.0.phase == sandtrace_event::FlowPhase::Close => {
            Some(flow.0.packets_sent.0)
        }
        _ => None,
    });
    closed.sum()
}

/// Long enough for the tags that it may begin with; see [`frames_that_only_the_interface_saw`].
fn garbage(number: u64, chance: &mut Chance) -> Vec<u8> {
    let length = 24 + usize::try_from(chance.next() % 300).unwrap();
    let mut frame: Vec<u8> = (0..length)
        .map(|_| chance.next().to_le_bytes()[0])
        .collect();
    let start: &[u8] = match number % 8 {
        0 => &[0x08, 0x00, 0x45],
        1 => &[0x08, 0x00, 0x4f],
        2 => &[0x86, 0xdd, 0x60],
        3 => &[0x81, 0x00, 0x00, 0x01, 0x08, 0x00, 0x45],
        4 => &[0x88, 0xa8, 0x00, 0x01, 0x81, 0x00, 0x00, 0x02, 0x86, 0xdd],
        5 => &[0x08, 0x06, 0, 1, 8, 0, 6, 4],
        6 => &[0x00, 0x26, 0xaa, 0xaa, 0x03],
        _ => &[],
    };
    let room = frame.len().min(12 + start.len());
    frame[12..room].copy_from_slice(&start[..room - 12]);
    if number.is_multiple_of(16) && frame.len() > 40 {
        // TCP or UDP to the ports that parsers wait on.
        frame[23] = if number.is_multiple_of(32) { 6 } else { 17 };
        let port = [53_u16, 443, 80, 123][usize::try_from(number / 16 % 4).unwrap()];
        frame[36..38].copy_from_slice(&port.to_be_bytes());
    }
    frame
}

/// The kernel drops a frame that ends within its VLAN tag before anybody can capture it, and
/// its interface counts it: the difference is a record, and `verify` repeats it.
#[test]
fn frames_that_only_the_interface_saw() {
    if !privileged("frames that only the interface saw") {
        return;
    }
    let dir = Dir::new();
    let trail = dir.text("trace.jsonl");
    let link = Link::new();
    let watch = Running::start(sandtrace(&link.watch(&trail))).ready();
    let runt = [&[2; 12][..], &[0x81, 0, 0]].concat();
    for _ in 0..7 {
        link.send(&runt).unwrap();
    }
    watch.signal(Signal::INT);
    watch.wait().expect(0);
    let events = events(&trail);
    let gap = events.iter().find_map(|event| match &event.payload {
        Payload::CaptureGap(gap) => Some(gap),
        _ => None,
    });
    let gap = gap.unwrap();
    assert_eq!((gap.cause, gap.count.0), (GapCause::CounterMismatch, 7));
    let verified = run(&["verify", &trail]).expect(0).stdout;
    assert!(verified.contains("7 packets lost"), "{verified}");
    assert!(verified.contains("flows DO NOT match"), "{verified}");
}

/// SplitMix64: the same frames every time.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Turns text red, sets the title, rings, overrides direction, starts a line.
const NASTY: &[u8] = b"\x1b[31mred\x1b]0;title\x07\r\nsandtrace: fake \xe2\x80\xae\xc2\x9b2J\xff";

/// Names of files never reach a terminal raw, and are exact in the trail.
#[test]
fn names_of_files() {
    let dir = Dir::new();
    let (upper, trail) = (dir.dir("upper"), dir.text("trace.jsonl"));
    let args = [
        "watch",
        "--sandbox-id",
        "box",
        "--overlay",
        &upper,
        "--trail",
        &trail,
    ];
    let watch = Running::start(sandtrace(
        &[&args[..], &["--policy", crate::support::POLICY]].concat(),
    ));
    let watch = watch.ready();
    let name = OsStr::from_bytes(NASTY);
    fs::write(dir.path("upper").join(name), "x").unwrap();
    std::os::unix::fs::symlink(name, dir.path("upper/link")).unwrap();
    watch.signal(Signal::INT);
    let watch = watch.wait().expect(0);
    assert_safe(&watch.stdout);
    assert_safe(&watch.stderr);
    assert!(watch.stdout.contains(r"\u{1b}[31mred"), "{}", watch.stdout);
    let exact = events(&trail)
        .into_iter()
        .find_map(|event| match event.payload {
            Payload::FilesystemChange(change) => change.path_b64,
            _ => None,
        });
    assert_eq!(exact.unwrap().0, [b"/", NASTY].concat());
    assert_shown_safely(&trail, &dir);
}

/// Nor do the labels of a DNS question, which may be any bytes (RFC 2181 section 11).
#[test]
fn names_of_hosts() {
    if !privileged("names of hosts") {
        return;
    }
    let dir = Dir::new();
    let trail = dir.text("trace.jsonl");
    let link = Link::new();
    let mut args = link.watch(&trail);
    args.extend(["--policy".to_owned(), crate::support::POLICY.to_owned()]);
    let watch = Running::start(sandtrace(&args)).ready();
    link.send(&question(NASTY)).unwrap();
    link.send(&http_request(b"\x1b[31mred.example\x07"))
        .unwrap();
    watch.signal(Signal::INT);
    let watch = watch.wait().expect(0);
    assert_safe(&watch.stdout);
    assert_safe(&watch.stderr);
    assert!(watch.stdout.contains("DNS"), "{}", watch.stdout);
    assert_sealed(&trail);
    assert_shown_safely(&trail, &dir);
}

/// Every command that speaks of a trail speaks safely, on a terminal too.
#[track_caller]
fn assert_shown_safely(trail: &str, dir: &Dir) {
    let streamed = run(&["stream", trail]).expect(0).quiet();
    assert_safe(&streamed.stdout);
    let verified = run(&["verify", trail, "--against", crate::support::POLICY])
        .expect(5)
        .quiet();
    assert_safe(&verified.stdout);
    let json = run(&[
        "verify",
        trail,
        "--against",
        crate::support::POLICY,
        "--json",
    ])
    .expect(5);
    assert_safe(&json.stdout);
    for output in ["", " -o -"] {
        let mut script = Command::new("script");
        let line = format!("{} stream {trail}{output}", env!("CARGO_BIN_EXE_sandtrace"));
        script.args(["-qec", &line]).arg(dir.path("typescript"));
        let shown = finish(script).expect(0).stdout;
        for nasty in ["\x1b[31mred", "\x1b]0", "\x07", "\u{202e}", "\u{9b}"] {
            assert!(!shown.contains(nasty), "{nasty:?} in {shown:?}");
        }
        assert!(
            !shown
                .lines()
                .any(|line| line.starts_with("sandtrace: fake"))
        );
    }
}

#[track_caller]
fn assert_safe(text: &str) {
    let bad = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202e}' | '\u{feff}');
    assert!(!text.contains(bad), "{text:?}");
    assert!(
        !text.lines().any(|line| line.starts_with("sandtrace: fake")),
        "{text}"
    );
}

/// One question of type A, the whole name as one label (RFC 1035 section 4.1).
fn question(label: &[u8]) -> Vec<u8> {
    let label = &label[..label.len().min(63)];
    let mut dns = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    dns.push(u8::try_from(label.len()).unwrap());
    dns.extend(label);
    dns.extend([0, 0, 1, 0, 1]);
    let mut udp = vec![0x9c, 0x40, 0, 53];
    udp.extend(u16::try_from(8 + dns.len()).unwrap().to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(dns);
    ipv4(17, [203, 0, 113, 53], &udp)
}

/// A segment in the middle of a connection to port 80.
fn http_request(host: &[u8]) -> Vec<u8> {
    let mut tcp = vec![
        0x9c, 0x41, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0,
    ];
    tcp.extend(b"GET /\x1b[2J HTTP/1.1\r\nHost: ");
    tcp.extend(host);
    tcp.extend(b"\r\n\r\n");
    ipv4(6, [203, 0, 113, 20], &tcp)
}

/// Checksums are left zero, as by a guest that leaves them to its device.
fn ipv4(protocol: u8, to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0];
    frame.extend(u16::try_from(20 + payload.len()).unwrap().to_be_bytes());
    frame.extend([0, 1, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 2]);
    frame.extend(to);
    frame.extend(payload);
    frame
}
