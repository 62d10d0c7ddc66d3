//! Tunnels: the outer flow always, the inner one where it is clear.

use super::totals::check_sums;
use crate::testing::lab::Lab;
use crate::testing::talk::{RESOLVER, SERVER, Talk, datagram, dns};
use crate::testing::tls::hello_records;
use crate::{Direction::FromSandbox, Direction::ToSandbox, FlowConfig, Protocol, TunnelKind};
use etherparse::PacketBuilder;

/// Wraps the IP packet of an Ethernet frame.
fn in_ip(frame: &[u8], protocol: u8, header: &[u8]) -> Vec<u8> {
    let body = [header, &frame[14..]].concat();
    let mut outer = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([10, 0, 0, 2], [198, 51, 100, 7], 64)
        .write(&mut outer, protocol.into(), &body)
        .unwrap();
    outer
}

fn in_udp(body: &[u8], port: u16) -> Vec<u8> {
    let mut outer = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([10, 0, 0, 2], [198, 51, 100, 7], 64)
        .udp(55_555, port)
        .write(&mut outer, body)
        .unwrap();
    outer
}

#[track_caller]
fn check(kind: TunnelKind, wrap: impl Fn(&[u8]) -> Vec<u8>) {
    let talk = Talk::open(40_000, 443).client(&hello_records("inner.example", 32, 4000));
    let mut lab = Lab::new(FlowConfig::default());
    let sent = talk
        .frames
        .iter()
        .filter(|(direction, _)| *direction == FromSandbox);
    let count = sent.clone().count() as u64;
    for (direction, frame) in sent {
        lab.play(&(*direction, wrap(frame)));
    }
    let closed = lab.finish();
    assert_eq!(closed.len(), 2, "{kind:?} {closed:#?}");
    let outer = closed.iter().find(|flow| flow.tunnel.is_none()).unwrap();
    let inner = closed.iter().find(|flow| flow.tunnel.is_some()).unwrap();
    let facts = inner.tunnel.unwrap();
    assert_eq!((facts.kind, facts.outer_flow), (kind, Some(outer.flow_id)));
    assert_eq!(inner.protocol, Protocol::Tcp);
    assert_eq!(inner.host.as_deref(), Some("inner.example"));
    assert_eq!((inner.sent.packets, outer.sent.packets), (count, count));
    check_sums(&mut lab);
}

#[test]
fn clear_tunnels_are_looked_into() {
    check(TunnelKind::IpInIp, |frame| in_ip(frame, 4, &[]));
    check(TunnelKind::Gre, |frame| in_ip(frame, 47, &[0, 0, 8, 0]));
    check(TunnelKind::Gre, |frame| {
        in_ip(
            frame,
            47,
            &[0xb0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2],
        )
    });
    check(TunnelKind::Gre, |frame| {
        let body = [&[0, 0, 8, 0], &frame[14..]].concat();
        in_udp(&body, 4754)
    });
    check(TunnelKind::Vxlan, |frame| {
        in_udp(&[&[8, 0, 0, 0, 0, 0, 42, 0], frame].concat(), 4789)
    });
    check(TunnelKind::Geneve, |frame| {
        in_udp(&[&[0, 0, 0x65, 0x58, 0, 0, 42, 0], frame].concat(), 6081)
    });
    check(TunnelKind::GtpU, |frame| {
        let len = (frame.len() as u16 - 14).to_be_bytes();
        in_udp(
            &[&[0x30, 255, len[0], len[1], 0, 0, 0, 9], &frame[14..]].concat(),
            2152,
        )
    });
}

