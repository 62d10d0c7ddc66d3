//! dns.log: one row per question.

use super::log::{Row, logs, micros, number, value};
use super::ours::replay;
use super::tally::{Field, Known, Tally, field};
use crate::published::corpus;
use sandtrace_wire::DnsTransaction;
use std::net::IpAddr;

const DIFFERENT: &Known = &[
    (
        "dns53.pcap",
        1,
        "an answer without a question, which nothing can be matched to",
    ),
    (
        "ipv6-fragmented-dns.pcap",
        1,
        "a question that is asked again after 5 s is another one, with its own answer",
    ),
];

#[test]
fn questions_agree_with_zeek() {
    let Some(folder) = corpus("questions_agree_with_zeek", "zeek") else {
        return;
    };
    let mut tally = Tally::default();
    for log in logs(&folder, "dns") {
        let mut ours = replay(&log.capture).questions;
        for row in log.rows.iter().filter(|row| is_defined(row)) {
            let same = |it: &_| same_question(row, it);
            let compare = |it: &_| compare(row, it);
            tally.nearest(
                &log.capture,
                &row["query"].clone(),
                &mut ours,
                same,
                compare,
            );
        }
    }
    tally.finish("dns.log", 94, DIFFERENT);
}

/// A question is what is asked of port 53; mDNS, LLMNR and NetBIOS are flows.
fn is_defined(row: &Row) -> bool {
    number(row, "id.resp_p") == Some(53) && value(row, "query").is_some()
}

fn same_question(row: &Row, it: &DnsTransaction) -> bool {
    let resolver: IpAddr = row["id.resp_h"].parse().unwrap();
    it.resolver == resolver && it.name == row["query"].to_ascii_lowercase()
}

fn compare(row: &Row, it: &DnsTransaction) -> Vec<Field> {
    let mut fields = vec![field(
        "query",
        row["query"].to_ascii_lowercase(),
        it.name.clone(),
    )];
    if let Some(theirs) = number(row, "qtype") {
        let theirs = qtype(&row["qtype_name"], theirs);
        fields.push(field("qtype", theirs, it.qtype.clone()));
    }
    if row.contains_key("rcode_name") {
        let theirs = value(row, "rcode_name");
        fields.push(field("rcode", theirs, it.rcode.as_deref()));
    }
    if let Some(theirs) = value(row, "rtt").and_then(micros) {
        fields.push(field("rtt", Some(theirs), it.latency_us));
    }
    if let Some(answers) = value(row, "answers") {
        // Addresses: of other types Zeek's text is its own.
        let addresses = |texts: &mut dyn Iterator<Item = &str>| -> Vec<IpAddr> {
            texts.filter_map(|text| text.parse().ok()).collect()
        };
        let theirs = addresses(&mut answers.split(','));
        let ours = addresses(&mut it.answers.iter().map(String::as_str));
        fields.push(field("addresses", theirs, ours));
    }
    fields
}

/// Zeek's names of types, where ours are the registry's.
fn qtype(name: &str, number: u64) -> String {
    match name {
        "*" => "ANY".to_owned(),
        name if name.starts_with("query-") => format!("TYPE{number}"),
        name => name.to_owned(),
    }
}
