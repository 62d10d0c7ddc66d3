//! `sandtrace prove`, `sandtrace export` and `sandtrace verify --proof`: some
//! records of a trail, for somebody who does not get the rest.

use crate::exit::{Exit, Failure, OrExit as _};
use crate::show::{escaped, grouped, tell};
use anyhow::Context as _;
use clap::Args;
use sandtrace_audit_chain::TrailReader;
use sandtrace_audit_chain::note::VerifierKey;
use sandtrace_audit_chain::proof::make::{Chosen, MakeError};
use sandtrace_audit_chain::proof::{Proof, ProofFault, Shown, Texts};
use sandtrace_audit_chain::segments::{self, SegmentReader};
use sandtrace_audit_chain::witness::WitnessPolicy;
use sandtrace_event::{AuditEvent, EventType, EvidenceTier, VerdictResult};
use sandtrace_output::Filter;
use sandtrace_output::terminal::ascii_json;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

pub(crate) const PROVE_EXAMPLES: &str = "\
Examples:
  sandtrace prove trace.jsonl --seq 4711 -o record.tlog-proof
  sandtrace verify --proof record.tlog-proof --key sandtrace/host-7+1a2b3c4d+AW1…";

pub(crate) const EXPORT_EXAMPLES: &str = "\
Examples:
  What was denied, each record with its proof, for an auditor who has the host's key:
    sandtrace export trace.jsonl --filter-verdict deny --proofs -o denied.tlog-proof
    sandtrace verify --proof denied.tlog-proof --key host-7.vkey
  The records alone, as lines:
    sandtrace export trace.jsonl --filter-type dns_query -o names.jsonl

A proof shows that a record is in the trail. It does not show that no other record fits the filter.";

#[derive(Debug, Args)]
pub(crate) struct ProveArgs {
    /// Trail (its first file, where it has several)
    trail: PathBuf,
    /// Number of the record
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seq: u64,
    /// Where the proof goes; - is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Trail (its first file, where it has several)
    trail: PathBuf,
    /// Only these event types
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    filter_type: Vec<EventType>,
    /// Only these evidence tiers
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    filter_tier: Vec<EvidenceTier>,
    /// Only these verdicts
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    filter_verdict: Vec<VerdictResult>,
    /// Each record with its proof, instead of the records alone
    #[arg(long)]
    proofs: bool,
    /// Where it goes; - is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
}

pub(crate) fn prove(args: &ProveArgs) -> Result<Exit, Failure> {
    let files = files(&args.trail)?;
    let chosen = Chosen::read(&files, |seq, _| Ok(seq == args.seq))?;
    if chosen.is_empty() {
        let records = grouped(chosen.records);
        let why = format!("there is no record {}: the trail has {records}", args.seq);
        return Err(Failure::new(Exit::Incomplete, why));
    }
    write_proofs(&chosen, &files, &args.output)
}

pub(crate) fn export(args: &ExportArgs) -> Result<Exit, Failure> {
    let files = files(&args.trail)?;
    let filter = Filter {
        types: args.filter_type.clone(),
        tiers: args.filter_tier.clone(),
        verdicts: args.filter_verdict.clone(),
    };
    if !args.proofs {
        return export_lines(&files, |event| filter.admits(event), &args.output);
    }
    let wanted = |_, line: &sandtrace_audit_chain::Line<'_>| Ok(filter.admits(&line.event()?));
    let chosen = Chosen::read(&files, wanted)?;
    let exit = write_proofs(&chosen, &files, &args.output)?;
    let count = u64::try_from(chosen.len()).unwrap_or(u64::MAX);
    let (count, records) = (grouped(count), grouped(chosen.records));
    tell(&format!(
        "{count} of {records} records, each with its proof"
    ));
    Ok(exit)
}

fn export_lines(
    files: &[PathBuf],
    wanted: impl Fn(&AuditEvent) -> bool,
    output: &Path,
) -> Result<Exit, Failure> {
    let input = SegmentReader::open(files).or_exit(Exit::Malformed)?;
    let mut lines = TrailReader::new(input);
    let mut out = create(output)?;
    let (mut count, mut records) = (0, 0);
    while let Some(line) = lines.next_line().or_exit(Exit::Malformed)? {
        records += 1;
        if wanted(&line.event().or_exit(Exit::Malformed)?) {
            count += 1;
            let written = out
                .write_all(line.bytes)
                .and_then(|()| out.write_all(b"\n"));
            written.or_exit(Exit::Io)?;
        }
    }
    out.flush().or_exit(Exit::Io)?;
    let (count, records) = (grouped(count), grouped(records));
    tell(&format!(
        "{count} of {records} records; --proofs proves that they are in the trail"
    ));
    Ok(Exit::Success)
}

fn write_proofs(chosen: &Chosen, files: &[PathBuf], output: &Path) -> Result<Exit, Failure> {
    let mut out = create(output)?;
    let give = |proof: Proof| -> Result<(), Failure> {
        let text = proof.to_text().or_exit(Exit::Internal)?;
        out.write_all(text.as_bytes()).or_exit(Exit::Io)
    };
    chosen.prove(files, give)?;
    out.flush().or_exit(Exit::Io)?;
    Ok(Exit::Success)
}

/// `-`, or a file that is not there yet.
fn create(output: &Path) -> Result<Box<dyn Write>, Failure> {
    if output == Path::new("-") {
        return Ok(Box::new(BufWriter::new(io::stdout().lock())));
    }
    let opened = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(output);
    let file = opened
        .with_context(|| format!("create {}", output.display()))
        .or_exit(Exit::CannotCreate)?;
    Ok(Box::new(BufWriter::new(file)))
}

