//! The arguments of `sandtrace witness`.

use super::address::Address;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum WitnessCommand {
    /// Cosign checkpoints over HTTP (C2SP tlog-witness)
    #[command(after_long_help = WITNESS_EXAMPLES)]
    Serve(WitnessServeArgs),
}

const WITNESS_EXAMPLES: &str = "\
Examples:
  Vouch for the trails of one host, whose key `sandtrace keys show` prints there:
    sandtrace witness serve --listen 0.0.0.0:7380 --state /var/lib/sandtrace-witness \\
        --host-key sandtrace/host-7+0a1b2c3d+AbC…
  Ask it from that host:
    sandtrace watch --sandbox-id vm-001 --witness http://witness.example:7380

Standard output gets the witness's verifier key. Run it where nobody who could change the trails
has access (docs/witness.md).";

#[derive(Debug, Args)]
pub(crate) struct WitnessServeArgs {
    /// Where to listen: ADDR:PORT or unix:///PATH
    #[arg(long, value_name = "WHERE", default_value = "127.0.0.1:7380")]
    pub(crate) listen: Address,
    /// Directory for what must never be forgotten; made if it is not there
    #[arg(long, value_name = "DIR")]
    pub(crate) state: PathBuf,
    /// File of the witness's key, made on first use [default: witness.key in the state directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Name of a new key [default: this host's name and /witness]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Verifier key of a host whose trails are vouched for, or a file of such keys; repeatable
    #[arg(long, value_name = "VKEY|FILE")]
    pub(crate) host_key: Vec<String>,
    /// Verifier key of another C2SP log, or a file of such keys; repeatable
    #[arg(long, value_name = "VKEY|FILE")]
    pub(crate) log: Vec<String>,
    /// Trust policy (C2SP tlog-policy) whose logs are vouched for
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Most logs that are taken on
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub(crate) max_logs: usize,
}
