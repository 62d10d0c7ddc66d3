//! The requests of a connection, one after the other.

use super::*;
use proptest::prelude::*;

/// The hosts of all heads, each with `?` where it is ambiguous, and what ended the walk.
fn walk(stream: &[u8], step: usize) -> (Vec<String>, &'static str) {
    let mut requests = Requests::new(0);
    let mut hosts = Vec::new();
    let mut end = 0;
    loop {
        match requests.next(0, &stream[..end]) {
            Progress::Head(head) => {
                let mark = if head.ambiguous { "?" } else { "" };
                hosts.push(head.hosts.join(",") + mark);
            }
            Progress::More if end == stream.len() => return (hosts, "more"),
            Progress::More => end = stream.len().min(end + step),
            Progress::Other => return (hosts, "other"),
            Progress::Switched(_) => return (hosts, "switched"),
            Progress::Unreadable => return (hosts, "unreadable"),
        }
    }
}

#[track_caller]
fn check(stream: &str, hosts: &[&str], end: &str) {
    for step in [1, 7, stream.len().max(1)] {
        let found = walk(stream.as_bytes(), step);
        assert_eq!(found.0, hosts, "{stream:?} in pieces of {step}");
        assert_eq!(found.1, end, "{stream:?} in pieces of {step}");
    }
}

