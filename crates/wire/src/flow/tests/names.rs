//! Names with their evidence, and DNS.

use crate::Direction::{FromSandbox, ToSandbox};
use crate::testing::lab::Lab;
use crate::testing::talk::{RESOLVER, SERVER, Talk, datagram, dns};
use crate::testing::tls::{hello_records, server_hello, server_hello_record};
use crate::tls::{certificate_records, der_of};
use crate::{FlowConfig, NameSource, Phase};

const OTHER_RESOLVER: [u8; 4] = [203, 0, 113, 53];

fn lab() -> Lab {
    Lab::new(FlowConfig {
        accepted_resolvers: vec![RESOLVER.into()],
        ..FlowConfig::default()
    })
}

/// A question to a resolver and its answer.
fn resolve(lab: &mut Lab, resolver: [u8; 4], name: &str, address: [u8; 4]) {
    let question = dns(7, name, None);
    let answer = dns(7, name, Some(address));
    lab.play(&datagram(FromSandbox, 5353, resolver, 53, &question));
    lab.play(&datagram(ToSandbox, 5353, resolver, 53, &answer));
}

fn hello(lab: &mut Lab, name: &str) {
    let hello = hello_records(name, 32, 16_000);
    lab.play_all(&Talk::open(40_000, 443).client(&hello).frames);
}

#[test]
fn a_name_agrees_when_an_accepted_resolver_backs_it() {
    let mut lab = lab();
    resolve(&mut lab, RESOLVER, "api.stripe.com", SERVER);
    hello(&mut lab, "API.stripe.com");
    let report = lab.sink.reports.last().unwrap();
    assert_eq!(report.phase, Phase::Open);
    assert_eq!(report.host.as_deref(), Some("api.stripe.com"));
    let names: Vec<_> = report
        .names
        .iter()
        .map(|name| (name.source, name.agrees))
        .collect();
    assert_eq!(names, [(NameSource::Dns, true), (NameSource::TlsSni, true)]);
    assert!(report.findings.is_empty());
}

#[test]
fn a_name_that_dns_does_not_back_is_a_claim() {
    #[track_caller]
    fn check(resolver: [u8; 4], answered: &str, address: [u8; 4], findings: &[&str]) {
        let mut lab = lab();
        resolve(&mut lab, resolver, answered, address);
        hello(&mut lab, "api.stripe.com");
        let report = lab.sink.reports.last().unwrap();
        assert_eq!(report.host.as_deref(), Some("api.stripe.com"));
        assert!(report.names.iter().all(|name| !name.agrees));
        assert_eq!(report.findings, findings);
    }
    check(OTHER_RESOLVER, "api.stripe.com", SERVER, &[]);
    check(RESOLVER, "evil.example", SERVER, &["sni_not_in_dns"]);
    let elsewhere = [192, 0, 2, 99];
    check(RESOLVER, "api.stripe.com", elsewhere, &["sni_not_in_dns"]);
}

#[test]
fn only_an_answer_to_a_pending_question_counts() {
    let answer = dns(7, "api.stripe.com", Some(SERVER));
    let mut lab = lab();
    // The guest writes the answer itself; nobody asked; another port.
    lab.play(&datagram(FromSandbox, 5353, RESOLVER, 53, &answer));
    lab.play(&datagram(ToSandbox, 5353, RESOLVER, 53, &answer));
    let question = dns(7, "api.stripe.com", None);
    lab.play(&datagram(FromSandbox, 5354, RESOLVER, 53, &question));
    lab.play(&datagram(ToSandbox, 5355, RESOLVER, 53, &answer));
    hello(&mut lab, "api.stripe.com");
    let report = lab.sink.reports.last().unwrap();
    assert_eq!(report.names.len(), 1);
    assert_eq!(report.findings, ["sni_not_in_dns"]);
    let matched: Vec<_> = lab.sink.dns.iter().map(|query| query.matched).collect();
    assert_eq!(matched, [false, false]);
    lab.wait(6_000_000);
    let last = lab.sink.dns.last().unwrap();
    assert_eq!((last.matched, last.rcode.as_deref()), (false, None));
    assert_eq!(lab.sink.dns.len(), 3);
}

