//! conn.log: one row per connection.

use super::log::{Row, logs, number, value};
use super::ours::{Conversation, Side, replay};
use super::tally::{Field, Known, Tally, field};
use crate::published::corpus;
use sandtrace_wire::Protocol;
use std::net::IpAddr;

const DIFFERENT: &Known = &[
    (
        "Teredo.pcap",
        3,
        "Zeek ends a DNS connection after 10 s, and calls a lone RST in mid-stream OTH",
    ),
    (
        "gap-data-missing.pcapng",
        1,
        "a trunk with another VLAN for each direction: VLANs are kept apart",
    ),
    (
        "gre-aruba-amsdu.pcap",
        1,
        "GRE with 802.11 frames is not looked into",
    ),
    (
        "misordered-ntp.pcap",
        1,
        "Zeek turns the direction while the connection goes on",
    ),
    (
        "ssh.client-side-half-duplex.pcap",
        1,
        "Zeek splits a connection without an answer where it met a FIN",
    ),
];

#[test]
fn connections_agree_with_zeek() {
    let Some(folder) = corpus("connections_agree_with_zeek", "zeek") else {
        return;
    };
    let mut tally = Tally::default();
    for log in logs(&folder, "conn") {
        let mut ours = replay(&log.capture).conversations;
        for row in log.rows.iter().filter(|row| is_defined(row)) {
            let same = |it: &_| same_ends(row, it);
            let compare = |it: &_| compare(row, it);
            tally.nearest(&log.capture, &name(row), &mut ours, same, compare);
        }
    }
    tally.finish("conn.log", 97, DIFFERENT);
}

/// Whether a row has the columns that name a connection.
fn is_defined(row: &Row) -> bool {
    ["id.orig_h", "id.resp_h"]
        .iter()
        .all(|name| value(row, name).is_some())
}

fn name(row: &Row) -> String {
    ["proto", "id.orig_h", "id.orig_p", "id.resp_h", "id.resp_p"]
        .map(|field| value(row, field).unwrap_or("-"))
        .join(" ")
}

/// The same two ends, whoever began.
fn same_ends(row: &Row, it: &Conversation) -> bool {
    let same_protocol = match (value(row, "proto").unwrap_or("-"), it.protocol) {
        ("tcp", Protocol::Tcp)
        | ("udp", Protocol::Udp)
        | ("icmp", Protocol::Icmp | Protocol::Icmpv6) => true,
        // Logs that are cut have no protocol.
        ("-", Protocol::Tcp | Protocol::Udp) => true,
        ("unknown_transport", Protocol::Ip(number)) => {
            value(row, "ip_proto") == Some(&number.to_string())
        }
        _ => false,
    };
    let [first, second] = it.sides;
    same_protocol && (began(row, it) || (is(row, it, second, ORIG) && is(row, it, first, RESP)))
}

const ORIG: [&str; 2] = ["id.orig_h", "id.orig_p"];
const RESP: [&str; 2] = ["id.resp_h", "id.resp_p"];

/// Whether the side that we say began is the one that Zeek says did.
fn began(row: &Row, it: &Conversation) -> bool {
    let [first, second] = it.sides;
    is(row, it, first, ORIG) && is(row, it, second, RESP)
}

/// Whether a side is one end of a row. Types and codes of ICMP stand where
/// others have ports; addresses tell enough.
fn is(row: &Row, it: &Conversation, side: Side, [host, port]: [&str; 2]) -> bool {
    let ported = matches!(it.protocol, Protocol::Tcp | Protocol::Udp);
    row[host].parse::<IpAddr>().ok() == side.ip
        && number(row, port).is_none_or(|port| !ported || port == u64::from(side.port))
}

fn compare(row: &Row, it: &Conversation) -> Vec<Field> {
    let [first, second] = it.sides;
    let began = began(row, it);
    let [orig, resp] = if began {
        [first, second]
    } else {
        [second, first]
    };
    let mut fields = vec![field("found", true, true)];
    // Zeek turns some connections by its list of servers' ports; ours is who sent first.
    let turned = value(row, "history").is_some_and(|history| history.starts_with('^'));
    if !turned {
        fields.push(field("originator", true, began));
    }
    let mut check = |name, theirs: Option<u64>, ours: u64| {
        if let Some(theirs) = theirs {
            fields.push(field(name, theirs, ours));
        }
    };
    let packets = [number(row, "orig_pkts"), number(row, "resp_pkts")];
    // A connection without packets is one whose content Zeek could not read.
    if packets != [Some(0), Some(0)] {
        check("orig_pkts", number(row, "orig_pkts"), orig.packets);
        check("resp_pkts", number(row, "resp_pkts"), resp.packets);
    }
    // Zeek counts no payload of protocols that it has no analyzer for.
    let has_bytes = value(row, "proto") != Some("unknown_transport");
    let bytes = |name| number(row, name).filter(|_| has_bytes);
    // Zeek's bytes are of sequence numbers: what was missed is in them.
    check(
        "orig_bytes",
        bytes("orig_bytes"),
        orig.payload + orig.missed,
    );
    check(
        "resp_bytes",
        bytes("resp_bytes"),
        resp.payload + resp.missed,
    );
    check(
        "missed_bytes",
        bytes("missed_bytes"),
        orig.missed + resp.missed,
    );
    if let (Some(theirs), Some(ours)) = (value(row, "conn_state"), it.state) {
        let ours = ours.as_str();
        let ours = if turned && !began {
            mirrored(ours)
        } else {
            ours
        };
        fields.push(field("conn_state", theirs, ours));
    }
    if let (Some(theirs), Some(ours), false) = (value(row, "history"), &it.history, turned) {
        // Zeek's other letters: checksums, gaps, windows, flags that do not go together.
        let plain = |history: &str| -> String {
            let letters = history.chars();
            letters
                .filter(|it| "SHADFR".contains(it.to_ascii_uppercase()))
                .collect()
        };
        fields.push(field("history", plain(theirs), plain(ours)));
    }
    if let (Some(theirs), Some(ours)) = (value(row, "community_id"), &it.community_id) {
        fields.push(field("community_id", theirs, ours.as_str()));
    }
    if row.contains_key("tunnel_parents") {
        let theirs = value(row, "tunnel_parents").is_some();
        fields.push(field("tunnelled", theirs, it.tunnelled));
    }
    fields
}

/// The same state seen from the other end.
fn mirrored(state: &str) -> &str {
    let pairs = [
        ("S2", "S3"),
        ("RSTO", "RSTR"),
        ("SH", "SHR"),
        ("RSTOS0", "RSTRH"),
    ];
    let other = pairs.iter().find_map(|(a, b)| match state {
        _ if state == *a => Some(*b),
        _ if state == *b => Some(*a),
        _ => None,
    });
    other.unwrap_or(state)
}
