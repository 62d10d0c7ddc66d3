//! ssl.log, quic.log and http.log: who the client says it talks to.

use super::log::{Row, logs, number, value};
use super::ours::{Conversation, replay};
use super::tally::{Field, Known, Tally, field};
use crate::published::corpus;
use std::net::IpAddr;

#[test]
fn tls_names_agree_with_zeek() {
    const DIFFERENT: &Known = &[(
        "rdp-no-cookie-mstshash.pcap",
        1,
        "TLS after RDP's own negotiation is not read",
    )];
    check("tls_names_agree_with_zeek", "ssl", DIFFERENT, |row, it| {
        let sni = value(row, "server_name").map(str::to_ascii_lowercase);
        let mut fields = vec![field("server_name", sni, it.sni.clone())];
        // A server over QUIC is not read.
        let theirs = value(row, "version").and_then(version);
        if theirs.is_some() && !it.is_quic {
            fields.push(field("version", theirs, it.tls_version));
        }
        let first = value(row, "cert_chain_fps").and_then(|chain| chain.split(',').next());
        if first.is_some() {
            fields.push(field("certificate", first, it.certificate.as_deref()));
        }
        fields
    });
}

/// A draft of 1.3 is 1.3 but for its number.
fn version(zeek: &str) -> Option<&str> {
    let name = zeek.split('-').next().unwrap_or_default();
    Some(match name {
        "SSLv3" => "SSL 3.0",
        "TLSv10" => "1.0",
        "TLSv11" => "1.1",
        "TLSv12" => "1.2",
        "TLSv13" => "1.3",
        _ => return None,
    })
}

#[test]
fn quic_names_agree_with_zeek() {
    const DIFFERENT: &Known = &[(
        "vector-max-size-crash.pcap",
        1,
        "a version that nobody speaks is not taken for QUIC",
    )];
    check(
        "quic_names_agree_with_zeek",
        "quic",
        DIFFERENT,
        |row, it| {
            let sni = value(row, "server_name").map(str::to_ascii_lowercase);
            let version = value(row, "version");
            let alpn = value(row, "client_protocol");
            vec![
                field("server_name", sni, it.sni.clone()),
                field("version", version, it.quic_version),
                field("protocol", alpn, it.alpn.first().map(String::as_str)),
            ]
        },
    );
}

#[test]
fn requests_agree_with_zeek() {
    const DIFFERENT: &Known = &[
        (
            "connect-with-smtp.pcap",
            1,
            "a CONNECT target with a space in it",
        ),
        (
            "http-09-content-length-confusion.pcap",
            1,
            "an answer to a request that is none",
        ),
        (
            "http-bad-request-with-version.pcap",
            1,
            "a space before the method",
        ),
        (
            "ssl-to-http-server.pcap",
            1,
            "an answer to a TLS hello, which is no request",
        ),
    ];
    check("requests_agree_with_zeek", "http", DIFFERENT, |row, it| {
        let Some(http) = &it.http else {
            return vec![field("request", true, false)];
        };
        let mut fields = vec![field(
            "method",
            value(row, "method"),
            Some(http.method.as_str()),
        )];
        if let Some(host) = value(row, "host") {
            let host = host.to_ascii_lowercase();
            let host = host.split(':').next().unwrap_or_default().to_owned();
            fields.push(field("host", Some(host), http.host.clone()));
        }
        if let Some(uri) = value(row, "uri") {
            // Ours leaves the query out and Zeek's is decoded.
            let path = |uri: &str| uri.split('?').next().unwrap_or_default().to_owned();
            let (theirs, ours) = (unescaped(&path(uri)), decoded(&path(&http.path)));
            fields.push(field("path", theirs, ours));
        }
        fields
    });
}

/// Holds the rows of a log against the conversations between the same ends.
#[track_caller]
fn check(
    test: &str,
    kind: &str,
    known: &Known,
    compare: impl Fn(&Row, &Conversation) -> Vec<Field>,
) {
    let Some(folder) = corpus(test, "zeek") else {
        return;
    };
    let mut tally = Tally::default();
    for log in logs(&folder, kind) {
        let mut ours = replay(&log.capture).conversations;
        for row in log.rows.iter().filter(|row| is_defined(row)) {
            let same = |it: &_| same_ends(row, it) && (kind != "quic" || it.is_quic);
            let compare = |it: &_| compare(row, it);
            tally.nearest(
                &log.capture,
                &format!("{} {}", row["id.orig_h"], row["id.resp_h"]),
                &mut ours,
                same,
                compare,
            );
        }
    }
    tally.finish(&format!("{kind}.log"), 80, known);
}

/// The first request of a connection, where the log is of requests.
fn is_defined(row: &Row) -> bool {
    value(row, "id.orig_h").is_some() && number(row, "trans_depth").is_none_or(|depth| depth == 1)
}

fn same_ends(row: &Row, it: &Conversation) -> bool {
    let [first, second] = it.sides;
    let is = |side: super::ours::Side, host: &str, port: &str| {
        row[host].parse::<IpAddr>().ok() == side.ip
            && number(row, port).is_none_or(|port| port == u64::from(side.port))
    };
    (is(first, "id.orig_h", "id.orig_p") && is(second, "id.resp_h", "id.resp_p"))
        || (is(second, "id.orig_h", "id.orig_p") && is(first, "id.resp_h", "id.resp_p"))
}

/// `%41` as a byte.
fn decoded(path: &str) -> Vec<u8> {
    escapes(path, '%', 2, 16)
}

/// `\x41` in a log as a byte.
fn unescaped(text: &str) -> Vec<u8> {
    let text = text.replace("\\\\", "\\x5c").replace("\\x", "\u{1}");
    escapes(&text, '\u{1}', 2, 16)
}

fn escapes(text: &str, mark: char, digits: usize, radix: u32) -> Vec<u8> {
    let mut parts = text.split(mark);
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at_checked(digits).unwrap_or((part, ""));
        match u8::from_str_radix(code, radix) {
            Ok(byte) => bytes.push(byte),
            Err(_) => bytes.extend(code.as_bytes()),
        }
        bytes.extend(rest.as_bytes());
    }
    bytes
}