#[test]
fn a_matched_question_is_reported_with_its_answer() {
    let mut lab = lab();
    resolve(&mut lab, OTHER_RESOLVER, "www.example", SERVER);
    let query = &lab.sink.dns[0];
    assert!(query.matched);
    assert!(!query.resolver_accepted);
    assert_eq!(query.name, "www.example");
    assert_eq!(query.qtype, "A");
    assert_eq!(query.rcode.as_deref(), Some("NOERROR"));
    assert_eq!(query.answers, ["192.0.2.10"]);
    assert_eq!(query.latency_us, Some(10));
    assert_eq!(lab.finish()[0].findings, ["dns_unaccepted_resolver"]);
    assert_eq!(lab.sink.dns.len(), 1);
}

#[test]
fn questions_are_bounded() {
    let mut lab = Lab::new(FlowConfig {
        max_dns_pending: 4,
        ..FlowConfig::default()
    });
    for id in 0..10 {
        let question = dns(id, "x.example", None);
        lab.play(&datagram(FromSandbox, 5353, RESOLVER, 53, &question));
    }
    assert_eq!(lab.sink.dns.len(), 6);
    lab.finish();
    assert_eq!(lab.sink.dns.len(), 10);
}

#[test]
fn an_http_host_is_a_claim() {
    let mut lab = lab();
    resolve(&mut lab, RESOLVER, "plain.example", SERVER);
    let head = b"GET /a?secret HTTP/1.1\r\nHost: Plain.example:80\r\n\r\n";
    lab.play_all(&Talk::open(40_000, 80).client_in(20, head).frames);
    let report = lab.sink.reports.last().unwrap();
    assert_eq!(report.host.as_deref(), Some("plain.example"));
    assert!(report.names.iter().all(|name| name.agrees));
    assert_eq!(report.http.as_ref().unwrap().path, "/a?…");
}

#[test]
fn a_name_longer_than_names_are_is_cut_and_told() {
    #[track_caller]
    fn check(port: u16, bytes: &[u8]) {
        let mut lab = lab();
        lab.play_all(&Talk::open(40_000, port).client_in(1400, bytes).frames);
        let report = &lab.finish()[0];
        assert!(report.findings.contains(&"name_too_long"));
        let host = report.host.as_ref().unwrap();
        assert!(host.len() < 1100 && host.ends_with('…'), "{host}");
    }
    // 4,400 bytes of which each takes four characters.
    let name = "é".repeat(2200);
    check(443, &hello_records(&name, 0, 16_000));
    check(
        80,
        format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n").as_bytes(),
    );
}

#[test]
fn a_long_answer_is_spread_over_reports() {
    let mut answer = dns(7, "x.example", None);
    answer[2..4].copy_from_slice(&[0x81, 0x80]);
    answer[6..8].copy_from_slice(&[1, 0]);
    // A name of 3 * 64 + 56 bytes, and pointers to it.
    let label = |len: u8| [vec![len], vec![0xff; usize::from(len)]].concat();
    let long = [label(63), label(63), label(63), label(55), vec![0]].concat();
    let at = answer.len() as u16 + 12;
    let head = [0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60];
    answer.extend([&head[..], &(long.len() as u16).to_be_bytes(), &long].concat());
    for _ in 0..255 {
        answer.extend([&head[..], &[0, 2], &(0xc000 | at).to_be_bytes()].concat());
    }
    let mut lab = lab();
    let question = dns(7, "x.example", None);
    lab.play(&datagram(FromSandbox, 5353, RESOLVER, 53, &question));
    lab.play(&datagram(ToSandbox, 5353, RESOLVER, 53, &answer));
    let reports = &lab.sink.dns;
    let texts = reports
        .iter()
        .map(|it| it.answers.iter().map(String::len).sum::<usize>());
    assert!(texts.max().unwrap() < 40_000);
    let answers: usize = reports.iter().map(|it| it.answers.len()).sum();
    assert_eq!(answers, 256);
    assert!(reports.iter().all(|it| it.matched));
}

#[test]
fn a_changed_hello_is_noticed_and_not_believed() {
    let good = hello_records("good.example", 0, 16_000);
    let evil = hello_records("evil.example", 0, 16_000);
    let talk = Talk::open(40_000, 443).client(&good[..120]);
    let talk = talk.client_at(-120, &evil[..120]).client(&good[120..]);
    let mut lab = lab();
    lab.play_all(&talk.frames);
    let report = &lab.finish()[0];
    assert!(report.findings.contains(&"inconsistent_reassembly"));
    assert_eq!(report.handshake_bytes, 120);
    assert_eq!(report.max_call_bytes, good.len() as u64 - 120);
}

