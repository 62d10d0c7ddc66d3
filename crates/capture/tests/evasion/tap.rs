//! A tap in a namespace of its own, watched.

use crate::alike::alike;
use sandtrace_capture::Observer;
use sandtrace_capture::network::{Backend, EvidenceConfig, NetworkCollector, NetworkTarget};
use sandtrace_event::{
    DnsQuery, EvidenceTier, Flow, FlowPhase, IngressFlow, Limits, Observation, Passed, Payload,
    Reconciliation,
};
use sandtrace_sys::netns;
use sandtrace_sys::ring::RingConfig;
use sandtrace_sys::tap::Tap;
use sandtrace_wire::FlowConfig;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

pub(crate) const GUEST: [u8; 4] = [10, 9, 0, 2];
/// The host's addresses on the tap: an accepted resolver and one that is not.
pub(crate) const RESOLVER: [u8; 4] = [10, 9, 0, 1];
pub(crate) const OTHER_RESOLVER: [u8; 4] = [10, 9, 0, 66];
pub(crate) const GUEST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// The namespace, the far ends of its taps, and what was seen.
pub(crate) struct Ground {
    name: String,
    taps: Vec<Tap>,
}

/// One watched interface.
pub(crate) struct Watched {
    ring: Watch,
    /// The same by the other backend at the same time, whose records must be
    /// the same; it keeps no evidence.
    programs: Option<Watch>,
}

struct Watch {
    collector: NetworkCollector,
    seen: Seen,
}

/// All records of one interface.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    payloads: Vec<Payload>,
    /// What a policy would bound each conversation by.
    limits: Limits,
}

impl Ground {
    /// `None` where the test cannot make namespaces; that fails in CI.
    pub(crate) fn new(test: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "CI must run as root");
            println!("skipped: {test}: needs root");
            return None;
        }
        let name = format!("ste-{}-{test}", std::process::id());
        ip(&["netns", "add", &name]);
        let mut ground = Self {
            name,
            taps: Vec::new(),
        };
        ground.add_tap("tap0");
        ground.ip(&["link", "set", "tap0", "address", "02:00:00:00:00:01"]);
        for address in [RESOLVER, OTHER_RESOLVER] {
            let [a, b, c, d] = address;
            ground.ip(&["addr", "add", &format!("{a}.{b}.{c}.{d}/24"), "dev", "tap0"]);
        }
        let mac = "02:00:00:00:00:02";
        ground.ip(&[
            "neigh",
            "add",
            "10.9.0.2",
            "lladdr",
            mac,
            "nud",
            "permanent",
            "dev",
            "tap0",
        ]);
        Some(ground)
    }

    pub(crate) fn add_tap(&mut self, name: &str) {
        self.add(name, Tap::open);
    }

    /// One with offloads: a header goes before each frame.
    pub(crate) fn add_offloading_tap(&mut self, name: &str) {
        self.add(name, Tap::open_with_offloads);
    }

    /// One that is there whether anybody holds it or not.
    pub(crate) fn add_lasting_tap(&mut self, name: &str) {
        self.ip(&["tuntap", "add", name, "mode", "tap"]);
        self.add_tap(name);
    }

    /// The far end of a tap is let go, and held by the next one.
    pub(crate) fn hold_again(&mut self, tap: usize) {
        let name = self.taps.remove(tap).name().to_owned();
        self.add_tap(&name);
    }

    fn add(&mut self, name: &str, open: fn(&str) -> std::io::Result<Tap>) {
        let tap = netns::within(Some(&self.path()), || open(name)).unwrap();
        self.taps.push(tap.unwrap());
        // The host must not speak on it by itself.
        self.ip(&["link", "set", name, "addrgenmode", "none"]);
        self.ip(&["link", "set", name, "arp", "off"]);
        self.ip(&["link", "set", name, "up"]);
    }

    pub(crate) fn watch(&self) -> Watched {
        self.watch_with("tap0", None, &FlowConfig::default())
    }

    pub(crate) fn watch_with(
        &self,
        interface: &str,
        evidence: Option<&Path>,
        flows: &FlowConfig,
    ) -> Watched {
        let evidence = evidence.map(|directory| EvidenceConfig {
            directory: directory.to_owned(),
            prefix: "box".to_owned(),
            max_bytes: 100_000,
        });
        let watch = |backend| Watch {
            collector: NetworkCollector::attach(NetworkTarget {
                interface: interface.to_owned(),
                netns: Some(self.path()),
                tier: EvidenceTier::Hypervisor,
                backend,
                hub: None,
                flows: FlowConfig {
                    accepted_resolvers: vec![RESOLVER.into()],
                    sandbox_addresses: vec![GUEST.into()],
                    check_macs: true,
                    ..flows.clone()
                },
                ring: RingConfig::default(),
                evidence: evidence.clone().filter(|_| backend == Backend::AfPacket),
            })
            .unwrap(),
            seen: Seen::default(),
        };
        Watched {
            programs: evidence.is_none().then(|| watch(Backend::Ebpf)),
            ring: watch(Backend::AfPacket),
        }
    }

    /// The guest sends a frame.
    pub(crate) fn send(&self, frame: &[u8]) {
        self.send_into(0, frame);
    }

    pub(crate) fn send_into(&self, tap: usize, frame: &[u8]) {
        let written = rustix::io::write(&self.taps[tap], frame).unwrap();
        assert_eq!(written, frame.len());
    }

    /// A resolver of the host's that answers one question of the guest with
    /// what `answer` makes of it, over the tap.
    pub(crate) fn answer(&self, at: [u8; 4], question: &[u8], answer: &[u8]) {
        self.answer_at((at, 53), question, answer);
    }

    /// The same by whoever has another port there.
    pub(crate) fn answer_at(&self, at: ([u8; 4], u16), question: &[u8], answer: &[u8]) {
        let socket = netns::within(Some(&self.path()), || {
            UdpSocket::bind((std::net::IpAddr::from(at.0), at.1))
        });
        let socket = socket.unwrap().unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        self.send(question);
        let mut buffer = [0; 1500];
        let (_, asker) = socket.recv_from(&mut buffer).unwrap();
        socket.send_to(answer, asker).unwrap();
    }

    pub(crate) fn path(&self) -> PathBuf {
        netns::path_of(&self.name)
    }

    pub(crate) fn ip(&self, arguments: &[&str]) {
        ip(&[&["-n", self.name.as_str()], arguments].concat());
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let status = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
        assert!(status.unwrap().success() || std::thread::panicking());
    }
}

