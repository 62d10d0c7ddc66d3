//! Datagrams in fragments: in any order, overlapping, incomplete.

use super::totals::check_sums;
use crate::testing::lab::Lab;
use crate::testing::talk::{Frames, RESOLVER, SANDBOX, SERVER, Talk, datagram, dns};
use crate::testing::tls::hello_records;
use crate::{Direction::FromSandbox, Direction::ToSandbox, FlowConfig, Protocol};
use proptest::prelude::*;

/// An Ethernet frame with IPv4 in fragments of `size` bytes, a multiple of 8.
pub(crate) fn split_v4(frame: &[u8], size: usize, id: u16) -> Vec<Vec<u8>> {
    let (header, payload) = frame.split_at(34);
    let count = payload.len().div_ceil(size);
    payload
        .chunks(size)
        .enumerate()
        .map(|(number, part)| {
            let mut header = header.to_vec();
            header[16..18].copy_from_slice(&(20 + part.len() as u16).to_be_bytes());
            header[18..20].copy_from_slice(&id.to_be_bytes());
            let more = if number + 1 < count { 0x2000 } else { 0 };
            let field = more | (number * size / 8) as u16;
            header[20..22].copy_from_slice(&field.to_be_bytes());
            [&header[..], part].concat()
        })
        .collect()
}

/// The same of IPv6, with a fragment header after the fixed one.
fn split_v6(frame: &[u8], size: usize, id: u32) -> Vec<Vec<u8>> {
    let (header, payload) = frame.split_at(54);
    let next = header[20];
    let count = payload.len().div_ceil(size);
    payload
        .chunks(size)
        .enumerate()
        .map(|(number, part)| {
            let mut header = header.to_vec();
            header[18..20].copy_from_slice(&(8 + part.len() as u16).to_be_bytes());
            header[20] = 44;
            let more = u16::from(number + 1 < count);
            let field = (number * size) as u16 | more;
            let mut extension = vec![next, 0];
            extension.extend(field.to_be_bytes());
            extension.extend(id.to_be_bytes());
            [&header[..], &extension, part].concat()
        })
        .collect()
}

fn tls_talk(fragment: usize) -> Frames {
    let talk = Talk::open(40_000, 443).client(&hello_records("tiny.example", 1200, 4000));
    let mut frames = Frames::new();
    for (number, (direction, frame)) in talk.frames.into_iter().enumerate() {
        let parts = split_v4(&frame, fragment, 100 + number as u16);
        frames.extend(parts.into_iter().map(|part| (direction, part)));
    }
    frames
}

#[test]
fn a_hello_in_tiny_fragments_is_read() {
    for size in [8, 16, 24, 512] {
        let mut lab = Lab::new(FlowConfig::default());
        lab.play_all(&tls_talk(size));
        let closed = lab.finish();
        assert_eq!(closed.len(), 1, "{size}");
        assert_eq!(closed[0].host.as_deref(), Some("tiny.example"));
        assert!(!closed[0].findings.contains(&"fragmented"));
        check_sums(&mut lab);
    }
}

#[test]
fn an_answer_in_fragments_is_evidence_also_backwards_and_over_ipv6() {
    let mut lab = Lab::new(FlowConfig {
        accepted_resolvers: vec![RESOLVER.into()],
        ..FlowConfig::default()
    });
    lab.play(&datagram(
        FromSandbox,
        5000,
        RESOLVER,
        53,
        &dns(7, "a.example", None),
    ));
    let (_, answer) = datagram(
        ToSandbox,
        5000,
        RESOLVER,
        53,
        &dns(7, "a.example", Some(SERVER)),
    );
    for part in split_v4(&answer, 16, 9).iter().rev() {
        lab.play(&(ToSandbox, part.clone()));
    }
    assert!(lab.sink.dns[0].matched);
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv6([1; 16], [2; 16], 64)
        .udp(1, 2)
        .write(&mut frame, &[7; 300])
        .unwrap();
    for part in split_v6(&frame, 64, 11) {
        lab.play(&(FromSandbox, part));
    }
    let closed = lab.finish();
    let v6 = closed
        .iter()
        .find(|flow| flow.peer.port == Some(2))
        .unwrap();
    assert_eq!((v6.sent.payload_bytes, v6.sent.packets), (300, 5));
    assert!(v6.findings.is_empty(), "{:?}", v6.findings);
    check_sums(&mut lab);
}

