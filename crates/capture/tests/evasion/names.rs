//! Tricks with names: whom the guest says it talks to.

use crate::frames::{datagram, dns, fragments, hello, https, segment};
use crate::tap::{GUEST, Ground, OTHER_RESOLVER, RESOLVER, Seen};
use sandtrace_event::NameSource;

pub(crate) const ALLOWED: [u8; 4] = [198, 51, 100, 10];
const ELSEWHERE: [u8; 4] = [203, 0, 113, 66];

/// The guest looks `allowed.example` up, truly, and then sends these frames.
#[track_caller]
pub(crate) fn after_lookup(test: &str, frames: &[Vec<u8>]) -> Option<Seen> {
    let ground = Ground::new(test)?;
    let mut watched = ground.watch();
    let question = datagram(RESOLVER, (5000, 53), &dns(7, "allowed.example", None));
    ground.answer(
        RESOLVER,
        &question,
        &dns(7, "allowed.example", Some(ALLOWED)),
    );
    watched.drain();
    for frame in frames {
        ground.send(frame);
    }
    let seen = watched.finish();
    assert!(seen.questions()[0].matched && seen.questions()[0].resolver_accepted);
    Some(seen)
}

/// A connection to port 443 that begins with these client segments.
pub(crate) fn connection(to: [u8; 4], segments: &[(u32, &[u8])]) -> Vec<Vec<u8>> {
    let mut frames = vec![segment(to, (40_000, 443), 999, "S", &[])];
    let data = segments
        .iter()
        .map(|(offset, bytes)| segment(to, (40_000, 443), 1000 + offset, "PA", bytes));
    frames.extend(data);
    frames
}

#[test]
fn a_hello_out_of_order_in_pieces_is_read_and_agrees() {
    let hello = hello("allowed.example", 1600);
    let (first, rest) = hello.split_at(700);
    let (second, third) = rest.split_at(600);
    let frames = connection(
        ALLOWED,
        &[(1300, third), (0, first), (700, second), (0, first)],
    );
    let Some(seen) = after_lookup("order", &frames) else {
        return;
    };
    let flow = seen.to_port(443);
    assert_eq!(flow.dst_host, "allowed.example");
    assert!(
        flow.names.iter().all(|name| name.agrees),
        "{:?}",
        flow.names
    );
    assert!(flow.findings.is_empty(), "{:?}", flow.findings);
}

#[test]
fn the_name_of_an_allowed_host_to_another_address_does_not_agree() {
    let hello = hello("allowed.example", 10);
    let Some(seen) = after_lookup("elsewhere", &connection(ELSEWHERE, &[(0, &hello)])) else {
        return;
    };
    let flow = seen.to_port(443);
    assert_eq!(flow.dst_ip, Some(ELSEWHERE.into()));
    assert_eq!(flow.findings, ["sni_not_in_dns"]);
    assert!(flow.names.iter().all(|name| !name.agrees));
}

#[test]
fn segments_that_overlap_with_other_bytes_are_told() {
    let (honest, other) = (hello("allowed.example", 10), hello("evil000.example", 10));
    let frames = connection(
        ALLOWED,
        &[(0, &honest[..60]), (20, &other[20..]), (60, &honest[60..])],
    );
    let Some(seen) = after_lookup("overlap", &frames) else {
        return;
    };
    let findings = &seen.to_port(443).findings;
    assert!(
        findings.iter().any(|it| it == "inconsistent_reassembly"),
        "{findings:?}"
    );
}

/// The first segment is whole and names an allowed host, but it does not reach
/// the server: its checksum is wrong. The second one does.
#[test]
fn a_decoy_before_the_true_start_is_told() {
    let head = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
    let tls = |name: &str| [&hello(name, 10)[..], &[23, 3, 3, 0, 2, 1, 2]].concat();
    for (test, decoy, real) in [
        ("head", head("allowed.example"), head("evil000.example")),
        ("hello", tls("allowed.example"), tls("evil000.example")),
    ] {
        let mut frames = connection(ALLOWED, &[(0, &decoy), (0, &real)]);
        // The second frame's TCP checksum, behind 14 + 20 + 16 bytes.
        frames[1][50] ^= 0xff;
        let Some(seen) = after_lookup(test, &frames) else {
            return;
        };
        let findings = &seen.to_port(443).findings;
        assert!(
            findings.iter().any(|it| it == "inconsistent_reassembly"),
            "{test}: {findings:?}"
        );
    }
}

