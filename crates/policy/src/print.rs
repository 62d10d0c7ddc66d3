//! A manifest in its canonical text, which reads back as the same manifest.

use crate::manifest::{
    Access, Action, Body, Defaults, Files, Manifest, Network, Peer, Rule, Syscalls, Who, Word, word,
};
use std::fmt::{self, Formatter, Write as _};

impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "schema_version: \"1.0\"")?;
        if !self.resolvers.is_empty() {
            writeln!(f, "resolvers:")?;
            for resolver in &self.resolvers {
                writeln!(f, "  - {}", Quoted(&resolver.to_string()))?;
            }
        }
        // Without rules the defaults are all there is to say.
        if self.defaults != Defaults::default() || self.rules.is_empty() {
            print_defaults(self.defaults, f)?;
        }
        if !self.rules.is_empty() {
            writeln!(f, "rules:")?;
        }
        self.rules.iter().try_for_each(|rule| print_rule(rule, f))
    }
}

fn print_defaults(defaults: Defaults, f: &mut Formatter<'_>) -> fmt::Result {
    writeln!(f, "defaults:")?;
    writeln!(f, "  network: {}", word(defaults.network))?;
    writeln!(f, "  filesystem: {}", word(defaults.filesystem))?;
    if let Some(fallback) = defaults.syscall {
        writeln!(f, "  syscall: {}", word(fallback))?;
    }
    writeln!(
        f,
        "  min_name_evidence: {}",
        word(defaults.min_name_evidence)
    )?;
    writeln!(
        f,
        "  private_addresses: {}",
        word(defaults.private_addresses)
    )?;
    writeln!(f, "  ech: {}", word(defaults.ech))
}

fn print_rule(rule: &Rule, f: &mut Formatter<'_>) -> fmt::Result {
    writeln!(f, "  - id: {}", Quoted(&rule.id))?;
    writeln!(f, "    type: {}", word(rule.body.rule_type()))?;
    if rule.action != Action::default() {
        writeln!(f, "    action: {}", word(rule.action))?;
    }
    match &rule.body {
        Body::Egress(network) => print_network("destinations", network, f),
        Body::Ingress(network) => print_network("sources", network, f),
        Body::Files(files) => print_files(files, f),
        Body::Syscalls(syscalls) => print_syscalls(syscalls, f),
        Body::Dns(names) => {
            writeln!(f, "    names:")?;
            names
                .iter()
                .try_for_each(|name| writeln!(f, "      - {}", Quoted(&name.to_string())))
        }
    }
}

fn print_network(key: &str, network: &Network, f: &mut Formatter<'_>) -> fmt::Result {
    writeln!(f, "    {key}:")?;
    for peer in &network.peers {
        print_peer(peer, f)?;
    }
    print_number("max_bytes_per_call", network.max_bytes_per_call, f)?;
    print_number("max_bytes_total", network.max_bytes_total, f)?;
    print_number("max_connections", network.max_connections.map(u64::from), f)?;
    print_word("min_name_evidence", network.min_name_evidence, f)
}

fn print_peer(peer: &Peer, f: &mut Formatter<'_>) -> fmt::Result {
    match &peer.who {
        Who::Host(host) => writeln!(f, "      - host: {}", Quoted(&host.to_string()))?,
        Who::Range(range) => writeln!(f, "      - cidr: {}", Quoted(&range.to_string()))?,
    }
    if let Some(ports) = &peer.ports {
        let ranges = ports.ranges().iter().map(|&(from, to)| match from == to {
            true => from.to_string(),
            false => format!("\"{from}-{to}\""),
        });
        writeln!(
            f,
            "        port: [{}]",
            ranges.collect::<Vec<_>>().join(", ")
        )?;
    }
    match peer.protocol {
        Some(protocol) => writeln!(f, "        protocol: {}", word(protocol)),
        None => Ok(()),
    }
}

fn print_files(files: &Files, f: &mut Formatter<'_>) -> fmt::Result {
    writeln!(f, "    paths:")?;
    for path in &files.paths {
        writeln!(f, "      - {}", Quoted(path.as_str()))?;
    }
    let access = Some(files.access).filter(|access| *access != Access::default());
    print_word("access", access, f)?;
    print_number("max_file_bytes", files.max_file_bytes, f)
}

fn print_syscalls(syscalls: &Syscalls, f: &mut Formatter<'_>) -> fmt::Result {
    print_names("threads", &syscalls.threads, f)?;
    print_word("profile", syscalls.profile, f)?;
    print_names("allow", &syscalls.allow, f)?;
    print_names("deny", &syscalls.deny, f)?;
    let accept: Vec<_> = syscalls.accept.iter().map(|own| word(*own)).collect();
    print_names("accept", &accept, f)
}

/// A list of names that need no escape, if there is any.
fn print_names(key: &str, names: &[impl AsRef<str>], f: &mut Formatter<'_>) -> fmt::Result {
    if names.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = names
        .iter()
        .map(|name| format!("\"{}\"", name.as_ref()))
        .collect();
    writeln!(f, "    {key}: [{}]", names.join(", "))
}

fn print_number(key: &str, number: Option<u64>, f: &mut Formatter<'_>) -> fmt::Result {
    number.map_or(Ok(()), |number| writeln!(f, "    {key}: {number}"))
}

fn print_word<T: Word + PartialEq>(
    key: &str,
    value: Option<T>,
    f: &mut Formatter<'_>,
) -> fmt::Result {
    value.map_or(Ok(()), |value| writeln!(f, "    {key}: {}", word(value)))
}

