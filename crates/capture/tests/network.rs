//! The network collector on real interfaces, in namespaces that the tests make.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking and say what they skip"
)]

use sandtrace_capture::Observer;
use sandtrace_capture::network::{Attached, Backend, NetworkCollector, NetworkHub, NetworkTarget};
use sandtrace_event::{
    Count, EvidenceTier, Flow, FlowPhase, GapCause, Limits, Observation, Payload, Protocol,
    WallTime,
};
use sandtrace_sys::netns;
use sandtrace_sys::ring::RingConfig;
use sandtrace_wire::FlowConfig;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// Two namespaces joined by a veth pair: `box0` in the sandbox, `host0` on the host's side.
struct Pair {
    host: String,
    sandbox: String,
}

impl Pair {
    /// `None` where the test cannot make namespaces; that fails in CI.
    fn new(name: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "CI must run as root");
            println!("skipped: {name}: needs root");
            return None;
        }
        let unique = format!("stc-{}-{name}", std::process::id());
        let pair = Self {
            host: format!("{unique}-h"),
            sandbox: format!("{unique}-s"),
        };
        ip(&["netns", "add", &pair.host]);
        ip(&["netns", "add", &pair.sandbox]);
        ip(&[
            "-n",
            &pair.host,
            "link",
            "add",
            "host0",
            "type",
            "veth",
            "peer",
            "name",
            "box0",
            "netns",
            &pair.sandbox,
        ]);
        for (namespace, interface, address) in [
            (&pair.host, "host0", "10.9.0.1/24"),
            (&pair.sandbox, "box0", "10.9.0.2/24"),
        ] {
            ip(&["-n", namespace, "addr", "add", address, "dev", interface]);
            ip(&["-n", namespace, "link", "set", interface, "up"]);
        }
        Some(pair)
    }

    fn attach(&self, backend: Backend) -> NetworkCollector {
        NetworkCollector::attach(self.target(backend)).unwrap()
    }

    fn target(&self, backend: Backend) -> NetworkTarget {
        NetworkTarget {
            interface: "host0".to_owned(),
            netns: Some(netns::path_of(&self.host)),
            tier: EvidenceTier::Kernel,
            backend,
            flows: FlowConfig::default(),
            ring: RingConfig::default(),
            evidence: None,
            hub: None,
        }
    }

    fn path(&self) -> PathBuf {
        netns::path_of(&self.sandbox)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for namespace in [&self.host, &self.sandbox] {
            Command::new("ip")
                .args(["netns", "del", namespace])
                .status()
                .unwrap();
        }
    }
}

#[track_caller]
fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().unwrap();
    assert!(status.success(), "ip {arguments:?}");
}

#[derive(Default)]
struct Seen(Vec<Payload>);

impl Observer for Seen {
    fn observe(&mut self, observation: Observation) -> Limits {
        self.0.push(observation.payload);
        Limits::default()
    }
}

/// An observer whose queue may be full.
struct Full {
    seen: Seen,
    is_full: bool,
}

impl Observer for Full {
    fn observe(&mut self, observation: Observation) -> Limits {
        self.seen.observe(observation)
    }

    fn room(&self) -> usize {
        if self.is_full { 0 } else { usize::MAX }
    }
}

impl Seen {
    fn closed(&self, protocol: Protocol) -> impl Iterator<Item = &Flow> {
        self.0.iter().filter_map(move |payload| match payload {
            Payload::NetworkEgress(flow)
                if flow.phase == FlowPhase::Close && flow.protocol == protocol =>
            {
                Some(flow)
            }
            _ => None,
        })
    }
}

/// Each test runs with each of them.
const BACKENDS: [Backend; 2] = [Backend::AfPacket, Backend::Ebpf];

