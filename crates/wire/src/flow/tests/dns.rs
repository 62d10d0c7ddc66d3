//! DNS beyond a question and an address: aliases, streams, long answers.

use crate::Direction::{FromSandbox, ToSandbox};
use crate::testing::lab::Lab;
use crate::testing::talk::{RESOLVER, SERVER, Talk, datagram, dns};
use crate::testing::tls::hello_records;
use crate::{FlowConfig, NameSource};

const HTTPS: u16 = 65;

fn lab() -> Lab {
    Lab::new(FlowConfig {
        accepted_resolvers: vec![RESOLVER.into()],
        ..FlowConfig::default()
    })
}

fn name(name: &str) -> Vec<u8> {
    let labels = name
        .split('.')
        .flat_map(|label| [&[label.len() as u8][..], label.as_bytes()].concat());
    labels.chain([0]).collect()
}

/// A question of this type, or the answer with these records.
fn message(asked: &str, kind: u16, records: Option<&[Vec<u8>]>) -> Vec<u8> {
    let flags: [u8; 2] = if records.is_some() {
        [0x81, 0x80]
    } else {
        [1, 0]
    };
    let count = records.map_or(0, <[_]>::len) as u16;
    [
        &[0, 7][..],
        &flags,
        &[0, 1],
        &count.to_be_bytes(),
        &[0; 4],
        &name(asked),
        &kind.to_be_bytes(),
        &[0, 1],
        &records.unwrap_or_default().concat(),
    ]
    .concat()
}

fn record(owner: &str, kind: u16, data: &[u8]) -> Vec<u8> {
    [
        &name(owner)[..],
        &kind.to_be_bytes(),
        &[0, 1, 0, 0, 0, 60],
        &(data.len() as u16).to_be_bytes(),
        data,
    ]
    .concat()
}

fn service(owner: &str, priority: u16, target: &str) -> Vec<u8> {
    let data = [&priority.to_be_bytes()[..], &name(target)].concat();
    record(owner, HTTPS, &data)
}

fn ask(lab: &mut Lab, asked: &str, kind: u16, records: &[Vec<u8>]) {
    for (direction, records) in [(FromSandbox, None), (ToSandbox, Some(records))] {
        let message = message(asked, kind, records);
        lab.play(&datagram(direction, 5353, RESOLVER, 53, &message));
    }
}

/// Whether DNS backs a hello for `shop.example` to the server's address.
#[track_caller]
fn check_backed(lab: &mut Lab, backed: bool) {
    let hello = hello_records("shop.example", 32, 16_000);
    lab.play_all(&Talk::open(40_000, 443).client(&hello).frames);
    let report = lab.sink.reports.last().unwrap();
    let sni = report
        .names
        .iter()
        .find(|it| it.source == NameSource::TlsSni);
    assert_eq!(sni.unwrap().agrees, backed, "{report:#?}");
    assert_eq!(report.findings.contains(&"sni_not_in_dns"), !backed);
}

#[test]
fn an_alias_of_https_is_followed_as_a_canonical_name_is() {
    for priority in [0, 1] {
        let mut lab = lab();
        let address = record("pool.example", 1, &SERVER);
        let records = [service("shop.example", priority, "pool.example"), address];
        ask(&mut lab, "shop.example", HTTPS, &records);
        assert_eq!(
            lab.sink.dns[0].answers[0],
            format!("{priority} pool.example")
        );
        check_backed(&mut lab, true);
    }
    // Of another owner.
    let mut lab = lab();
    let address = record("pool.example", 1, &SERVER);
    let records = [service("other.example", 0, "pool.example"), address];
    ask(&mut lab, "shop.example", HTTPS, &records);
    check_backed(&mut lab, false);
}

#[test]
fn the_address_of_an_alias_comes_with_a_question_of_its_own() {
    let mut lab = lab();
    ask(
        &mut lab,
        "shop.example",
        HTTPS,
        &[service("shop.example", 0, "cdn.example")],
    );
    ask(
        &mut lab,
        "cdn.example",
        HTTPS,
        &[service("cdn.example", 0, "pool.example")],
    );
    ask(
        &mut lab,
        "pool.example",
        1,
        &[record("pool.example", 1, &SERVER)],
    );
    check_backed(&mut lab, true);
}