#[test]
fn inside_a_tunnel_addresses_prove_nothing() {
    let mut lab = Lab::new(FlowConfig {
        accepted_resolvers: vec![RESOLVER.into()],
        ..FlowConfig::default()
    });
    // Whoever ends the tunnel answers in the accepted resolver's name.
    let mut wrap = |(direction, frame): &(crate::Direction, Vec<u8>)| {
        let mut outer = in_ip(frame, 4, &[]);
        if *direction == ToSandbox {
            let (from, to) = (outer[26..30].to_vec(), outer[30..34].to_vec());
            outer[26..30].copy_from_slice(&to);
            outer[30..34].copy_from_slice(&from);
        }
        lab.play(&(*direction, outer));
    };
    wrap(&datagram(
        FromSandbox,
        5000,
        RESOLVER,
        53,
        &dns(7, "a.example", None),
    ));
    wrap(&datagram(
        ToSandbox,
        5000,
        RESOLVER,
        53,
        &dns(7, "a.example", Some(SERVER)),
    ));
    lab.play_all(
        &Talk::open(40_000, 443)
            .client(&hello_records("a.example", 32, 4000))
            .frames,
    );
    assert!(lab.sink.dns[0].matched && !lab.sink.dns[0].resolver_accepted);
    let closed = lab.finish();
    let direct = closed
        .iter()
        .find(|flow| flow.peer.port == Some(443))
        .unwrap();
    assert!(
        direct.names.iter().all(|name| !name.agrees),
        "{:?}",
        direct.names
    );
    assert!(direct.findings.contains(&"sni_not_in_dns"));
}

#[test]
fn depth_and_number_of_tunnels_are_bounded() {
    let (_, frame) = datagram(FromSandbox, 5000, SERVER, 9, &[1; 5]);
    let mut nested = frame;
    for _ in 0..20 {
        nested = in_ip(&nested, 4, &[]);
    }
    let mut lab = Lab::new(FlowConfig::default());
    lab.play(&(FromSandbox, nested));
    assert_eq!(lab.finish().len(), 5);
    check_sums(&mut lab);
    let mut lab = Lab::new(FlowConfig::default());
    for number in 0..3000_u32 {
        let (_, frame) = datagram(FromSandbox, 5000, SERVER, 9, &[1; 5]);
        let id = number.to_be_bytes();
        let header = [8, 0, 0, 0, id[1], id[2], id[3], 0];
        lab.play(&(FromSandbox, in_udp(&[&header, &frame[..]].concat(), 4789)));
    }
    assert_eq!(lab.finish().len(), 3001);
    check_sums(&mut lab);
}

#[test]
fn labels_and_sessions_are_headers_of_the_link() {
    let (_, frame) = datagram(FromSandbox, 5000, SERVER, 9, &[1; 25]);
    let len = (frame.len() as u16 - 12).to_be_bytes();
    for header in [
        &[0x88, 0x47, 0, 1, 0, 64, 0, 2, 1, 64][..],
        &[0x88, 0x64, 0x11, 0, 0, 7, len[0], len[1], 0, 0x21],
        &[0x89, 0x26, 0x80, 0, 0, 0, 8, 0],
    ] {
        let mut lab = Lab::new(FlowConfig::default());
        lab.play(&(FromSandbox, [&frame[..12], header, &frame[14..]].concat()));
        let closed = lab.finish();
        assert_eq!(closed[0].protocol, Protocol::Udp, "{header:x?}");
        assert_eq!(closed[0].sent.payload_bytes, 25, "{header:x?}");
        assert!(closed[0].findings.is_empty());
    }
}

#[test]
fn fragments_inside_a_tunnel_that_are_not_joined_stay_in_it() {
    let (_, frame) = datagram(FromSandbox, 5000, SERVER, 9, &[1; 500]);
    let part = super::pieces::split_v4(&frame, 200, 7).remove(0);
    let mut lab = Lab::new(FlowConfig::default());
    lab.play(&(FromSandbox, in_ip(&part, 4, &[])));
    let closed = lab.finish();
    assert_eq!(closed.len(), 2);
    let inner = closed
        .iter()
        .find(|flow| flow.findings.contains(&"fragmented"));
    assert!(inner.unwrap().tunnel.is_some());
    check_sums(&mut lab);
}

#[test]
fn a_tunnel_that_cannot_be_read_is_told() {
    #[track_caller]
    fn check(begin: &[u8], length: usize, told: bool) {
        let mut payload = begin.to_vec();
        payload.resize(length, 9);
        let mut lab = Lab::new(FlowConfig::default());
        lab.play(&datagram(FromSandbox, 40_000, SERVER, 51_820, &payload));
        lab.play(&datagram(ToSandbox, 40_000, SERVER, 51_820, &[2; 92]));
        assert_eq!(lab.finish()[0].findings.contains(&"wireguard"), told);
    }
    check(&[1, 0, 0, 0], 148, true);
    check(&[1, 0, 0, 0], 147, false);
    check(&[4, 0, 0, 0], 148, false);
}