/// Reads until nothing came for a while.
fn drain(collector: &mut NetworkCollector, seen: &mut Seen) {
    let mut quiet_since = Instant::now();
    while quiet_since.elapsed() < Duration::from_millis(100) {
        if collector.read(seen) > 0 {
            quiet_since = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_full_queue_is_not_asked_without_a_pause() {
    BACKENDS.into_iter().for_each(pauses_before_a_full_queue);
}

fn pauses_before_a_full_queue(backend: Backend) {
    let Some(pair) = Pair::new("full") else {
        return;
    };
    let mut collector = pair.attach(backend);
    let mut observer = Full {
        seen: Seen::default(),
        is_full: true,
    };
    netns::within(Some(&pair.path()), || {
        let socket = UdpSocket::bind(("10.9.0.2", 20_000)).unwrap();
        socket.send_to(b"x", ("10.9.0.1", 9)).unwrap();
    })
    .unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(200) {
        collector.read(&mut observer);
        std::thread::sleep(Duration::from_millis(2));
    }
    let now_us = sandtrace_sys::clock::boot_us();
    let (next_us, _) = collector.tick(&mut observer);
    assert!(next_us > now_us, "due {} us ago", now_us - next_us);
    assert!(collector.due_us(now_us) > now_us);
    assert!(observer.seen.0.is_empty(), "{:?}", observer.seen.0);

    observer.is_full = false;
    collector.tick(&mut observer);
    assert!(!observer.seen.0.is_empty(), "room was made");
}

#[test]
fn every_datagram_is_counted_in_its_flow() {
    BACKENDS.into_iter().for_each(counts_every_datagram);
}

fn counts_every_datagram(backend: Backend) {
    let Some(pair) = Pair::new("count") else {
        return;
    };
    let mut collector = pair.attach(backend);
    let mut seen = Seen::default();
    netns::within(Some(&pair.path()), || {
        for port in 0..50_u16 {
            let socket = UdpSocket::bind(("10.9.0.2", 20_000 + port)).unwrap();
            for size in 0..=port {
                socket
                    .send_to(&vec![7; usize::from(size)], ("10.9.0.1", 9))
                    .unwrap();
            }
        }
    })
    .unwrap();
    drain(&mut collector, &mut seen);
    let result = collector.finish(&mut seen).unwrap();

    assert!(result.matches, "{result:?}");
    assert_eq!(result.ring_drops.0, 0);
    let mut flows: Vec<_> = seen.closed(Protocol::Udp).collect();
    flows.sort_by_key(|flow| flow.src_port);
    assert_eq!(flows.len(), 50);
    for (port, flow) in (0..50_u64).zip(flows) {
        assert_eq!(flow.packets_sent.0, port + 1);
        assert_eq!(flow.bytes_sent.0, port * (port + 1) / 2);
    }
}

#[test]
fn a_transfer_is_the_same_by_both_at_once() {
    let Some(pair) = Pair::new("both") else {
        return;
    };
    let mut watches = BACKENDS.map(|backend| (pair.attach(backend), Seen::default()));
    let host = netns::path_of(&pair.host);
    let listener = netns::within(Some(&host), || TcpListener::bind("10.9.0.1:7777").unwrap());
    let listener = listener.unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            for _ in 0..CALLS {
                let mut request = vec![0; REQUEST];
                stream.read_exact(&mut request).unwrap();
                stream.write_all(&vec![1; RESPONSE]).unwrap();
            }
        });
        let client = scope.spawn(|| {
            let connect = || TcpStream::connect("10.9.0.1:7777").unwrap();
            let mut stream = netns::within(Some(&pair.path()), connect).unwrap();
            for _ in 0..CALLS {
                stream.write_all(&vec![2; REQUEST]).unwrap();
                let mut response = vec![0; RESPONSE];
                stream.read_exact(&mut response).unwrap();
            }
        });
        while !client.is_finished() {
            for (collector, seen) in &mut watches {
                collector.read(seen);
                collector.tick(seen);
            }
        }
    });
    let flows = watches.map(|(mut collector, mut seen)| {
        drain(&mut collector, &mut seen);
        let result = collector.finish(&mut seen).unwrap();
        assert!(result.matches && result.ring_drops.0 == 0, "{result:?}");
        let flow = seen.closed(Protocol::Tcp).next().unwrap().clone();
        assert_eq!(flow.bytes_sent.0, (CALLS * REQUEST) as u64);
        assert_eq!(flow.bytes_received.0, (CALLS * RESPONSE) as u64);
        assert_eq!(flow.calls.0, CALLS as u64);
        assert_eq!(flow.max_call_bytes.0, REQUEST as u64);
        Flow {
            duration_us: Count(0),
            // One may have heard a neighbour before the other was attached.
            flow_id: Count(0),
            started_at: WallTime(0),
            ..flow
        }
    });
    assert_eq!(flows[0], flows[1]);
}

const CALLS: usize = 5;
const REQUEST: usize = 1_000_000;
const RESPONSE: usize = 3_000_000;