/// What a host gets that never had the first segment: of a checksum that is
/// wrong, or with too few hops to live.
#[track_caller]
fn check_sent_again(port: u16, decoy: &[u8], real: &[u8], told: bool) {
    let talk = Talk::open(40_000, port).client(decoy);
    let talk = talk.client_at(-(decoy.len() as i32), real);
    let mut lab = lab();
    lab.play_all(&talk.server(b"answer").frames);
    let report = &lab.finish()[0];
    let findings = &report.findings;
    assert_eq!(
        findings.contains(&"inconsistent_reassembly"),
        told,
        "{findings:?}"
    );
}

#[test]
fn another_start_after_one_that_was_read_whole_is_told() {
    let head = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
    let (good, evil) = (head("good.example"), head("evil.example"));
    check_sent_again(80, &good, &evil, true);
    check_sent_again(80, &good, &good, false);
    // One segment that holds a hello and call bytes.
    let tls = |name: &str| {
        let data = [23, 3, 3, 0, 4, 1, 2, 3, 4];
        [hello_records(name, 0, 16_000), data.to_vec()].concat()
    };
    let (good, evil) = (tls("good.example"), tls("evil.example"));
    check_sent_again(443, &good, &evil, true);
    check_sent_again(443, &good, &good, false);
    // Not read as anything at first.
    check_sent_again(443, b"\0", &evil, true);
    check_sent_again(443, &vec![0; evil.len()], &evil, true);
}

#[test]
fn a_start_that_the_server_has_is_let_go_of() {
    let head = b"GET / HTTP/1.1\r\nHost: good.example\r\n\r\n";
    let other = [b'x'; 40];
    let talk = Talk::open(40_000, 80).client(head).server(b"answer");
    let mut lab = lab();
    lab.play_all(&talk.client_at(-40, &other).frames);
    let findings = &lab.finish()[0].findings;
    assert!(!findings.contains(&"inconsistent_reassembly"));
}

#[test]
fn a_start_that_the_capture_cuts_short_is_told() {
    /// Headers of Ethernet, IPv4 and TCP.
    const HEADERS: usize = 54;
    #[track_caller]
    fn check(port: u16, start: &[u8], captured: usize, host: Option<&str>, is_told: bool) {
        let mut lab = lab();
        for (direction, bytes) in &Talk::open(40_000, port).client(start).frames {
            lab.play_cut(*direction, bytes, HEADERS + captured);
        }
        let report = &lab.finish()[0];
        assert_eq!(report.host.as_deref(), host);
        let told = report.findings.contains(&"truncated_start");
        assert_eq!(told, is_told, "{:?}", report.findings);
    }
    let hello = hello_records("a.example", 0, 16_000);
    check(443, &hello, 2, None, true);
    check(443, &hello, 60, None, true);
    let data = [23, 3, 3, 0, 4, 1, 2, 3, 4];
    let longer = [hello.as_slice(), &data].concat();
    check(443, &longer, hello.len() + 2, Some("a.example"), false);
    let head = b"GET / HTTP/1.1\r\nHost: a.example\r\nAccept: */*\r\n\r\nbody";
    check(80, head, 20, None, true);
    // Another host may be named in the rest of the head.
    check(80, head, 40, Some("a.example"), true);
    check(80, head, head.len() - 2, Some("a.example"), false);
}

#[test]
fn an_http_host_that_dns_does_not_back_is_told() {
    #[track_caller]
    fn check(host: &str, findings: &[&str]) {
        let mut lab = lab();
        resolve(&mut lab, RESOLVER, "plain.example", SERVER);
        let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        lab.play_all(&Talk::open(40_000, 80).client(head.as_bytes()).frames);
        assert_eq!(lab.sink.reports.last().unwrap().findings, findings);
    }
    check("plain.example", &[]);
    check("other.example", &["host_not_in_dns"]);
    check(&std::net::Ipv4Addr::from(SERVER).to_string(), &[]);
    check("203.0.113.9", &["host_not_in_dns"]);
}

