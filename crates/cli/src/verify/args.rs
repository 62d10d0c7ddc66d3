//! The arguments of `sandtrace verify`.

use clap::Args;
use std::net::IpAddr;
use std::path::PathBuf;

pub(crate) const EXAMPLES: &str = "\
Examples:
  With the host's public key, which `sandtrace keys show` prints on that host:
    sandtrace verify trace.jsonl --key sandtrace/host-7+1a2b3c4d+AW1…
  Every trail of a directory, a line each:
    sandtrace verify /var/lib/sandtrace --key host-7.vkey
  A trail that is still written:
    sandtrace verify trace.jsonl --key host-7.vkey --live
  A trail that was seen with 42118 records, and that witnesses have cosigned:
    sandtrace verify trace.jsonl --key host-7.vkey --min-size 42118 --witness-policy witnesses.txt
  Judge every event again, and list what breaks the policy:
    sandtrace verify trace.jsonl --against policy.yaml
  A trail that was never signed:
    sandtrace verify trace.jsonl --level 0

Exit codes: 0 valid, 1 tampered, 2 incomplete, 3 untrusted, 4 malformed or unreadable, 5 intact but
the policy is violated, 64 usage (docs/exit-codes.md).";

#[derive(Debug, Default, Args)]
pub(crate) struct VerifyArgs {
    /// Trail to verify (its first file, where it has several); a directory of trails; - reads
    /// standard input
    pub(crate) trail: PathBuf,
    /// Public key of a host that is trusted, or a file with such keys, one a line; repeatable
    #[arg(long, value_name = "VKEY|FILE")]
    pub(crate) key: Vec<String>,
    /// Fewest records that the trail must have, because it was seen with so many
    #[arg(long, value_name = "N")]
    pub(crate) min_size: Option<u64>,
    /// Witnesses whose cosignatures must be on the last checkpoint (C2SP tlog-policy)
    #[arg(long, value_name = "FILE")]
    pub(crate) witness_policy: Option<PathBuf>,
    /// Level of trust that the trail must reach: 0 chain, 1 signed, 2 sealed, 3 witnessed
    /// [default: 2; 1 with --live; 3 with --witness-policy]
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u8).range(0..=3))]
    pub(crate) level: Option<u8>,
    /// The trail may still be written: a missing end is no fault
    #[arg(long)]
    pub(crate) live: bool,
    /// Judge every event again by this policy
    #[arg(long, value_name = "FILE")]
    pub(crate) against: Option<PathBuf>,
    /// Resolver to accept, beside those in the policy and those that the trail names
    #[arg(long, value_name = "IP", requires = "against")]
    pub(crate) resolver: Vec<IpAddr>,
    /// The file holds proofs of single records, as `prove` and `export --proofs` make them
    #[arg(long)]
    pub(crate) proof: bool,
    /// Print the answer as JSON, one object per trail (docs/schema/verify.schema.json)
    #[arg(long)]
    pub(crate) json: bool,
}
