//! TCP connections beside Zeek's conn.log of the same captures.

use crate::support::{Closed, corpus, frames, run, zeek_logs};
use sandtrace_wire::{FlowConfig, Protocol};
use std::path::Path;

/// One row of a conn.log: endpoints, payload bytes, packets and state.
#[derive(Debug)]
struct Row {
    ends: [String; 2],
    bytes: Option<[u64; 2]>,
    packets: [u64; 2],
    state: String,
}

/// Captures with rows that differ: how many, and why. All other rows agree in
/// both ends, packets, payload and state.
const DIFFERENT: [(&str, usize, &str); 5] = [
    (
        "ssh.client-side-half-duplex.pcap",
        10,
        "Zeek splits a connection without an answer at a pause of seconds",
    ),
    (
        "Teredo.pcap",
        4,
        "Zeek splits a connection met at its end at a pause of seconds",
    ),
    ("mixed-vlan-mpls.pcap", 1, "MPLS is its own EtherType class"),
    ("mpls-in-vlan.pcap", 2, "MPLS is its own EtherType class"),
    ("irc-starttls.pcap", 1, "not an Ethernet capture"),
];

#[test]
fn connections_agree_with_zeek() {
    let Some(folder) = corpus("connections_agree_with_zeek", "zeek") else {
        return;
    };
    let mut agreed = 0;
    for (capture, log) in zeek_logs(&folder, "conn.log") {
        let (these, different) = compare(&capture, &log);
        agreed += these;
        let allowed = DIFFERENT
            .iter()
            .find(|(name, ..)| capture.ends_with(name))
            .map_or(0, |(_, rows, _)| *rows);
        assert_eq!(different.len(), allowed, "{different:#?}");
    }
    assert!(agreed >= 88, "{agreed}");
}

/// Rows of a log that agree with a flow, and those that do not, with the flow
/// between the same ends.
fn compare(capture: &Path, log: &Path) -> (usize, Vec<String>) {
    let rows = rows(&std::fs::read_to_string(log).unwrap());
    if rows.is_empty() {
        return (0, Vec::new());
    }
    // Zeek's timeouts.
    let config = FlowConfig {
        tcp_idle_us: 300_000_000,
        tcp_attempt_us: 300_000_000,
        tcp_linger_us: 5_000_000,
        ..FlowConfig::default()
    };
    let (closed, _) = run(&frames(capture), config);
    let mut flows: Vec<Closed> = closed
        .into_iter()
        .filter(|flow| flow.protocol == Protocol::Tcp)
        .collect();
    let (mut agreed, mut different) = (0, Vec::new());
    for row in &rows {
        match flows.iter().position(|flow| agrees(row, flow)) {
            Some(at) => {
                flows.remove(at);
                agreed += 1;
            }
            None => {
                let ours = flows.iter().find(|flow| ends(flow) == row.ends);
                different.push(format!("{}: {row:?} {ours:?}", log.display()));
            }
        }
    }
    (agreed, different)
}

fn agrees(row: &Row, flow: &Closed) -> bool {
    // Zeek's counts are of sequence numbers: what was missed is in them.
    let bytes = row.bytes.is_none_or(|bytes| {
        bytes == flow.payload
            || bytes.iter().sum::<u64>() == flow.payload.iter().sum::<u64>() + flow.missed
    });
    ends(flow) == row.ends
        && bytes
        && row.packets == flow.packets
        && flow.state.is_some_and(|state| state.as_str() == row.state)
}

fn ends(flow: &Closed) -> [String; 2] {
    flow.ends.map(|end| {
        let ip = end.ip.map(|ip| ip.to_string()).unwrap_or_default();
        format!("{ip} {}", end.port.unwrap_or_default())
    })
}

/// TCP rows of a log that has all the fields.
fn rows(log: &str) -> Vec<Row> {
    let Some(fields) = log.lines().find_map(|line| line.strip_prefix("#fields\t")) else {
        return Vec::new();
    };
    let fields: Vec<&str> = fields.split('\t').collect();
    log.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let values: Vec<&str> = line.split('\t').collect();
            let get = |name: &str| {
                let at = fields.iter().position(|field| *field == name)?;
                values.get(at).copied()
            };
            let number = |name: &str| get(name)?.parse::<u64>().ok();
            if get("proto")? != "tcp" || get("tunnel_parents").is_some_and(|it| it != "-") {
                return None;
            }
            let end = |host: &str, port: &str| Some(format!("{} {}", get(host)?, get(port)?));
            Some(Row {
                ends: [
                    end("id.orig_h", "id.orig_p")?,
                    end("id.resp_h", "id.resp_p")?,
                ],
                bytes: number("orig_bytes")
                    .zip(number("resp_bytes"))
                    .map(|(orig, resp)| [orig, resp]),
                packets: [number("orig_pkts")?, number("resp_pkts")?],
                state: get("conn_state")?.to_owned(),
            })
        })
        .collect()
}
