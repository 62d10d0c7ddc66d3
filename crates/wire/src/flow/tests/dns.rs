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

/// What is found of the conversation with this port of the resolver.
fn found(lab: &mut Lab, port: u16) -> Vec<&'static str> {
    let closed = lab.finish();
    let mut flows = closed.iter().filter(|it| it.peer.port == Some(port));
    flows.next().unwrap().findings.clone()
}

#[test]
fn who_answers_at_another_port_of_the_resolver_vouches_for_nothing() {
    let mut lab = lab();
    let question = dns(7, "shop.example", None);
    let answer = dns(7, "shop.example", Some(SERVER));
    lab.play(&datagram(FromSandbox, 5353, RESOLVER, 5300, &question));
    lab.play(&datagram(ToSandbox, 5353, RESOLVER, 5300, &answer));
    assert!(lab.sink.dns[0].matched && !lab.sink.dns[0].resolver_accepted);
    let hello = hello_records("shop.example", 32, 16_000);
    lab.play_all(&Talk::open(40_000, 443).client(&hello).frames);
    let names = &lab.sink.reports.last().unwrap().names;
    assert!(names.iter().all(|it| !it.agrees));
    assert!(names[0].discounted && names[0].resolver_accepted == Some(false));
}

#[test]
fn a_second_answer_with_other_addresses_takes_the_first_ones_word_back() {
    #[track_caller]
    fn check(again: bool, second: &[Vec<u8>], backed: bool) {
        let mut lab = lab();
        let asked = "shop.example";
        let a = |address: [u8; 4]| record(asked, 1, &address);
        ask(&mut lab, asked, 1, &[a(SERVER), a([192, 0, 2, 11])]);
        if again {
            let question = message(asked, 1, None);
            lab.play(&datagram(FromSandbox, 5353, RESOLVER, 53, &question));
        }
        let second = message(asked, 1, Some(second));
        lab.play(&datagram(ToSandbox, 5353, RESOLVER, 53, &second));
        let hello = hello_records(asked, 32, 16_000);
        lab.play_all(&Talk::open(40_000, 443).client(&hello).frames);
        let names = &lab.sink.reports.last().unwrap().names;
        assert!(names.iter().all(|it| it.agrees == backed), "{names:#?}");
    }
    let a = |address: [u8; 4]| record("shop.example", 1, &address);
    check(false, &[a([192, 0, 2, 99])], false);
    check(false, &[a([192, 0, 2, 99]), a([192, 0, 2, 11])], false);
    // The same in another order; no address; an answer that was asked for again.
    check(false, &[a([192, 0, 2, 11]), a(SERVER)], true);
    check(false, &[], true);
    check(true, &[a([192, 0, 2, 99])], true);
}

#[test]
fn what_is_more_than_a_question_is_told() {
    #[track_caller]
    fn check(question: &[u8], told: bool) {
        let mut lab = lab();
        lab.play(&datagram(FromSandbox, 5353, RESOLVER, 53, question));
        let findings = found(&mut lab, 53);
        assert_eq!(findings.contains(&"dns_malformed"), told, "{findings:?}");
        assert_eq!(lab.sink.dns[0].name, "a.example");
    }
    let plain = dns(7, "a.example", None);
    let with = |counts: [u8; 3], more: &[u8]| {
        let mut question = [&plain, more].concat();
        (question[7], question[9], question[11]) = (counts[0], counts[1], counts[2]);
        question
    };
    let options = |length: u16| {
        let head = [0, 0, 41, 4, 208, 0, 0, 0, 0];
        [&head[..], &length.to_be_bytes(), &vec![0; length.into()]].concat()
    };
    check(&plain, false);
    check(&with([0, 0, 1], &options(0)), false);
    check(&with([0, 0, 1], &options(12)), false);
    check(&with([0, 0, 1], &options(2000)), true);
    check(&with([0, 0, 1], &[9; 200]), true);
    check(&with([0, 0, 0], &[9; 200]), true);
    check(&with([0, 0, 1], &[options(0), vec![9]].concat()), true);
    check(&with([1, 0, 0], &record("a.example", 1, &SERVER)), true);
    check(&with([0, 1, 0], &record("a.example", 16, &[9; 20])), true);
    check(&with([0, 0, 1], &record("a.example", 16, &[9; 20])), true);
    // An update (RFC 2136), a notification (RFC 1996).
    for opcode in [5, 4] {
        let mut question = plain.clone();
        question[2] = opcode << 3;
        check(&question, true);
    }
    // A transfer of what is newer than this.
    let mut transfer = with([0, 1, 0], &record("a.example", 6, &[9; 20]));
    transfer[plain.len() - 3] = 251;
    check(&transfer, false);
}