/// Whatever is not read in time is counted all the same, and told.
#[test]
fn a_full_ring_and_a_full_table_lose_no_count_unsaid() {
    let Some(pair) = Pair::new("table") else {
        return;
    };
    let mut collector = NetworkCollector::attach(NetworkTarget {
        flows: FlowConfig {
            max_flows: 8,
            ..FlowConfig::default()
        },
        ring: RingConfig {
            block_size: 1 << 16,
            blocks: 1,
            ..RingConfig::default()
        },
        ..pair.target(Backend::Ebpf)
    })
    .unwrap();
    let mut seen = Seen::default();
    netns::within(Some(&pair.path()), || {
        for port in 0..2_000_u16 {
            let socket = UdpSocket::bind(("10.9.0.2", 20_000 + port)).unwrap();
            socket.send_to(&[7; 100], ("10.9.0.1", 9)).unwrap();
        }
    })
    .unwrap();
    drain(&mut collector, &mut seen);
    let result = collector.finish(&mut seen).unwrap();
    let gaps = seen.0.iter().filter_map(|payload| match payload {
        Payload::CaptureGap(gap) if gap.cause == GapCause::RingDrop => Some(gap.count.0),
        _ => None,
    });
    let told: u64 = gaps.sum();
    assert!(told > 0, "{result:?}");
    let sent = result.flow_packets_sent.0 + result.ring_drops.0;
    assert!(result.ring_drops.0 > 0 && sent >= result.interface_packets_sent.0);
}

#[test]
fn what_comes_after_the_stop_is_another_sandboxs() {
    BACKENDS.into_iter().for_each(hears_nothing_after_the_stop);
}

fn hears_nothing_after_the_stop(backend: Backend) {
    let Some(pair) = Pair::new("stop") else {
        return;
    };
    let mut collector = pair.attach(backend);
    let mut seen = Seen::default();
    let send = |port: u16| {
        netns::within(Some(&pair.path()), || {
            let socket = UdpSocket::bind(("10.9.0.2", port)).unwrap();
            for _ in 0..20 {
                socket.send_to(b"mine", ("10.9.0.1", 9)).unwrap();
            }
        })
        .unwrap();
    };
    send(20_000);
    // What was heard but not read yet is still its own.
    collector.stop();
    send(20_001);
    let result = collector.finish(&mut seen).unwrap();

    assert!(result.matches, "{result:?}");
    let flows: Vec<_> = seen.closed(Protocol::Udp).collect();
    let [flow] = flows.as_slice() else {
        unreachable!("{flows:?}")
    };
    assert_eq!(flow.src_port, Some(20_000));
    assert_eq!(flow.packets_sent.0, 20);
}

/// Two interfaces that share programs, tables and a ring.
#[test]
fn a_hub_tells_each_interface_what_is_its() {
    let (Some(one), Some(two)) = (Pair::new("one"), Pair::new("two")) else {
        return;
    };
    let (hub, mut reader) = NetworkHub::open(&FlowConfig::default(), 4096).unwrap();
    let mut watches: Vec<_> = [&one, &two]
        .map(|pair| {
            let target = NetworkTarget {
                hub: Some(hub.clone()),
                ..pair.target(Backend::Ebpf)
            };
            (NetworkCollector::attach(target).unwrap(), Seen::default())
        })
        .into();
    for (pair, frames) in [(&one, 300), (&two, 500)] {
        netns::within(Some(&pair.path()), || {
            let socket = UdpSocket::bind(("10.9.0.2", 20_000)).unwrap();
            for _ in 0..frames {
                socket.send_to(b"mine", ("10.9.0.1", 9)).unwrap();
            }
        })
        .unwrap();
    }
    for (watch, _) in &mut watches {
        // What would be readable is the hub's.
        assert_eq!(watch.descriptors().count(), 1);
        watch.stop();
    }
    let read = reader.read(1000, |number, heard| {
        let watch = watches
            .iter_mut()
            .find(|(it, _)| it.number() == Some(number));
        let (collector, seen) = watch.unwrap();
        collector.hear(heard, seen);
    });
    // Most were only counted.
    assert!((2..100).contains(&read), "{read}");
    for ((mut collector, mut seen), frames) in watches.into_iter().zip([300, 500]) {
        collector.take_last_counts(&mut seen);
        let result = collector.finish(&mut seen).unwrap();
        assert!(result.matches, "{result:?}");
        let flows: Vec<_> = seen.closed(Protocol::Udp).collect();
        let [flow] = flows.as_slice() else {
            unreachable!("{flows:?}")
        };
        assert_eq!(flow.packets_sent.0, frames);
    }
    // Nothing of them is left in the table.
    reader
        .read_sums(|number, _| unreachable!("sums of {number}"))
        .unwrap();
}