#[test]
fn overlaps_are_told_and_what_came_first_stays() {
    let (_, frame) = datagram(FromSandbox, 5000, SERVER, 9, &[1; 56]);
    let mut parts = split_v4(&frame, 32, 3);
    let mut other = parts[0].clone();
    other[40] = 99;
    parts.insert(1, other);
    let mut lab = Lab::new(FlowConfig::default());
    for part in &parts {
        lab.play(&(FromSandbox, part.clone()));
    }
    let closed = lab.finish();
    assert_eq!(closed[0].peer.port, Some(9));
    assert_eq!(closed[0].findings, ["overlapping_fragments"]);
    // A frame that the link repeated says nothing.
    let mut parts = split_v4(&frame, 32, 4);
    parts.insert(1, parts[0].clone());
    let mut lab = Lab::new(FlowConfig::default());
    for part in &parts {
        lab.play(&(FromSandbox, part.clone()));
    }
    assert!(lab.finish()[0].findings.is_empty());
    check_sums(&mut lab);
}

#[test]
fn what_never_becomes_whole_is_counted_in_time_and_in_bounds() {
    let mut lab = Lab::new(FlowConfig::default());
    for id in 0..5000 {
        let (_, frame) = datagram(FromSandbox, 5000, SERVER, 9, &[1; 1400]);
        lab.play(&(FromSandbox, split_v4(&frame, 1200, id).remove(0)));
    }
    let next = lab.wait(0).unwrap();
    assert!(next <= lab.now_us + 30_000_000);
    lab.wait(31_000_000);
    lab.wait(61_000_000);
    let closed = lab.closed();
    assert!(closed.iter().all(|flow| flow.protocol == Protocol::Udp));
    let packets: u64 = closed.iter().map(|flow| flow.sent.packets).sum();
    assert_eq!(packets, 5000);
    assert!(closed.iter().all(|flow| flow.findings == ["fragmented"]));
    check_sums(&mut lab);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn fragments_in_any_state_are_counted(
        parts in proptest::collection::vec((0_u16..4, 0_u16..40, any::<bool>(), 0_usize..60), 1..60),
    ) {
        let mut lab = Lab::new(FlowConfig::default());
        let (_, frame) = datagram(FromSandbox, 5000, SERVER, 9, &[1; 56]);
        for (id, offset, more, len) in parts {
            let mut part = frame[..34 + len].to_vec();
            part[16..18].copy_from_slice(&(20 + len as u16).to_be_bytes());
            part[18..20].copy_from_slice(&id.to_be_bytes());
            let field = offset | if more { 0x2000 } else { 0 };
            part[20..22].copy_from_slice(&field.to_be_bytes());
            lab.play(&(FromSandbox, part));
        }
        check_sums(&mut lab);
    }
}

#[test]
fn the_sandbox_address_is_that_of_the_fragments() {
    let mut lab = Lab::new(FlowConfig {
        sandbox_addresses: vec![SANDBOX.into()],
        ..FlowConfig::default()
    });
    lab.play_all(&tls_talk(64));
    assert!(
        lab.finish()
            .iter()
            .all(|flow| flow.findings.iter().all(|it| *it == "sni_not_in_dns"))
    );
}

#[test]
fn a_conversation_begins_with_its_first_fragment() {
    let (_, frame) = datagram(FromSandbox, 5000, SERVER, 9, &[1; 56]);
    let parts = split_v4(&frame, 24, 3);
    for whole in [true, false] {
        let mut lab = Lab::new(FlowConfig::default());
        for part in parts.iter().skip(usize::from(!whole)) {
            lab.wait(50_000);
            lab.play(&(FromSandbox, part.clone()));
        }
        let closed = lab.finish();
        assert_eq!(closed[0].peer.port.is_some(), whole);
        assert_eq!(closed[0].started.mono_us, 1_050_010);
    }
}
