//! Every name that a client uses for its peer.

use crate::testing::lab::{Lab, Report};
use crate::testing::talk::{SANDBOX, SERVER, Talk};
use crate::testing::tls::{extension, hello_records, message, record, vec8, vec16};
use crate::{Bulk, BulkTcp, Direction, FlowConfig, NameSource, Phase};

const SOURCES: [(NameSource, &str); 3] = [
    (NameSource::TlsSni, "sni"),
    (NameSource::HttpHost, "http"),
    (NameSource::SocksHost, "socks"),
];

/// Which names a talk claims, and what is odd beyond that nobody asked DNS for them.
#[track_caller]
fn check(talk: Talk, names: &[&str], findings: &[&str]) {
    check_in(FlowConfig::default(), talk, names, findings);
}

#[track_caller]
fn check_in(config: FlowConfig, talk: Talk, names: &[&str], findings: &[&str]) {
    let mut lab = Lab::new(config);
    let Talk { frames, .. } = talk;
    lab.play_all(&frames);
    let report = &lab.finish()[0];
    assert_eq!(claims(report), names);
    let mut told = report.findings.clone();
    told.retain(|it| !it.ends_with("_not_in_dns"));
    assert_eq!(told, findings);
}

fn claims(report: &Report) -> Vec<String> {
    let word = |source| SOURCES.iter().find(|(it, _)| *it == source).unwrap().1;
    let names = report.names.iter();
    names
        .map(|it| format!("{} {}", word(it.source), it.name))
        .collect()
}

fn hello(name: &str) -> Vec<u8> {
    hello_records(name, 0, 16_000)
}

fn get(host: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

fn talk(port: u16) -> Talk {
    Talk::open(40_000, port)
}

#[test]
fn a_name_that_comes_later_is_reported_at_once() {
    let mut lab = Lab::new(FlowConfig::default());
    let talk = talk(80).client(&get("a")).server(b"x");
    lab.play_all(&talk.client(&get("a")).server(b"x").client(&get("b")).frames);
    assert_eq!(lab.phases(), [Phase::Open, Phase::Update]);
    let report = lab.sink.reports.last().unwrap();
    assert_eq!(claims(report), ["http a", "http b"]);
    assert_eq!(report.host.as_deref(), Some("a"));
    assert_eq!(report.http.as_ref().unwrap().host.as_deref(), Some("a"));
}

#[test]
fn all_names_in_a_hello_are_claims() {
    let name = |name: &str| [&[0], &vec16(name.as_bytes())[..]].concat();
    let sni = |names: &[u8]| extension(0, &vec16(names));
    let hello = |extensions: &[Vec<u8>]| {
        let body = [
            &[3, 3][..],
            &[9; 32],
            &vec8(&[]),
            &vec16(&[0x13, 1]),
            &vec8(&[0]),
            &vec16(&extensions.concat()),
        ];
        talk(443).client(&record(22, &message(1, &body.concat())))
    };
    let (a, b) = (name("a"), name("b"));
    let both = ["sni a", "sni b"];
    check(hello(&[sni(&a), sni(&b)]), &both, &["sni_changed"]);
    check(
        hello(&[sni(&[a.clone(), b].concat())]),
        &both,
        &["sni_changed"],
    );
    check(hello(&[sni(&a), sni(&a)]), &["sni a"], &[]);
}

#[test]
fn all_hellos_of_a_connection_are_claims() {
    let again = [record(20, &[1]), hello("b")].concat();
    let retry = talk(443).client(&hello("a")).server(b"x").client(&again);
    check(retry, &["sni a", "sni b"], &["sni_changed"]);
}

#[test]
fn all_requests_of_a_connection_are_claims() {
    let answered = |talk: Talk| talk.server(b"HTTP/1.1 200 OK\r\n\r\n");
    let first = || answered(talk(80).client(&get("a")));
    check(answered(first().client(&get("a"))), &["http a"], &[]);
    let changed = &["host_changed"];
    check(first().client(&get("b")), &["http a", "http b"], changed);
    let pipelined = [get("a"), get("b")].concat();
    check(
        talk(80).client_in(9, &pipelined),
        &["http a", "http b"],
        changed,
    );
    let twice = b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
    check(
        talk(80).client(twice),
        &["http a", "http b"],
        &["host_ambiguous"],
    );
}

/// A body is not kept, however long it is, and what follows it is read.
#[test]
fn what_follows_a_long_body_is_read() {
    let body = vec![b'x'; 300_000];
    let head = |field: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
    let length = [head("Content-Length: 300000").as_bytes(), &body].concat();
    let chunks: Vec<u8> = body
        .chunks(7000)
        .flat_map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat())
        .collect();
    let chunked = [
        head("Transfer-Encoding: chunked").as_bytes(),
        &chunks,
        b"0\r\n\r\n",
    ]
    .concat();
    for request in [length, chunked] {
        // The server acknowledges now and then.
        let upload = || {
            let parts = request.chunks(30_000);
            let send = |talk: Talk, part: &[u8]| talk.client_in(1400, part).server(b"");
            parts.fold(talk(80), send).server(b"x")
        };
        let check = |talk, names: &[&str], findings: &[&str]| {
            let config = FlowConfig {
                reassembly_bytes_total: 80_000,
                ..FlowConfig::default()
            };
            check_in(config, talk, names, findings);
        };
        check(upload(), &["http a"], &[]);
        check(upload().client(&get("a")), &["http a"], &[]);
        let changed = upload().client(&get("b"));
        check(changed, &["http a", "http b"], &["host_changed"]);
    }
}