#[test]
fn the_same_question_with_other_bytes_is_another_one() {
    let mut lab = lab();
    for name in ["a.example", "A.example", "A.example", "a.Example"] {
        let question = dns(7, name, None);
        lab.play(&datagram(FromSandbox, 5353, RESOLVER, 53, &question));
    }
    lab.finish();
    assert_eq!(lab.sink.dns.len(), 3);
}

#[test]
fn a_question_behind_other_datagrams_is_read_on_any_port() {
    #[track_caller]
    fn check(before: usize, flags: [u8; 2], told: bool) {
        let mut lab = lab();
        for _ in 0..before {
            lab.play(&datagram(
                FromSandbox,
                5353,
                RESOLVER,
                5300,
                b"something else",
            ));
        }
        let mut question = dns(7, "a.example", None);
        question[2..4].copy_from_slice(&flags);
        lab.play(&datagram(FromSandbox, 5353, RESOLVER, 5300, &question));
        let findings = found(&mut lab, 5300);
        assert_eq!(findings.contains(&"dns_odd_port"), told, "{findings:?}");
        assert_eq!(lab.sink.dns.len(), usize::from(told));
    }
    check(0, [1, 0], true);
    check(0, [0, 0], true);
    check(7, [1, 0], true);
    check(8, [1, 0], false);
    check(0, [0x28, 0], false);
}

#[test]
fn an_address_of_which_names_may_be_forgotten_is_told() {
    let mut lab = Lab::new(FlowConfig {
        max_named_addresses: 4,
        accepted_resolvers: vec![RESOLVER.into()],
        ..FlowConfig::default()
    });
    let a = |last: u8| record("evil.example", 1, &[192, 0, 2, last]);
    let told = |lab: &mut Lab, port: u16| {
        lab.play_all(&Talk::open(port, 443).client(b"SSH-2.0-x\r\n").frames);
        let report = lab.sink.reports.last().unwrap();
        report.findings.contains(&"names_forgotten")
    };
    ask(&mut lab, "evil.example", 1, &[a(SERVER[3])]);
    assert!(!told(&mut lab, 40_000));
    let many: Vec<_> = (20..40).map(a).collect();
    ask(&mut lab, "evil.example", 1, &many);
    assert!(told(&mut lab, 40_001));
}

#[test]
fn of_too_many_questions_those_that_are_alike_are_counted_together() {
    let mut lab = Lab::new(FlowConfig {
        dns_burst: 2,
        opens_per_second: 0,
        ..FlowConfig::default()
    });
    let mut ask = |id: u16, name: &str| {
        let question = dns(id, name, None);
        lab.play(&datagram(FromSandbox, 5000, RESOLVER, 53, &question));
    };
    for id in 0..5 {
        ask(id, "same.example");
    }
    for id in 0..1000 {
        ask(id, &format!("n{id}.example"));
    }
    lab.wait(5_500_000);
    assert_eq!(lab.sink.dns.len(), 2, "not before a second is over");
    lab.wait(1_000_000);
    let sums = lab.sink.dns.split_off(2);
    let of = |name: &str| {
        let sums = sums.iter().filter(|sum| sum.name == name);
        sums.map(|sum| sum.questions.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(of("same.example"), [3]);
    assert_eq!(of("n7.example"), [1]);
    assert_eq!(of("."), [1000 - 255]);
    assert_eq!(sums.len(), 257);
    lab.finish();
    assert!(lab.sink.dns.len() <= 2, "each is told once");
}
