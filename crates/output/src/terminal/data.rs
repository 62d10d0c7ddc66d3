//! Lines of what a sandbox did.

use super::columns::Columns;
use sandtrace_event::{
    DnsQuery, FileChange, FileKind, FileOp, Flow, FlowPhase, HashScope, Protocol,
};
use std::net::{IpAddr, Ipv6Addr};

pub(super) fn egress(flow: &Flow) -> Columns {
    let from = flow.src_ip.map(|ip| ip.to_string()).unwrap_or_default();
    let (open, close) = brackets(&flow.dst_host);
    let port = port(flow.dst_port);
    Columns::new("NET", phase(flow.phase))
        .peer(
            &format!("{from} → {open}"),
            &flow.dst_host,
            &format!("{close}{port} {}", protocol(flow)),
        )
        .bytes(Some(flow.bytes_sent.0))
        .remark(&within(flow))
        .remark(&flow.findings.join(", "))
}

/// The sandbox stands left in both directions; the arrow says who began.
pub(super) fn ingress(flow: &Flow) -> Columns {
    let to = flow.src_ip.map(|ip| endpoint(ip, flow.src_port));
    let (open, close) = brackets(&flow.dst_host);
    Columns::new("IN", phase(flow.phase))
        .peer(
            &format!("{} ← {open}", to.unwrap_or_default()),
            &flow.dst_host,
            &format!("{close} {}", protocol(flow)),
        )
        .bytes(Some(flow.bytes_sent.0))
        .remark(&within(flow))
        .remark(&flow.findings.join(", "))
}

/// What is unusual about what the record stands for.
fn within(flow: &Flow) -> String {
    let many = flow
        .aggregate
        .as_ref()
        .map(|it| format!("{} conversations", it.flows));
    let inside = flow.tunnel.as_ref().map(|it| format!("inside {}", it.kind));
    let parts: Vec<_> = many.into_iter().chain(inside).collect();
    parts.join(", ")
}

pub(super) fn dns(query: &DnsQuery) -> Columns {
    let mut remark = match (&query.rcode, query.latency_us) {
        (Some(rcode), Some(latency)) => format!("{rcode} in {}", millis(latency.0)),
        (Some(rcode), None) => rcode.clone(),
        (None, _) => "no answer".to_owned(),
    };
    if let Some(questions) = query.questions {
        remark = format!("{questions} questions, {remark}");
    }
    if query.rcode.is_some() && !query.matched {
        remark.push_str(", matches no question");
    }
    if !query.resolver_accepted {
        remark.push_str(&format!(", resolver {} not accepted", query.resolver));
    }
    let answers = query.answers.join(", ");
    let answers = if answers.is_empty() {
        answers
    } else {
        format!("→ {answers}")
    };
    Columns::new("DNS", &query.qtype)
        .peer("", &query.name, "")
        .remark(&answers)
        .remark(&remark)
}

pub(super) fn file(change: &FileChange) -> Columns {
    let size = if change.op == FileOp::Deleted {
        change.size_before
    } else {
        change.size_after
    };
    let path = match &change.path_b64 {
        Some(exact) => exact.0.as_slice(),
        None => change.path.as_bytes(),
    };
    let target = change.symlink_target.as_ref();
    let from = change.renamed_from.as_ref();
    let unreadable = change.unreadable.as_ref();
    Columns::new("FS", op(change.op))
        .path(path)
        .bytes(
            (change.kind == FileKind::File)
                .then_some(size.map(|size| size.0))
                .flatten(),
        )
        .remark(kind(change.kind))
        .remark(&from.map(|from| format!("from {from}")).unwrap_or_default())
        .remark(
            &target
                .map(|target| format!("→ {target}"))
                .unwrap_or_default(),
        )
        .remark(&digest(change))
        .remark(
            &unreadable
                .map(|why| format!("unreadable: {why}"))
                .unwrap_or_default(),
        )
}

fn phase(phase: FlowPhase) -> &'static str {
    match phase {
        FlowPhase::Open => "open",
        FlowPhase::Update => "update",
        FlowPhase::Close => "close",
    }
}

/// The most telling word for what is spoken.
fn protocol(flow: &Flow) -> String {
    let word = match flow.protocol {
        Protocol::Tcp if flow.tls.is_some() => "tls",
        Protocol::Tcp if flow.http.is_some() => "http",
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Icmp => "icmp",
        Protocol::Icmpv6 => "icmpv6",
        Protocol::Arp => "arp",
        Protocol::Ip => {
            return flow
                .ip_protocol
                .map_or_else(|| "ip".to_owned(), |number| format!("ip/{number}"));
        }
        Protocol::Ethernet => {
            return flow.ether_type.map_or_else(
                || "ethernet".to_owned(),
                |kind| format!("ether/{kind:#06x}"),
            );
        }
    };
    word.to_owned()
}

fn brackets(host: &str) -> (&'static str, &'static str) {
    if host.parse::<Ipv6Addr>().is_ok() {
        ("[", "]")
    } else {
        ("", "")
    }
}

fn port(port: Option<u16>) -> String {
    port.map(|port| format!(":{port}")).unwrap_or_default()
}

fn endpoint(ip: IpAddr, number: Option<u16>) -> String {
    match ip {
        IpAddr::V4(ip) => format!("{ip}{}", port(number)),
        IpAddr::V6(ip) => format!("[{ip}]{}", port(number)),
    }
}

fn millis(micros: u64) -> String {
    format!("{}.{} ms", micros / 1000, micros % 1000 / 100)
}

fn op(op: FileOp) -> &'static str {
    match op {
        FileOp::Created => "created",
        FileOp::Modified => "modified",
        FileOp::Deleted => "deleted",
        FileOp::Renamed => "renamed",
        FileOp::Metadata => "metadata",
    }
}

/// Named only where it is not what everybody expects.
fn kind(kind: FileKind) -> &'static str {
    match kind {
        FileKind::File => "",
        FileKind::Dir => "directory",
        FileKind::Symlink => "symlink",
        FileKind::Char => "character device",
        FileKind::Block => "block device",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
        FileKind::Unknown => "unknown kind",
    }
}

/// The first 48 bits, enough to tell two contents apart by eye.
fn digest(change: &FileChange) -> String {
    let Some(digest) = &change.sha256 else {
        return String::new();
    };
    let text = digest.to_string();
    let short = text.get(..19).unwrap_or(&text);
    match change.sha256_scope {
        Some(HashScope::HeadTail) => format!("{short}… (head and tail)"),
        Some(HashScope::Whole) | None => format!("{short}…"),
    }
}