#[test]
fn requests_that_were_not_read_are_told() {
    let unread = &["start_unread"];
    // A head beyond the bound, one whose begin nobody knows, one that was not captured.
    let fields = "X: y\r\n".repeat(11_000);
    let long = format!("GET / HTTP/1.1\r\n{fields}Host: b\r\n\r\n");
    check(talk(80).client_in(1400, long.as_bytes()), &[], unread);
    let unclear = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n";
    check(talk(80).client(unclear.as_bytes()), &["http a"], &[]);
    check(
        talk(80).client(unclear.as_bytes()).client(&get("b")),
        &["http a"],
        unread,
    );
    check(
        talk(80).client(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        &[],
        unread,
    );
    let lost = talk(80)
        .client(&get("a"))
        .server(b"x")
        .client_at(40, &get("b"));
    check(lost, &["http a"], unread);
    // A broken hello.
    let mut broken = hello("a");
    let end = broken.len();
    broken[end - 2] = 9;
    check(talk(443).client(&broken), &["sni a"], unread);
}

#[test]
fn a_body_beyond_what_was_captured_hides_nothing() {
    const HEADERS: usize = 54;
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\n";
    let request = [&head[..], &[b'x'; 9000]].concat();
    let talk = talk(80).client(&request).server(b"x").client(&get("b"));
    let mut lab = Lab::new(FlowConfig::default());
    for (direction, frame) in &talk.frames {
        lab.play_cut(*direction, frame, HEADERS + 4096);
    }
    let report = &lab.finish()[0];
    assert_eq!(claims(report), ["http a", "http b"]);
    assert!(report.findings.contains(&"host_changed"));
    assert!(!report.findings.contains(&"start_unread"));
}

/// Of large frames only the start is captured, so that the ends of chunks are lost.
#[test]
fn a_body_of_which_chunks_are_not_seen_ends_with_the_answer() {
    const HEADERS: usize = 54;
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";
    #[track_caller]
    fn check_cut(talk: &Talk, names: &[&str], told: Option<&str>) {
        let mut lab = Lab::new(FlowConfig::default());
        for (direction, frame) in &talk.frames {
            lab.play_cut(*direction, frame, HEADERS + 1000);
        }
        let report = &lab.finish()[0];
        assert_eq!(claims(report), names);
        let findings = report
            .findings
            .iter()
            .filter(|it| !it.ends_with("_not_in_dns"));
        assert_eq!(findings.copied().next(), told);
    }
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = [b"578\r\n", &[b'x'; 1400][..], b"\r\n"].concat();
    let end = b"0\r\n\r\n";
    let request = [&head[..], &chunk.repeat(3), end].concat();
    let post = |talk: Talk| talk.client(&request).server(ANSWER);
    let posts = post(post(talk(80)).client(&get("a")).server(ANSWER));
    check_cut(&posts, &["http a"], None);
    let mut repeated = post(talk(80));
    repeated
        .frames
        .push(repeated.frames.last().unwrap().clone());
    check_cut(&repeated.client(&get("a")), &["http a"], None);
    let changed = post(talk(80)).client(&get("b"));
    check_cut(&changed, &["http a", "http b"], Some("host_changed"));
    // The server answers amid the body, which goes on.
    let early = talk(80)
        .client(head)
        .server(b"HTTP/1.1 100 Continue\r\n\r\n");
    let early = early
        .client(&chunk.repeat(3))
        .client(&chunk.repeat(3))
        .client(end);
    check_cut(&early.server(ANSWER).client(&get("a")), &["http a"], None);
    // Another request follows unseen, and is answered.
    let hidden = [&request[..], &get("b")].concat();
    let hidden = || talk(80).client(&hidden);
    let unread = Some("start_unread");
    check_cut(&hidden().server(ANSWER).server(ANSWER), &["http a"], unread);
    check_cut(&hidden().server(&ANSWER.repeat(2)), &["http a"], unread);
    let later = hidden().server(ANSWER).client(&get("a")).server(ANSWER);
    check_cut(&later.server(ANSWER), &["http a"], unread);
    let pipelined = [get("a"), request.clone()].concat();
    check_cut(
        &talk(80).client(&pipelined).server(ANSWER),
        &["http a"],
        unread,
    );
}

/// As where the kernel only counts what says nothing but its length.
#[test]
fn what_follows_a_body_that_was_only_counted_is_read() {
    const BODY: usize = 200_000;
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY}\r\n\r\n");
    let begun = talk(80).client(head.as_bytes()).server(b"");
    let before = begun.frames.len();
    let sent = begun.client_in(1400, &[0; BODY]);
    let after = sent.frames.len();
    let talk = sent.server(b"x").client(&get("b"));
    let mut lab = Lab::new(FlowConfig::default());
    lab.play_all(&talk.frames[..before]);
    let frames = (after - before) as u64;
    let bulk = Bulk {
        at: lab.now(),
        payload_at: lab.now(),
        direction: Direction::FromSandbox,
        tcp: Some(BulkTcp {
            next: talk.client_seq.wrapping_sub(get("b").len() as u32),
            ack: talk.server_seq.wrapping_sub(1),
        }),
        sandbox: (SANDBOX.into(), 40_000),
        peer: (SERVER.into(), 80),
        vlan: None,
        frames,
        segments: frames,
        wire_bytes: BODY as u64 + 54 * frames,
        payload: BODY as u64,
    };
    lab.table.bulk(&bulk, &mut lab.sink);
    lab.play_all(&talk.frames[after..]);
    let report = &lab.finish()[0];
    assert_eq!(claims(report), ["http a", "http b"]);
    assert!(report.findings.contains(&"host_changed"));
    assert!(!report.findings.contains(&"start_unread"));
}