fn files(trail: &Path) -> Result<Vec<PathBuf>, Failure> {
    segments::existing(trail)
        .with_context(|| format!("open trail {}", trail.display()))
        .or_exit(Exit::Malformed)
}

impl From<MakeError> for Failure {
    fn from(error: MakeError) -> Self {
        let exit = match &error {
            MakeError::Unsigned => Exit::Untrusted,
            MakeError::NotCovered { .. } => Exit::Incomplete,
            MakeError::Root => Exit::Tampered,
            MakeError::TooMany => Exit::Usage,
            MakeError::Io(_)
            | MakeError::Read(_)
            | MakeError::Malformed(_)
            | MakeError::Note(_) => Exit::Malformed,
        };
        Self {
            exit,
            error: error.into(),
        }
    }
}

/// What is known from elsewhere.
pub(crate) struct Trust<'a> {
    pub(crate) hosts: &'a [VerifierKey],
    pub(crate) policy: Option<&'a WitnessPolicy>,
}

/// Checks every proof of a file.
pub(crate) fn verify(path: &Path, trust: &Trust<'_>, as_json: bool) -> Result<Exit, Failure> {
    let context = || format!("read proofs from {}", path.display());
    let file = File::open(path)
        .with_context(context)
        .or_exit(Exit::Malformed)?;
    let mut texts = Texts::new(BufReader::new(file));
    let mut found = Found::default();
    loop {
        let text = texts
            .next_text()
            .with_context(context)
            .or_exit(Exit::Malformed)?;
        let Some(text) = text else { break };
        found.proofs += 1;
        let checked = Proof::parse(&text).and_then(|proof| {
            let shown = proof.check(trust.hosts, trust.policy)?;
            Ok((proof, shown))
        });
        match checked {
            Ok((proof, shown)) => found.add(&proof, shown),
            Err(fault) => {
                found.fault = Some(fault);
                break;
            }
        }
    }
    let exit = found.exit();
    let printed = if as_json {
        writeln!(
            io::stdout().lock(),
            "{}",
            ascii_json(&found.json(exit, trust).to_string())
        )
    } else {
        found.print(trust)
    };
    match printed {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(exit),
        printed => printed.map(|()| exit).or_exit(Exit::Io),
    }
}

/// What a file of proofs shows.
#[derive(Default)]
struct Found {
    proofs: u64,
    /// By trail, size of the checkpoint and host: the records.
    shown: BTreeMap<(String, u64, String), BTreeSet<u64>>,
    witnesses: BTreeSet<String>,
    records: Vec<String>,
    fault: Option<ProofFault>,
}

impl Found {
    fn add(&mut self, proof: &Proof, shown: Shown) {
        let host = shown.host.name().to_owned();
        let trail = (shown.origin, shown.size, host);
        self.witnesses.extend(shown.witnesses);
        if self.shown.entry(trail).or_default().insert(shown.seq) {
            self.records.push(proof.extra.record.clone());
        }
    }

    fn exit(&self) -> Exit {
        match &self.fault {
            Some(ProofFault::Tampered(_)) => Exit::Tampered,
            Some(ProofFault::Untrusted(_)) => Exit::Untrusted,
            Some(ProofFault::Malformed(_)) => Exit::Malformed,
            // Nothing at all proves nothing.
            None if self.proofs == 0 => Exit::Malformed,
            None => Exit::Success,
        }
    }

    fn print(&self, trust: &Trust<'_>) -> io::Result<()> {
        let mut out = anstream::stdout().lock();
        match &self.fault {
            Some(fault) => {
                let word = match fault {
                    ProofFault::Tampered(_) => "TAMPERED",
                    ProofFault::Untrusted(_) => "UNTRUSTED",
                    ProofFault::Malformed(_) => "MALFORMED",
                };
                let number = grouped(self.proofs);
                return writeln!(
                    out,
                    "{word} proof {number}: {}",
                    escaped(&fault.to_string())
                );
            }
            None if self.proofs == 0 => return writeln!(out, "EMPTY: there is no proof in it"),
            None => {}
        }
        for ((origin, size, host), records) in &self.shown {
            let count = grouped(u64::try_from(records.len()).unwrap_or(u64::MAX));
            let pinned = if trust.hosts.is_empty() {
                "key not pinned"
            } else {
                "pinned"
            };
            writeln!(
                out,
                "VALID proof · {count} of {} records shown, all of them in the trail {} signed by \
                 {} ({pinned})",
                grouped(*size),
                escaped(origin),
                escaped(host)
            )?;
        }
        for witness in &self.witnesses {
            writeln!(out, "  cosigned by {}", escaped(witness))?;
        }
        for record in &self.records {
            writeln!(out, "{}", ascii_json(record))?;
        }
        Ok(())
    }

    fn json(&self, exit: Exit, trust: &Trust<'_>) -> Value {
        let trails = self.shown.iter().map(|((origin, size, host), records)| {
            json!({"origin": origin, "size": size, "host": host, "records": records})
        });
        let records = self.records.iter();
        let records =
            records.map(|record| serde_json::from_str::<Value>(record).unwrap_or_default());
        json!({
            "exit_code": exit.code(),
            "fault": self.fault.as_ref().map(ToString::to_string),
            "pinned": !trust.hosts.is_empty(),
            "proofs": self.proofs,
            "records": records.collect::<Vec<_>>(),
            "trails": trails.collect::<Vec<_>>(),
            "witnesses": self.witnesses,
        })
    }
}