#[track_caller]
fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().unwrap();
    assert!(status.success(), "ip {arguments:?}");
}

impl Observer for Seen {
    fn observe(&mut self, observation: Observation) -> Limits {
        self.payloads.push(observation.payload);
        self.limits
    }
}

impl Watched {
    /// Bounds every conversation.
    pub(crate) fn bound_by(&mut self, limits: Limits) {
        for watch in [&mut self.ring].into_iter().chain(&mut self.programs) {
            watch.seen.limits = limits;
        }
    }

    /// Reads while frames come.
    pub(crate) fn drain(&mut self) {
        self.drain_within(Duration::from_millis(50));
    }

    /// Reads until no frame came for so long.
    pub(crate) fn drain_within(&mut self, quiet: Duration) {
        let mut quiet_since = Instant::now();
        while quiet_since.elapsed() < quiet {
            if self.read() > 0 {
                quiet_since = Instant::now();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn read(&mut self) -> usize {
        let programs = self.programs.as_mut().map_or(0, Watch::read);
        self.ring.read() + programs
    }

    /// Lets both do what is due, as a session does.
    pub(crate) fn tick(&mut self) {
        for watch in [&mut self.ring].into_iter().chain(&mut self.programs) {
            watch.collector.tick(&mut watch.seen);
        }
    }

    /// What both have told so far.
    pub(crate) fn payloads(&self) -> impl Iterator<Item = &[Payload]> {
        let watches = [&self.ring].into_iter().chain(&self.programs);
        watches.map(|watch| watch.seen.payloads())
    }

    /// What had passed before, and what both report of it.
    pub(crate) fn report_passed(&self) -> [(Option<Passed>, Vec<Payload>); 2] {
        let report = |watch: &Watch| {
            let mut seen = Seen::default();
            watch.collector.report_passed(&mut seen);
            (watch.collector.passed().cloned(), seen.payloads)
        };
        [&self.ring, self.programs.as_ref().unwrap()].map(report)
    }

    /// Ends the watch where the interface has counted what nobody could capture.
    #[track_caller]
    pub(crate) fn finish_short(mut self) -> Vec<Seen> {
        self.drain();
        let watches = [self.ring].into_iter().chain(self.programs);
        let finish = |mut watch: Watch| {
            let result = watch.collector.finish(&mut watch.seen).unwrap();
            assert!(!result.matches, "{result:?}");
            watch.seen
        };
        watches.map(finish).collect()
    }

    /// The same for traffic that goes on while first records are made: these have the
    /// sums of their moment, so the last ones and the questions are compared.
    #[track_caller]
    pub(crate) fn finish_busy(mut self) -> Seen {
        self.drain();
        let seen = self.ring.finish();
        let is_last = |record: &String| {
            !["Open", "Update"]
                .iter()
                .any(|phase| record.contains(&format!(" phase: {phase},")))
        };
        let counted = self.programs.unwrap().finish();
        let [counted, all] = [&counted, &seen].map(|seen| {
            let records = alike(&seen.payloads).into_iter();
            records.filter(is_last).collect::<Vec<_>>()
        });
        for (counted, seen) in counted.iter().zip(&all) {
            assert_eq!(counted, seen, "eBPF against the packet ring");
        }
        assert_eq!(counted.len(), all.len());
        seen
    }

    /// Ends the watch. Everything must be reconciled with the interface, and
    /// be the same by whatever means it was captured.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Seen {
        self.drain();
        let seen = self.ring.finish();
        if let Some(programs) = self.programs {
            let (counted, all) = (programs.finish(), alike(&seen.payloads));
            for (counted, seen) in alike(&counted.payloads).iter().zip(&all) {
                assert_eq!(counted, seen, "eBPF against the packet ring");
            }
            assert_eq!(alike(&counted.payloads).len(), all.len());
        }
        seen
    }
}

impl Watch {
    fn read(&mut self) -> usize {
        self.collector.read(&mut self.seen)
    }

    #[track_caller]
    fn finish(mut self) -> Seen {
        let result = self.collector.finish(&mut self.seen).unwrap();
        assert!(result.matches, "{result:?}");
        assert_eq!(result.ring_drops.0, 0);
        self.seen.check_sums(&result);
        self.seen
    }
}

impl Seen {
    /// Conversations that the guest began, at their close.
    pub(crate) fn flows(&self) -> Vec<&Flow> {
        let closed = |flow: &&Flow| flow.phase == FlowPhase::Close;
        let egress = self.payloads.iter().filter_map(|payload| match payload {
            Payload::NetworkEgress(flow) => Some(flow),
            _ => None,
        });
        egress.filter(closed).collect()
    }

    /// The one conversation to this port.
    #[track_caller]
    pub(crate) fn to_port(&self, port: u16) -> &Flow {
        let flows = self.flows();
        let mut to: Vec<_> = flows
            .iter()
            .filter(|flow| flow.dst_port == Some(port))
            .collect();
        assert_eq!(to.len(), 1, "{flows:#?}");
        to.remove(0)
    }

    pub(crate) fn questions(&self) -> Vec<&DnsQuery> {
        let questions = self.payloads.iter().filter_map(|payload| match payload {
            Payload::DnsQuery(query) => Some(query),
            _ => None,
        });
        questions.collect()
    }

    pub(crate) fn payloads(&self) -> &[Payload] {
        &self.payloads
    }

    /// The flows' own records add up to the interface's counters.
    #[track_caller]
    fn check_sums(&self, result: &Reconciliation) {
        let mut sums = [0; 2];
        for payload in &self.payloads {
            let (Payload::NetworkEgress(flow) | Payload::NetworkIngress(IngressFlow(flow))) =
                payload
            else {
                continue;
            };
            if flow.phase == FlowPhase::Close && flow.tunnel.is_none() {
                sums[0] += flow.packets_sent.0;
                sums[1] += flow.wire_bytes_sent.0;
            }
        }
        let interface = [
            result.interface_packets_sent.0,
            result.interface_bytes_sent.0,
        ];
        assert_eq!(sums, interface);
    }
}