#[test]
fn a_hello_inside_a_tunnel_is_held_against_what_the_proxy_was_asked_for() {
    #[track_caller]
    fn check(target: &str, inside: &[u8], told: bool) {
        let head = format!("CONNECT {target}:443 HTTP/1.1\r\nHost: {target}:443\r\n\r\n");
        let talks = [
            Talk::open(40_000, 3128)
                .client(head.as_bytes())
                .server(b"HTTP/1.1 200 OK\r\n\r\n")
                .client_in(50, inside),
            Talk::open(40_000, 3128).client(&[head.as_bytes(), inside].concat()),
        ];
        for talk in talks {
            let mut lab = lab();
            lab.play_all(&talk.frames);
            let report = &lab.finish()[0];
            assert_eq!(report.host.as_deref(), Some(target));
            let findings = &report.findings;
            let is_told = findings.contains(&"sni_differs_from_host");
            assert_eq!(is_told, told, "{findings:?}");
            // To the proxy all of it is payload.
            assert_eq!(report.handshake_bytes, 0);
        }
    }
    let hello = hello_records("a.example", 0, 16_000);
    check("a.example", &hello, false);
    check("b.example", &hello, true);
    check("192.0.2.77", &hello, false);
    check("b.example", b"SSH-2.0-OpenSSH_9.2\r\n", false);
}

#[test]
fn the_version_that_the_server_chose_is_told() {
    #[track_caller]
    fn check(tls13: bool, version: &str) {
        let mut lab = lab();
        let hello = hello_records("a.example", 0, 16_000);
        let answer = server_hello_record(0x1301, tls13);
        lab.play_all(
            &Talk::open(40_000, 443)
                .client(&hello)
                .server(&answer)
                .frames,
        );
        let tls = lab.finish()[0].tls.clone().unwrap();
        assert_eq!(tls.version_offered, Some("1.3"));
        assert_eq!(tls.version, Some(version));
    }
    check(true, "1.3");
    check(false, "1.2");
}

#[test]
fn a_hello_behind_a_socks_proxy_is_read() {
    let hello = hello_records("a.example", 0, 16_000);
    let requests: [&[&[u8]]; 2] = [
        &[&[4, 1, 1, 187, 192, 0, 2, 1, 0]],
        &[&[5, 1, 0], &[5, 1, 0, 1, 192, 0, 2, 1, 1, 187]],
    ];
    for request in requests {
        let mut talk = Talk::open(40_000, 1080);
        for part in request {
            talk = talk.client(part).server(&[0; 2]);
        }
        let mut lab = lab();
        lab.play_all(&talk.client_in(100, &hello).frames);
        let report = &lab.finish()[0];
        assert_eq!(report.host.as_deref(), Some("a.example"));
        // To the proxy all of it is payload.
        assert_eq!(report.handshake_bytes, 0);
        assert_eq!(report.calls, 1 + request.len() as u64);
    }
}

#[test]
fn bytes_that_may_be_a_request_of_socks_count_at_once() {
    let mut lab = Lab::with_call_bound(FlowConfig::default(), 100);
    lab.play_all(&Talk::open(40_000, 1080).client(&[5, 250, 0]).frames);
    lab.wait(200_000);
    lab.play_all(&Talk::open(40_000, 1080).client(&[5; 200]).frames[3..]);
    assert_eq!(lab.phases(), [Phase::Open, Phase::Update]);
}

#[test]
fn a_certificate_that_does_not_cover_the_name_is_told() {
    for (names, told) in [
        (&["shop.example"][..], false),
        (&["*.example"], false),
        (&["other.example", "*.shop.example"], true),
    ] {
        let mut lab = lab();
        resolve(&mut lab, RESOLVER, "shop.example", SERVER);
        let server = server_hello(0xc02f, false);
        let server = certificate_records(server, &der_of("x", names));
        let client = hello_records("shop.example", 32, 16_000);
        let talk = Talk::open(40_000, 443).client(&client).server(&server);
        lab.play_all(&talk.fin().frames);
        let closed = lab.finish();
        let report = closed.iter().find(|it| it.protocol == crate::Protocol::Tcp);
        let report = report.unwrap();
        let found = report.findings.contains(&"cert_name_mismatch");
        assert_eq!(found, told, "{report:#?}");
        let mut claims = report.names.iter();
        let by_server: Vec<_> = claims
            .by_ref()
            .filter(|it| it.source == NameSource::TlsCert)
            .collect();
        assert!(!by_server.is_empty());
        assert!(by_server.iter().all(|it| it.agrees != told), "{report:#?}");
    }
}