#[test]
fn a_hello_in_tiny_fragments_is_read() {
    let hello = hello("allowed.example", 200);
    let frames = connection(ALLOWED, &[(0, &hello)]);
    let parts = (1..)
        .zip(&frames)
        .flat_map(|(id, frame)| fragments(frame, 24, id));
    let Some(seen) = after_lookup("tiny", &parts.collect::<Vec<_>>()) else {
        return;
    };
    let flow = seen.to_port(443);
    assert_eq!(flow.dst_host, "allowed.example");
    assert!(flow.findings.is_empty(), "{:?}", flow.findings);
    assert!(flow.packets_sent.0 > 10);
}

#[test]
fn an_answer_that_the_guest_writes_itself_names_nothing() {
    let mut forged = Vec::new();
    etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4(RESOLVER, GUEST, 64)
        .udp(53, 5001)
        .write(&mut forged, &dns(8, "forged.example", Some(ELSEWHERE)))
        .unwrap();
    let question = datagram(RESOLVER, (5001, 53), &dns(8, "forged.example", None));
    let hello = hello("forged.example", 10);
    let frames = [
        vec![question, forged],
        connection(ELSEWHERE, &[(0, &hello)]),
    ]
    .concat();
    let Some(seen) = after_lookup("forged", &frames) else {
        return;
    };
    let flow = seen.to_port(443);
    assert!(
        flow.names.iter().all(|name| !name.agrees),
        "{:?}",
        flow.names
    );
    assert!(flow.findings.iter().any(|it| it == "sni_not_in_dns"));
    assert!(
        seen.questions()
            .iter()
            .filter(|it| it.name == "forged.example")
            .all(|it| !it.matched)
    );
    let lie = seen
        .flows()
        .into_iter()
        .find(|flow| flow.src_ip == Some(RESOLVER.into()));
    let findings = &lie.unwrap().findings;
    assert!(
        findings.iter().any(|it| it == "spoofed_source"),
        "{findings:?}"
    );
    assert!(
        findings.iter().any(|it| it == "spoofed_mac"),
        "{findings:?}"
    );
}

/// A connection to the address that whoever is there gives to an allowed name, by an
/// answer that fits the question and is no accepted resolver's.
fn after_word_of(test: &str, who: ([u8; 4], u16)) -> Option<Seen> {
    let ground = Ground::new(test)?;
    let mut watched = ground.watch();
    let question = datagram(who.0, (5002, who.1), &dns(9, "allowed.example", None));
    let answer = dns(9, "allowed.example", Some(ELSEWHERE));
    ground.answer_at(who, &question, &answer);
    watched.drain();
    for frame in connection(ELSEWHERE, &[(0, &hello("allowed.example", 10))]) {
        ground.send(&frame);
    }
    let seen = watched.finish();
    let question = seen.questions()[0];
    assert!(question.matched && !question.resolver_accepted);
    Some(seen)
}

#[test]
fn an_answer_of_a_resolver_that_is_not_accepted_is_no_evidence() {
    let Some(seen) = after_word_of("resolver", (OTHER_RESOLVER, 53)) else {
        return;
    };
    let flow = seen.to_port(443);
    let by_dns = flow
        .names
        .iter()
        .find(|name| name.source == NameSource::Dns)
        .unwrap();
    assert_eq!(by_dns.resolver_accepted, Some(false));
    assert!(flow.names.iter().all(|name| !name.agrees));
    let asked = seen.to_port(53);
    assert!(
        asked
            .findings
            .iter()
            .any(|it| it == "dns_unaccepted_resolver")
    );
}

