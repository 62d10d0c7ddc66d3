//! More conversations than can be reported: nothing is lost, memory is bounded.

use super::totals::check_sums;
use crate::testing::lab::Lab;
use crate::testing::talk::{RESOLVER, SANDBOX, SERVER, datagram};
use crate::{Direction::FromSandbox, Direction::ToSandbox, FlowConfig, Phase};
use etherparse::PacketBuilder;

fn syn(port: u16, to: [u8; 4]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([10, 0, 0, 2], to, 64)
        .tcp(40_000, port, 1, 1000)
        .syn()
        .write(&mut frame, &[])
        .unwrap();
    frame
}

#[test]
fn a_scan_is_counted_in_bounded_memory_and_few_records() {
    let mut lab = Lab::new(FlowConfig {
        max_flows: 1000,
        ..FlowConfig::default()
    });
    for number in 0..100_000_u32 {
        let to = [198, 51, (number >> 16) as u8, 7];
        lab.play(&(FromSandbox, syn((number & 0xffff) as u16, to)));
    }
    let reports = lab.sink.reports.len();
    assert!(reports < 3000, "{reports}");
    check_sums(&mut lab);
    let closed = lab.closed();
    let counted: u64 = closed
        .iter()
        .map(|flow| flow.aggregate.as_ref().map_or(1, |it| it.flows))
        .sum();
    assert_eq!(counted, 100_000);
    let networks = closed
        .iter()
        .filter_map(|flow| flow.aggregate.as_ref()?.network.clone());
    assert!(networks.clone().any(|network| network == "198.51.1.0/24"));
}

#[test]
fn a_burst_of_conversations_is_reported_and_then_a_rate_of_them() {
    let mut lab = Lab::new(FlowConfig {
        open_burst: 100,
        opens_per_second: 10,
        ..FlowConfig::default()
    });
    for port in 1..=1000 {
        lab.play(&datagram(FromSandbox, 5000, SERVER, port, &[0; 10]));
    }
    let opened = lab
        .sink
        .reports
        .iter()
        .filter(|it| it.phase == Phase::Open && it.aggregate.is_none());
    assert!((100..=101).contains(&opened.count()));
    // The sums go on being reported, and end when nothing more comes.
    for _ in 0..3 {
        lab.wait(30_000_000);
        lab.play(&datagram(FromSandbox, 5001, SERVER, 1, &[0; 10]));
    }
    lab.wait(61_000_000);
    assert!(lab.closed().iter().any(|it| it.aggregate.is_some()));
    check_sums(&mut lab);
    let payload: u64 = lab.closed().iter().map(|it| it.sent.payload_bytes).sum();
    assert_eq!(payload, 10_030);
}

#[test]
fn while_nobody_can_take_reports_packets_are_counted_and_bounds_told() {
    let mut lab = Lab::with_call_bound(FlowConfig::default(), 50);
    lab.sink.full = true;
    for port in 1..=100 {
        lab.play(&datagram(FromSandbox, 5000, SERVER, port, &[0; 10]));
    }
    lab.wait(200_000);
    assert!(lab.sink.reports.is_empty(), "{:?}", lab.sink.reports);
    lab.sink.full = false;
    lab.wait(1);
    assert_eq!(lab.sink.reports.len(), 100);
    assert!(lab.sink.reports.iter().all(|it| it.phase == Phase::Open));

    lab.sink.full = true;
    lab.play(&datagram(FromSandbox, 5000, SERVER, 1, &[0; 60]));
    let crossed = lab.sink.reports.last().unwrap();
    assert_eq!((crossed.phase, crossed.max_call_bytes), (Phase::Update, 70));
    // The end waits for nobody.
    check_sums(&mut lab);
}

#[test]
fn a_second_source_mac_is_a_finding_where_that_is_asked_for() {
    for check in [false, true] {
        let mut lab = Lab::new(FlowConfig {
            check_macs: check,
            ..FlowConfig::default()
        });
        lab.play(&(FromSandbox, syn(1, SERVER)));
        let mut other = syn(2, SERVER);
        other[6..12].fill(6);
        lab.play(&(FromSandbox, other));
        let closed = lab.finish();
        assert!(closed[0].findings.is_empty());
        assert_eq!(closed[1].findings.contains(&"spoofed_mac"), check);
    }
}

#[test]
fn each_vlan_has_a_router_of_its_own_up_to_a_bound() {
    let mut lab = Lab::new(FlowConfig {
        check_macs: true,
        ..FlowConfig::default()
    });
    // What is sent to it, and what it sends within a network, says nothing of routers.
    lab.play(&(ToSandbox, syn(1, SERVER)));
    let by = |router: u8, vlan: u8| {
        let mut frame = syn(1000 + u16::from(vlan), SERVER);
        frame[5] = router;
        frame.splice(12..12, [0x81, 0, 0, vlan]);
        (FromSandbox, frame)
    };
    for vlan in 1..=17 {
        lab.play(&by(vlan, vlan));
    }
    lab.play(&by(9, 1));
    let closed = lab.finish();
    let changed = closed
        .iter()
        .filter(|it| it.findings.contains(&"next_hop_changed"));
    let vlans: Vec<_> = changed.map(|it| it.vlan).collect();
    assert_eq!(vlans, [Some(1), Some(17)]);
}

#[test]
fn only_what_the_sandbox_sends_has_a_spoofed_source() {
    let config = FlowConfig {
        sandbox_addresses: vec![SERVER.into()],
        ..FlowConfig::default()
    };
    let mut lab = Lab::new(config.clone());
    lab.play(&datagram(ToSandbox, 68, RESOLVER, 67, b"to all"));
    assert!(!lab.finish()[0].findings.contains(&"spoofed_source"));
    let mut lab = Lab::new(config);
    lab.play(&datagram(ToSandbox, 68, RESOLVER, 67, b"to all"));
    lab.play(&datagram(FromSandbox, 68, RESOLVER, 67, b"from whom?"));
    assert!(lab.finish()[0].findings.contains(&"spoofed_source"));
}

#[test]
fn an_address_of_the_link_is_every_interfaces_own() {
    let link = "fe80::1".parse::<std::net::Ipv6Addr>().unwrap();
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv6(link.octets(), [2; 16], 64)
        .udp(1, 2)
        .write(&mut frame, &[7; 30])
        .unwrap();
    for (own, spoofed) in [(SANDBOX.into(), false), ([9; 16].into(), true)] {
        let mut lab = Lab::new(FlowConfig {
            sandbox_addresses: vec![own],
            ..FlowConfig::default()
        });
        lab.play(&(FromSandbox, frame.clone()));
        assert_eq!(
            lab.finish()[0].findings.contains(&"spoofed_source"),
            spoofed
        );
    }
}