#[test]
fn records_beyond_those_that_are_read_are_counted() {
    let mut lab = lab();
    let records: Vec<_> = (0..300_u16)
        .map(|number| record("a.b", 1, &[10, 0, (number >> 8) as u8, number as u8]))
        .collect();
    ask(&mut lab, "a.b", 1, &records);
    let query = &lab.sink.dns[0];
    assert_eq!((query.answers.len(), query.left_out), (256, 44));
    // One that says it has more than it does, and one of an unknown type.
    let mut cut = message("a.b", 1, Some(&[record("a.b", 46, &[9; 20])]));
    cut[7] = 3;
    lab.play(&datagram(
        FromSandbox,
        5354,
        RESOLVER,
        53,
        &message("a.b", 1, None),
    ));
    lab.play(&datagram(ToSandbox, 5354, RESOLVER, 53, &cut));
    let query = &lab.sink.dns[1];
    assert_eq!(query.answers, ["RRSIG \\# 20"]);
    assert_eq!(query.left_out, 2);
}

/// A question and its answer over TCP to this port, the question in pieces.
#[track_caller]
fn check_stream(port: u16, piece: usize, findings: &[&str]) {
    let mut lab = lab();
    let framed = |message: Vec<u8>| [&(message.len() as u16).to_be_bytes()[..], &message].concat();
    let question = framed(dns(7, "a.example", None));
    let mut talk = Talk::open(40_000, port);
    for part in question.chunks(piece) {
        talk = talk.client(part);
    }
    let answer = framed(dns(7, "a.example", Some([192, 0, 2, 9])));
    lab.play_all(&talk.server(&answer).client(&question).frames);
    let closed = lab.finish();
    assert_eq!(closed[0].findings, findings);
    let names: Vec<_> = lab.sink.dns.iter().map(|query| &*query.name).collect();
    assert_eq!(names, ["a.example"; 2]);
    assert_eq!(lab.sink.dns[0].resolver_port, port);
    assert_eq!(lab.sink.dns[0].answers, ["192.0.2.9"]);
    assert!(lab.sink.dns[0].matched && !lab.sink.dns[1].matched);
}

#[test]
fn dns_over_tcp_is_read_on_any_port() {
    check_stream(53, 1000, &["dns_unaccepted_resolver"]);
    check_stream(5300, 1000, &["dns_odd_port"]);
    check_stream(5300, 3, &["dns_odd_port"]);
    check_stream(443, 1, &["dns_odd_port"]);
}

/// Of a question whose pieces come last first, more than are held.
#[test]
fn a_question_over_tcp_that_is_not_read_is_told() {
    let mut lab = lab();
    let question = dns(7, &vec!["label"; 14].join("."), None);
    let framed = [&(question.len() as u16).to_be_bytes()[..], &question].concat();
    let mut talk = Talk::open(40_000, 53);
    for (at, byte) in framed.iter().enumerate().rev() {
        talk = talk.client_at(at as i32, &[*byte]);
    }
    lab.play_all(&talk.frames);
    let closed = lab.finish();
    assert!(lab.sink.dns.is_empty());
    assert!(closed[0].findings.contains(&"dns_malformed"));
}

#[test]
fn an_alias_that_is_learned_after_its_address_is_evidence_in_the_next_record() {
    let mut lab = lab();
    let address = record("pool.example", 1, &SERVER);
    ask(&mut lab, "pool.example", 1, &[address]);
    check_backed(&mut lab, false);
    for (asked, target) in [
        ("shop.example", "cdn.example"),
        ("cdn.example", "pool.example"),
    ] {
        ask(&mut lab, asked, HTTPS, &[service(asked, 0, target)]);
    }
    lab.finish();
    let mut reports = lab.sink.reports.iter();
    let close = reports.rfind(|report| report.names.len() > 1).unwrap();
    assert!(!close.findings.contains(&"sni_not_in_dns"), "{close:#?}");
    let of = |source, name: &str| {
        let mut names = close.names.iter();
        let found = names.find(|it| it.source == source && &*it.name == name);
        found.unwrap()
    };
    assert!(of(NameSource::TlsSni, "shop.example").agrees);
    let learned = of(NameSource::Dns, "shop.example");
    assert!(learned.agrees && learned.resolver_accepted == Some(true));
    let first = of(NameSource::Dns, "pool.example");
    assert!(learned.observed_wall_ns > first.observed_wall_ns);
}