#[test]
fn what_was_sent_before_the_interface_went_is_read() {
    for backend in BACKENDS {
        let Some(pair) = Pair::new("gone") else {
            return;
        };
        let collector = pair.attach(backend);
        let mut seen = Seen::default();
        netns::within(Some(&pair.path()), || {
            let socket = UdpSocket::bind(("10.9.0.2", 20_000)).unwrap();
            for _ in 0..20 {
                socket.send_to(b"last words", ("10.9.0.1", 9)).unwrap();
            }
        })
        .unwrap();
        ip(&["-n", &pair.host, "link", "del", "host0"]);
        assert!(collector.finish(&mut seen).is_none());

        let flows: Vec<_> = seen.closed(Protocol::Udp).collect();
        let [flow] = flows.as_slice() else {
            unreachable!("{backend:?}: {flows:?}")
        };
        assert_eq!(flow.packets_sent.0, 20, "{backend:?}");
    }
}

#[test]
fn another_interface_is_never_heard() {
    BACKENDS.into_iter().for_each(never_hears_another);
}

fn never_hears_another(backend: Backend) {
    let Some(pair) = Pair::new("canary") else {
        return;
    };
    let Some(other) = Pair::new("other") else {
        return;
    };
    // The other tenant's link in the same namespace as the watched one.
    ip(&[
        "-n",
        &pair.host,
        "link",
        "add",
        "host1",
        "type",
        "veth",
        "peer",
        "name",
        "box1",
        "netns",
        &other.sandbox,
    ]);
    ip(&[
        "-n",
        &pair.host,
        "addr",
        "add",
        "10.8.0.1/24",
        "dev",
        "host1",
    ]);
    ip(&[
        "-n",
        &other.sandbox,
        "addr",
        "add",
        "10.8.0.2/24",
        "dev",
        "box1",
    ]);
    ip(&["-n", &pair.host, "link", "set", "host1", "up"]);
    ip(&["-n", &other.sandbox, "link", "set", "box1", "up"]);
    let flood = || {
        netns::within(Some(&other.path()), || {
            let socket = UdpSocket::bind(("10.8.0.2", 0)).unwrap();
            for _ in 0..2_000 {
                socket.send_to(b"canary", ("10.8.0.1", 9)).unwrap();
            }
        })
        .unwrap();
    };
    // Attach again and again while the other link is busy: the moment of opening is the danger.
    std::thread::scope(|scope| {
        let flooding = scope.spawn(flood);
        let mut attached = 0;
        while !flooding.is_finished() || attached < 5 {
            let mut collector = pair.attach(backend);
            let mut seen = Seen::default();
            drain(&mut collector, &mut seen);
            collector.finish(&mut seen).unwrap();
            let foreign = seen
                .closed(Protocol::Udp)
                .find(|flow| flow.dst_port == Some(9));
            assert_eq!(foreign, None);
            attached += 1;
        }
    });
}

#[test]
fn an_interface_that_vanishes_is_a_gap() {
    BACKENDS.into_iter().for_each(tells_that_it_vanished);
}

fn tells_that_it_vanished(backend: Backend) {
    let Some(pair) = Pair::new("vanish") else {
        return;
    };
    let mut collector = pair.attach(backend);
    let mut seen = Seen::default();
    assert_eq!(collector.look_at_interface(), Attached::Yes);
    ip(&["-n", &pair.host, "link", "del", "host0"]);
    assert_eq!(collector.look_at_interface(), Attached::Gone);
    assert_eq!(collector.finish(&mut seen), None);
    let gone = seen.0.iter().any(|payload| {
        matches!(payload, Payload::CaptureGap(gap) if gap.cause == GapCause::InterfaceGone)
    });
    assert!(gone);
}

#[test]
fn a_missing_interface_is_named() {
    BACKENDS.into_iter().for_each(names_what_is_missing);
}

fn names_what_is_missing(backend: Backend) {
    let Some(pair) = Pair::new("none") else {
        return;
    };
    let target = NetworkTarget {
        interface: "tap77".to_owned(),
        netns: Some(netns::path_of(&pair.host)),
        tier: EvidenceTier::Hypervisor,
        backend,
        flows: FlowConfig::default(),
        ring: RingConfig::default(),
        evidence: None,
        hub: None,
    };
    let error = NetworkCollector::attach(target).err().unwrap().to_string();
    assert!(
        error.starts_with("no interface tap77 in network namespace "),
        "{error}"
    );
}
