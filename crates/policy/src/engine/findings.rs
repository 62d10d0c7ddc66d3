//! What the words in a flow's `findings` mean for a rule that would allow it.

use super::builtin::DNS_PORT;
use super::reason::Shown;
use sandtrace_event::Flow;

/// How the rule came to match.
#[derive(Clone, Copy, Debug)]
pub(super) struct Basis {
    /// By a name, not by an address.
    pub(super) by_name: bool,
    /// By one address that the rule spells out.
    pub(super) by_single_address: bool,
    /// A client's word alone is enough for the rule.
    pub(super) claim_suffices: bool,
    /// A name never leads to a private address or one of the host.
    pub(super) names_stay_outside: bool,
    /// The rule bounds bytes.
    pub(super) bounds_bytes: bool,
    /// A rule denies hosts by their names.
    pub(super) hosts_denied: bool,
}

/// Adds a sentence for every finding that stands against the rule.
pub(super) fn objections(flow: &Flow, basis: Basis, objections: &mut Vec<String>) {
    for word in &flow.findings {
        match meaning(word, flow, basis) {
            Meaning::Harmless => {}
            Meaning::Objection(sentence) => objections.push(sentence.to_owned()),
            // A later version's word: what it means is not known, so it is not ignored.
            Meaning::Unknown => objections.push(format!("finding {}", Shown(word))),
        }
    }
}

enum Meaning {
    Harmless,
    Objection(&'static str),
    Unknown,
}

fn meaning(word: &str, flow: &Flow, basis: Basis) -> Meaning {
    let objection_if = |applies: bool, sentence| match applies {
        true => Meaning::Objection(sentence),
        false => Meaning::Harmless,
    };
    // Questions are judged by their names, whatever allows the way to the resolver.
    let reads_names = basis.by_name || flow.dst_port == Some(DNS_PORT);
    match word {
        // Against names: a rule for an address does not ask for them.
        "sni_not_in_dns" => objection_if(
            basis.by_name && !basis.claim_suffices,
            "the TLS server name is not among the DNS answers for this address",
        ),
        "host_not_in_dns" => objection_if(
            basis.by_name && !basis.claim_suffices,
            "the HTTP host is not among the DNS answers for this address",
        ),
        "sni_differs_from_host" => objection_if(
            basis.by_name,
            "the client asked a proxy for one host, and the TLS hello inside names another",
        ),
        "sni_changed" => objection_if(
            basis.by_name,
            "the connection named two hosts in its TLS hellos",
        ),
        "host_changed" => objection_if(
            basis.by_name,
            "the requests of the connection named two hosts",
        ),
        "host_ambiguous" => objection_if(
            basis.by_name,
            "a request names its host in a way that servers read differently",
        ),
        "start_unread" => objection_if(
            reads_names,
            "the connection's start was not read to its end: a host may have been named behind it",
        ),
        "reassembly_limit" => objection_if(
            reads_names,
            "the connection's start was not read: the reassembly memory was used up",
        ),
        "names_forgotten" => objection_if(
            basis.hosts_denied,
            "DNS may have called the address by names that are forgotten, and a rule denies hosts",
        ),
        "name_too_long" => objection_if(
            basis.by_name,
            "the client named a host with more bytes than names have",
        ),
        "truncated_start" => objection_if(
            basis.by_name,
            "too little was captured of the packets in which the client may have named a host",
        ),
        "metadata_address" => objection_if(
            !basis.by_single_address,
            "the address is that of a cloud's metadata service; to allow it, a rule must name it",
        ),
        "private_address" | "host_address" => objection_if(
            basis.by_name && basis.names_stay_outside,
            if word == "host_address" {
                "the address is the host's own; to allow it, a rule must give it as cidr"
            } else {
                "the address is private; to allow it, a rule must give it as cidr"
            },
        ),
        // Against the count of bytes.
        "fragmented" => objection_if(
            basis.by_name || basis.bounds_bytes,
            "fragments that make no whole packet, so that their connection is not known",
        ),
        "large_headers" => objection_if(
            basis.bounds_bytes,
            "packets carry bytes in their headers, which are in no count of payload",
        ),
        "oversized_handshake" => {
            Meaning::Objection("the TLS handshake is larger than handshakes are")
        }
        "excess_retransmission" => Meaning::Objection("far more was sent again than loss explains"),
        "trailing_bytes" => Meaning::Objection("packets carry bytes after the end that they state"),
        // Against all that was read.
        "inconsistent_reassembly" => {
            Meaning::Objection("overlapping TCP segments carried different bytes")
        }
        "tcp_urgent" => Meaning::Objection("urgent bytes in the start of the connection"),
        "syn_again" => {
            Meaning::Objection("payload after a second handshake that the server did not answer")
        }
        "truncated_header" => Meaning::Objection("packets with headers that are cut short"),
        "spoofed_source" => {
            Meaning::Objection("the sandbox used a source address that is not its own")
        }
        "dns_unaccepted_resolver" => {
            Meaning::Objection("the sandbox asked a resolver that is not accepted")
        }
        "spoofed_mac" => Meaning::Objection("the sandbox sent from a MAC that is not its first"),
        "next_hop_changed" => Meaning::Objection(
            "the sandbox sent to public addresses by more than one neighbour: whoever answers may \
             not be whose address it is",
        ),
        "overlapping_fragments" => Meaning::Objection("IP fragments overlapped"),
        "cert_name_mismatch" => objection_if(
            basis.by_name,
            "the server's certificate does not name the host that the client asked for",
        ),
        // Questions that nobody can read: a rule must name such a service.
        "dns_over_tls" | "dns_over_https" | "dns_over_quic" => objection_if(
            !basis.by_name && !basis.by_single_address,
            "it asks DNS questions that cannot be read; to allow it, a rule must name the host",
        ),
        "wireguard" => objection_if(
            !basis.by_name && !basis.by_single_address,
            "it is a WireGuard tunnel, in which nothing can be read; to allow it, a rule must name \
             the host",
        ),
        "dns_odd_port" => Meaning::Objection("DNS questions to a port that is not for them"),
        "dns_tunnelling" => Meaning::Objection("its DNS questions look like data on its way out"),
        "dns_malformed" => Meaning::Objection(
            "a message to the DNS port is more than a question, no DNS, or unread",
        ),
        // The answer's own dns_query record says it, with its name.
        "dns_unmatched_answer" => Meaning::Harmless,
        _ => Meaning::Unknown,
    }
}