#[test]
fn proxies_are_asked_for_names() {
    let differs = &["sni_differs_from_host"];
    let connect = |host: &str| format!("CONNECT {host}:443 HTTP/1.1\r\n\r\n").into_bytes();
    let through = |host: &str| {
        talk(3128)
            .client(&connect(host))
            .server(b"HTTP/1.1 200\r\n\r\n")
    };
    check(through("a").client(&hello("a")), &["http a"], &[]);
    check(
        through("a").client(&hello("b")),
        &["http a", "sni b"],
        differs,
    );
    check(
        through("192.0.2.1").client(&get("b")),
        &["http 192.0.2.1", "http b"],
        &[],
    );
    check(
        through("a").client(&get("b")),
        &["http a", "http b"],
        &["host_changed"],
    );
    // The proxy refused the first one.
    let again = through("a")
        .client(&connect("b"))
        .server(b"x")
        .client(&hello("b"));
    check(again, &["http a", "http b"], &["host_changed"]);

    let socks = [&[5, 1, 0, 5, 1, 0, 3, 1], &b"a"[..], &[1, 187]].concat();
    let through = || talk(1080).client(&socks).server(&[5, 0]);
    check(through(), &["socks a"], &[]);
    check(
        through().client(&hello("b")),
        &["socks a", "sni b"],
        differs,
    );
    check(
        through().client(&get("b")),
        &["socks a", "http b"],
        &["host_changed"],
    );
}