/// A browser asks for the address and for HTTPS at once, and does not wait for both.
#[test]
fn an_alias_whose_answer_comes_after_the_hello_backs_it() {
    let Some(ground) = Ground::new("alias") else {
        return;
    };
    let mut watched = ground.watch();
    let mut ask = |port, question: &[u8], answer: &[u8], frames: &[Vec<u8>]| {
        let question = datagram(RESOLVER, (port, 53), question);
        ground.answer(RESOLVER, &question, answer);
        watched.drain();
        for frame in frames {
            ground.send(frame);
        }
        watched.drain();
    };
    let pool = "pool.example";
    let hello = hello("shop.example", 10);
    let frames = connection(ALLOWED, &[(0, &hello)]);
    ask(
        5003,
        &dns(1, pool, None),
        &dns(1, pool, Some(ALLOWED)),
        &frames,
    );
    let shop = "shop.example";
    ask(
        5004,
        &https(2, shop, None),
        &https(2, shop, Some(pool)),
        &[],
    );
    let seen = watched.finish();
    assert!(seen.questions().iter().all(|it| it.matched));
    let flow = seen.to_port(443);
    assert!(flow.findings.is_empty(), "{flow:#?}");
    let backed = |it: &&sandtrace_event::NameEvidence| &*it.name == shop && it.agrees;
    assert_eq!(flow.names.iter().filter(backed).count(), 2, "{flow:#?}");
}

/// Mail and FTP begin in the clear, and the hello comes later.
#[test]
fn a_hello_after_the_client_asked_for_tls_in_the_clear_is_read() {
    let hello = hello("evil000.example", 10);
    let asks: [&[&[u8]]; 3] = [
        &[b"EHLO a\r\n", b"STARTTLS\r\n"],
        &[b"AUTH ", b"TLS\r\n"],
        &[b"a1 CAPABILITY\r\n", b"a2 starttls\r\n"],
    ];
    let lines = (1..).zip(asks).flat_map(|(number, lines)| {
        let ports = (40_000, 7000 + number);
        let mut frames = vec![segment(ELSEWHERE, ports, 999, "S", &[])];
        let mut seq = 1000;
        for part in lines.iter().chain(&[&hello[..]]) {
            frames.push(segment(ELSEWHERE, ports, seq, "PA", part));
            seq += part.len() as u32;
        }
        frames
    });
    let Some(seen) = after_lookup("starttls", &lines.collect::<Vec<_>>()) else {
        return;
    };
    for port in 7001..=7003 {
        let flow = seen.to_port(port);
        assert_eq!(flow.dst_host, "evil000.example");
        // Nobody heard the server agree.
        assert_eq!(flow.findings, ["sni_not_in_dns", "start_unread"]);
        assert!(flow.tls.as_ref().unwrap().ja4.is_some());
    }
}

/// Who joins fragments may take the first bytes or the last ones: nobody knows which
/// name the server gets.
#[test]
fn fragments_that_overlap_with_another_name_are_told() {
    let (honest, other) = (hello("allowed.example", 10), hello("evil000.example", 10));
    let mut frames = connection(ALLOWED, &[(0, &honest)]);
    let parts = |hello: &[u8]| {
        let frames = connection(ALLOWED, &[(0, hello)]);
        fragments(&frames[1], 48, 77)
    };
    let (true_ones, false_ones) = (parts(&honest), parts(&other));
    frames.truncate(1);
    // All of the first, with all but the last of the second among them.
    let last = true_ones.len() - 1;
    frames.extend_from_slice(&true_ones[..last]);
    frames.extend_from_slice(&false_ones[..last]);
    frames.push(true_ones[last].clone());
    let sent = frames.len() as u64;
    let Some(seen) = after_lookup("pieces", &frames) else {
        return;
    };
    let flow = seen.to_port(443);
    assert_eq!(flow.packets_sent.0, sent);
    assert_eq!(flow.findings, ["overlapping_fragments"]);
    // What came first is what is read.
    assert_eq!(flow.dst_host, "allowed.example");
}

/// Of a long frame amid a head its begin alone is captured, and what is behind it may
/// name another host.
#[test]
fn a_head_that_goes_on_in_a_long_frame_is_told() {
    let head = b"GET / HTTP/1.1\r\nHost: allowed.example\r\nx-pad: ";
    let mut frames = Vec::new();
    for (port, before, behind) in [(81, 1000, 8000), (82, 8000, 0)] {
        let ports = (40_000, port);
        let (before, behind) = ("a".repeat(before), "b".repeat(behind));
        let rest = format!("{before}\r\nHost: evil.example\r\n\r\n{behind}");
        let seq = 1000 + head.len() as u32;
        frames.push(segment(ALLOWED, ports, 999, "S", &[]));
        frames.push(segment(ALLOWED, ports, 1000, "PA", head));
        frames.push(segment(ALLOWED, ports, seq, "PA", rest.as_bytes()));
    }
    let Some(seen) = after_lookup("long", &frames) else {
        return;
    };
    for port in [81, 82] {
        assert_eq!(seen.to_port(port).findings, ["truncated_start"]);
    }
}