/// A double-quoted scalar (YAML 1.2.2 §7.3.1).
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                    write!(f, "\\u{:04X}", u32::from(c))?;
                }
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use crate::Policy;
    use crate::testing::{SEED, policy};
    use proptest::prelude::*;

    fn host() -> impl Strategy<Value = String> {
        let label = prop_oneof![4 => "[a-z0-9_-]{1,6}", 1 => Just("*".to_owned()), 1 => Just("**".to_owned())];
        prop::collection::vec(label, 1..4).prop_map(|labels| format!("{:?}", labels.join(".")))
    }

    fn range() -> impl Strategy<Value = String> {
        prop_oneof![
            (0..=255_u8).prop_map(|octet| format!("{octet}.0.0.0/8")),
            any::<std::net::Ipv6Addr>().prop_map(|address| format!("\"{address}/128\"")),
            Just("0.0.0.0/0".to_owned()),
        ]
    }

    fn peer(host: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
        let who = prop_oneof![
            host.prop_map(|host| format!("host: {host}")),
            range().prop_map(|range| format!("cidr: {range}")),
        ];
        let ports = prop_oneof![
            Just(String::new()),
            (1..=u16::MAX).prop_map(|port| format!(", port: {port}")),
            (1..1000_u16, 1000..2000_u16)
                .prop_map(|(a, b)| format!(", port: [{a}, {a}-{b}], protocol: udp")),
        ];
        (who, ports).prop_map(|(who, ports)| format!("{{{who}{ports}}}"))
    }

    fn limit(key: &'static str, most: u64) -> impl Strategy<Value = String> {
        prop::option::of(1..=most)
            .prop_map(move |limit| limit.map_or(String::new(), |limit| format!(", {key}: {limit}")))
    }

    fn rule() -> impl Strategy<Value = String> {
        let list = |items: Vec<String>| items.join(", ");
        let peers = prop::collection::vec(peer(host()), 1..4)
            .prop_map(list)
            .boxed();
        let sources = prop::collection::vec(peer(Just("10.1.2.3".to_owned())), 1..4).prop_map(list);
        let path = "(/[a-z*é\" ]{1,5}){1,3}(/\\*\\*)?".prop_filter("`**` is a segment", |path| {
            path.split('/')
                .all(|segment| segment == "**" || !segment.contains("**"))
        });
        let paths =
            prop::collection::vec(path.prop_map(|path| format!("{path:?}")), 1..4).prop_map(list);
        let names = prop::collection::vec(host(), 1..3).prop_map(list);
        prop_oneof![
            (peers.clone(), limit("max_bytes_per_call", (1 << 53) - 1), limit("max_connections", 65_536)).prop_map(
                |(peers, bytes, connections)| format!(
                    "type: network_egress, destinations: [{peers}]{bytes}{connections}, min_name_evidence: dns"
                )
            ),
            peers.prop_map(|peers| format!("type: network_egress, action: deny, destinations: [{peers}]")),
            (sources, limit("max_bytes_total", 1 << 40))
                .prop_map(|(sources, bytes)| format!("type: network_ingress, sources: [{sources}]{bytes}")),
            (paths, limit("max_file_bytes", 1 << 40), prop::sample::select(vec!["read-only", "read-write", "full"]))
                .prop_map(|(paths, bytes, access)| format!(
                    "type: filesystem, paths: [{paths}], access: {access}{bytes}"
                )),
            names.prop_map(|names| format!("type: dns_query, names: [{names}]")),
            prop::collection::vec("[a-z_]{1,8}", 1..4).prop_map(|calls| format!(
                "type: syscall, threads: [vcpu], profile: qemu, accept: [no_seccomp], allow: [\"{}\"]",
                calls.join("\", \"")
            )),
        ]
    }

    fn manifest() -> impl Strategy<Value = String> {
        prop::collection::vec(rule(), 0..5).prop_map(|rules| {
            let mut text = "schema_version: \"1.0\"\nresolvers: [\"::1\"]\n\
                            defaults: {network: anomaly, private_addresses: by-address, ech: anomaly}\n"
                .to_owned();
            for (i, rule) in rules.iter().enumerate() {
                let head = if i == 0 { "rules:\n" } else { "" };
                text.push_str(&format!("{head}  - {{id: \"r{i}\", {rule}}}\n"));
            }
            text
        })
    }

    #[test]
    fn the_seed_prints_as_itself() {
        let policy = policy(SEED);
        let again = super::super::testing::policy(&policy.to_string());
        assert_eq!(policy, again);
        assert_eq!(policy.to_string(), again.to_string());
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back_as_the_same(text in manifest()) {
            match Policy::parse("generated", text.as_bytes()) {
                Ok(policy) => {
                    let printed = policy.to_string();
                    let again = Policy::parse("printed", printed.as_bytes());
                    prop_assert_eq!(again.as_ref(), Ok(&policy), "{}", printed);
                }
                // Rules may shadow each other by chance; nothing else is wrong.
                Err(errors) => {
                    let all = errors.as_slice();
                    prop_assert!(all.iter().all(|e| e.message.contains("never decide")), "{errors}\n{text}");
                }
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(schema_version|rules|id|type|paths|: |\"|- |\\{|\\}|\\[|\\]|,|\n|  |1.0|filesystem|/a|\\*){0,60}") {
            if let Err(errors) = Policy::parse("p", text.as_bytes()) {
                prop_assert!(!errors.as_slice().is_empty());
            }
        }
    }
}