#[test]
fn what_stands_before_a_hello_does_not_hide_it() {
    let before: [&[u8]; 5] = [
        &[21, 3, 1, 0, 2, 1, 0],
        &[22, 3, 1, 0, 0],
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c123456789012",
        &[
            0, 0, 0, 8, 4, 0xd2, 0x16, 0x30, 0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f,
        ],
    ];
    for before in before {
        let stream = [before, &hello("a")].concat();
        check(talk(443).client(&stream), &["sni a"], &[]);
        check(talk(443).client_in(1, &stream), &["sni a"], &[]);
    }
    let mut odd = hello("a");
    odd[2] = 9;
    check(talk(443).client(&odd), &["sni a"], &[]);
}

#[test]
fn a_hello_is_read_once_the_server_answered_to_other_words() {
    let asks: [&[u8]; 5] = [
        b"0\x1d\x02\x01\x01w\x18\x80\x161.3.6.1.4.1.1466.20037",
        b"go on",
        b"\x20\0\0\x01\x85\xae\xff\0",
        b"<stream:stream to='x'><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
        b"a STARTTLS\r\n",
    ];
    for ask in asks {
        let asked = || talk(5000).client(b"\x01\x02\xff").server(b"x").client(ask);
        check(
            asked().server(b"y").client_in(40, &hello("a")),
            &["sni a"],
            &[],
        );
        // Without the server's word it may be anything.
        check(asked().client(&hello("a")), &[], &[]);
    }
}

#[test]
fn a_request_never_leads_to_tls() {
    let body = [b"a STARTTLS\r\n", &hello("b")[..]].concat();
    for start in [
        "\r\nPOST / HTTP/1.1",
        "POST / HTTP/1.1 ",
        " POST\t/ HTTP/1.5",
    ] {
        let head = format!(
            "{start}\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let talk = talk(80)
            .client(head.as_bytes())
            .server(b"HTTP/1.1 100 Continue\r\n\r\n");
        check(talk.client(&body), &["http a"], &[]);
    }
    let odd = talk(80).client(b"POST / HTTP/1.x\r\n\r\na STARTTLS\r\n");
    check(odd.server(b"x").client(&hello("b")), &[], &["start_unread"]);
}

#[test]
fn lines_that_ask_for_tls_need_a_server_that_agrees() {
    let asks = b"EHLO a\r\nSTARTTLS\r\n";
    let unasked = talk(25).client(asks).client(&hello("a"));
    check(unasked, &["sni a"], &["start_unread"]);
    let greeted = talk(25).server(b"220\r\n").client(asks).client(&hello("a"));
    check(greeted, &["sni a"], &[]);
    let agreed = talk(25).client(asks).server(b"220\r\n").client(&hello("a"));
    check(agreed, &["sni a"], &[]);
}