/// So much is read of a connection's start; what is sent again is no more of it.
#[test]
fn a_start_that_is_sent_again_and_again_is_read_on() {
    let Some(ground) = Ground::new("again") else {
        return;
    };
    let watched = ground.watch();
    let hello = hello("again.example", 2000);
    let (first, rest) = hello.split_at(1400);
    ground.send(&segment(ELSEWHERE, (40_000, 443), 999, "S", &[]));
    for _ in 0..60 {
        ground.send(&segment(ELSEWHERE, (40_000, 443), 1000, "PA", first));
    }
    ground.send(&segment(ELSEWHERE, (40_000, 443), 2400, "PA", rest));
    let seen = watched.finish();
    assert_eq!(seen.to_port(443).dst_host, "again.example");
}

/// One connection goes to one server, but a server of many hosts takes any of them.
#[test]
fn every_host_of_a_connection_is_told() {
    let head = |fields: &str| format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n").into_bytes();
    let get = |host: &str| head(&format!("Host: {host}"));
    let [honest, other] = [get("allowed.example"), get("evil000.example")];
    let pipelined = [honest.clone(), other.clone()].concat();
    let body = [b"5\r\nGET /\r\n0\r\n\r\n".to_vec(), other.clone()].concat();
    let chunked = "Host: allowed.example\r\nTransfer-Encoding: chunked";
    let chunked = [head(chunked), body].concat();
    let twice = head("Host: allowed.example\r\nHost: evil000.example");
    let folded = head("Host: allowed.example\r\n evil000.example");
    let spaced = head("Host: allowed.example\r\nHost : evil000.example");
    let user = get("allowed.example:80@evil000.example");
    let streams: [(&[&[u8]], &str); 7] = [
        (&[&pipelined], "host_changed"),
        (&[&honest, &other], "host_changed"),
        (&[&chunked[..90], &chunked[90..]], "host_changed"),
        (&[&twice], "host_ambiguous"),
        (&[&folded], "host_ambiguous"),
        (&[&spaced], "host_ambiguous"),
        (&[&user], "host_ambiguous"),
    ];
    let frames = (7001..).zip(&streams).flat_map(|(port, (parts, _))| {
        let ports = (40_000, port);
        let mut frames = vec![segment(ALLOWED, ports, 999, "S", &[])];
        let mut seq = 1000;
        for part in *parts {
            frames.push(segment(ALLOWED, ports, seq, "PA", part));
            seq += part.len() as u32;
        }
        frames
    });
    let Some(seen) = after_lookup("hosts", &frames.collect::<Vec<_>>()) else {
        return;
    };
    for (port, (_, finding)) in (7001..).zip(&streams) {
        let flow = seen.to_port(port);
        assert_eq!(flow.findings, ["host_not_in_dns", *finding], "{port}");
        let claims = flow
            .names
            .iter()
            .filter(|it| it.source == NameSource::HttpHost);
        let claims: Vec<_> = claims.map(|it| (&*it.name, it.agrees)).collect();
        assert_eq!(
            claims,
            [("allowed.example", true), ("evil000.example", false)]
        );
    }
}

/// Whoever has another port at the resolver's address is not the resolver.
#[test]
fn an_answer_from_another_port_of_the_resolver_is_no_evidence() {
    let Some(seen) = after_word_of("other-port", (RESOLVER, 5300)) else {
        return;
    };
    let flow = seen.to_port(443);
    assert!(flow.names.iter().all(|name| !name.agrees), "{flow:#?}");
    assert!(flow.names[0].discounted);
    let findings = &seen.to_port(5300).findings;
    assert!(
        findings.iter().any(|it| it == "dns_odd_port"),
        "{findings:?}"
    );
}