#[track_caller]
fn facts(stream: &str) -> (String, Option<String>, String) {
    match Requests::new(0).next(0, stream.as_bytes()) {
        Progress::Head(head) => {
            let facts = head.facts;
            (facts.method, facts.host, facts.path)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_head_is_read() {
    #[track_caller]
    fn check(stream: &str, method: &str, host: Option<&str>, path: &str) {
        let expected = (method.into(), host.map(Into::into), path.into());
        assert_eq!(facts(stream), expected);
    }
    let host = Some("a.example");
    check(
        "GET / HTTP/1.1\r\nHost: A.Example.:80\r\n\r\n",
        "GET",
        host,
        "/",
    );
    check(
        "POST /x?key=1 HTTP/1.1\nhost: b\n\n",
        "POST",
        Some("b"),
        "/x?…",
    );
    check(
        "GET http://u:p@c:8080/y?z HTTP/1.1\r\nHost: c\r\n\r\n",
        "GET",
        Some("c"),
        "/y?…",
    );
    check(
        "CONNECT a.example:443 HTTP/1.1\r\n\r\n",
        "CONNECT",
        host,
        "",
    );
    check("GET / HTTP/1.0\r\n\r\n", "GET", None, "/");
    check(
        "GET /\u{e9} x HTTP/1.1\nHost: [2001:db8::1]:80\n\r\n",
        "GET",
        Some("2001:db8::1"),
        "/\\195\\169\\032x",
    );
}

#[test]
fn a_request_line_is_taken_as_servers_take_it() {
    for start in [
        "GET / HTTP/1.1 ",
        "\r\n\r\nGET / HTTP/1.1",
        " GET\t/  HTTP/1.7\t",
        "GET HTTP/1.1",
        "A\x0c/\x0cHTTP/1.0",
    ] {
        check(&format!("{start}\r\nHost: a\r\n\r\n"), &["a"], "more");
    }
    for start in [
        "PRI * HTTP/2.0",
        "GET / http/1.1",
        "GET / HTTP/1.10",
        "GET / HTTP/1.1 x",
    ] {
        check(&format!("{start}\r\nHost: a\r\n\r\n"), &[], "unreadable");
    }
    for start in [
        "USER anonymous",
        "\x16\x03\x01",
        "SSH-2.0-OpenSSH_9.2",
        "GET key",
    ] {
        check(&format!("{start}\r\n"), &[], "other");
    }
    check("GE", &[], "more");
    check("GET / HTTP/1.1\r\nHost: x\r\n", &[], "more");
    check(&"A".repeat(300), &[], "other");
}

#[test]
fn every_request_is_read() {
    let get = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let post =
        |field: &str, body: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n{body}");
    let [a, b] = ["a", "b"].map(get);
    check(
        &[a.clone(), b.clone(), a.clone()].concat(),
        &["a", "b", "a"],
        "more",
    );
    let length = post("Content-Length: 5", "GET=/");
    check(&[length, b.clone()].concat(), &["a", "b"], "more");
    let chunks = "4\r\nGET \r\n1A;x=y\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nHost: c\r\n\r\n";
    let chunked = post("Transfer-Encoding: gzip, Chunked", chunks);
    check(&[chunked, b.clone()].concat(), &["a", "b"], "more");
    check(&[a.as_str(), "\0\0"].concat(), &["a"], "other");
    // Another protocol, but only where the server agrees.
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n";
    check(&[upgrade, "\u{1}"].concat(), &["a"], "switched");
    check(&[upgrade, &b].concat(), &["a", "b"], "more");
    let connect = "CONNECT a:1 HTTP/1.1\r\n\r\n";
    check(
        &[connect, "CONNECT b:1 HTTP/1.1\r\n\r\n", "\x16"].concat(),
        &["a", "b"],
        "switched",
    );
}

#[test]
fn a_body_that_servers_do_not_expect_may_be_a_request() {
    let get = "GET / HTTP/1.1\r\nHost: b\r\n\r\n";
    let with = |body: &str| {
        let length = body.len();
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    check(&with(get), &["a", "b"], "more");
    check(&(with("{\"x\": 1}") + get), &["a", "b"], "more");
    check(&(with("x\ny") + get), &["a", "b"], "more");
    let chunked = "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
    check(&[chunked, get].concat(), &["", "b"], "more");
}

#[test]
fn a_body_whose_end_servers_may_see_elsewhere_is_told() {
    let fields = [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: +5",
        "Content-Length : 5",
        "Content-Length:\r\n 5",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    ];
    for field in fields {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
        check(&head, &["a"], "more");
        check(&(head + "0"), &["a"], "unreadable");
    }
    check(
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        &[""],
        "unreadable",
    );
    check(
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0",
        &[""],
        "unreadable",
    );
    let same = "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx";
    check(same, &[""], "more");
}

#[test]
fn hosts_that_differ_are_told() {
    #[track_caller]
    fn check_head(target: &str, fields: &str, hosts: &str) {
        check(
            &format!("GET {target} HTTP/1.1\r\n{fields}\r\n\r\n"),
            &[hosts],
            "more",
        );
    }
    check_head("/", "Host: a\r\nHost: A:80", "a");
    check_head("http://a/", "Host: a", "a");
    check_head("/", "X-Host: b\r\nHost: a\r\nHostess: c", "a");
    check_head("/", "Host: a\r\nHost: b", "a,b?");
    check_head("http://a/", "Host: b", "a,b?");
    check_head("/", "Host: a\r\n b", "a,b?");
    check_head("/", "Host: a\r\nHost : b", "a,b?");
    check_head("/", "Host : a", "a?");
    check_head("/", "X: y\r\n Host: a", "a?");
    check_head("/", "X: y\rHost: b\r\nHost: a", "b,a?");
    check_head("/", "Bad line\r\nHost: a", "a");
}

#[test]
fn a_head_that_does_not_end_counts_as_far_as_it_goes() {
    let mut requests = Requests::new(0);
    let stream = b"GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.exam";
    assert!(matches!(requests.next(0, stream), Progress::More));
    let head = requests.give_up(0, stream).unwrap();
    assert_eq!(head.hosts, ["a.example"]);
    assert!(!head.ambiguous);
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_walked_once(start in 0_usize..3, bytes: Vec<u8>) {
        let head = "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let stream = [["", "GET / ", head][start].as_bytes(), &bytes].concat();
        let (whole, end) = walk(&stream, stream.len().max(1));
        prop_assert_eq!(walk(&stream, 3), (whole, end));
    }
}
