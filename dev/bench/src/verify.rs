//! Verifying a long signed trail: records per second and memory, beside a
//! verifier that parses and writes again, and beside hashing the same bytes.

use crate::Options;
use crate::capture::require_success;
use crate::child::{Running, Took};
use crate::naive;
use crate::statistics::{median, spread};
use anyhow::{Context as _, Result, bail};
use sandtrace_audit_chain::note::{Algorithm, SigningKey};
use sandtrace_audit_chain::{TrailIdentity, TrailSigner, TrailWriter};
use sandtrace_event::{
    Cadence, ChangeSource, Count, Digest, EndReason, EvidenceTier, FileChange, FileKind, FileOp,
    Flow, FlowEnd, FlowPhase, HashScope, Judged, NameEvidence, NameSource, Observation, Payload,
    Protocol, QuiesceMethod, Timestamp, TlsFacts, TrailEnd, TrailStart, Verdict, VerdictResult,
    WallTime,
};
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Command, Stdio};

/// 2026-01-01T00:00:00Z
const BEGIN: WallTime = WallTime(1_767_225_600_000_000_000);

pub(crate) const ORIGIN: &str = "sandtrace/bench/trace-bench";

/// Writes the trail, then verifies it in turn by each program.
pub(crate) fn run(options: &Options) -> Result<()> {
    let directory = tempfile::tempdir().context("making a directory for the trail")?;
    let trail = directory.path().join("trace.jsonl");
    write(&trail, options.records)?;
    let bytes = fs::metadata(&trail).context("looking at the trail")?.len();
    println!(
        "verify: {} records, {:.0} MB, {} runs",
        options.records,
        to_f64(bytes) / 1e6,
        options.runs
    );
    let (mut naives, mut hashes, mut ours) = (Vec::new(), Vec::new(), Vec::new());
    let this = std::env::current_exe().context("finding this program")?;
    for _ in 0..options.runs {
        naives.push(time(Command::new(&this).arg(naive::COMMAND).arg(&trail))?);
        hashes.push(time(
            Command::new("openssl")
                .args(["dgst", "-sha256"])
                .arg(&trail),
        )?);
        ours.push(time(
            Command::new(&options.sandtrace).arg("verify").arg(&trail),
        )?);
    }
    println!("  program      records/s      MB/s    wall s     CPU s  peak MB");
    let row = |name: &str, all: &[Took]| {
        let wall = median(all.iter().map(|took| took.wall.as_secs_f64()));
        println!(
            "  {name:10} {:11.0} {:9.0} {wall:9.2} {:9.2} {:8.1}",
            to_f64(options.records) / wall,
            to_f64(bytes) / 1e6 / wall,
            median(all.iter().map(|took| took.cpu.as_secs_f64())),
            median(all.iter().map(|took| to_f64(took.peak_memory) / 1e6)),
        );
    };
    row("reparse", &naives);
    row("openssl", &hashes);
    row("sandtrace", &ours);
    let times = |others: &[Took]| -> Vec<f64> {
        let pairs = others.iter().zip(&ours);
        pairs
            .map(|(other, our)| other.wall.as_secs_f64() / our.wall.as_secs_f64())
            .collect()
    };
    println!("  speed, sandtrace / reparse: {}", spread(&times(&naives)));
    println!("  speed, sandtrace / openssl: {}", spread(&times(&hashes)));
    Ok(())
}

pub(crate) fn time(command: &mut Command) -> Result<Took> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let took = Running::start(command)?.finish()?;
    require_success(&took)?;
    Ok(took)
}

pub(crate) fn to_f64(count: u64) -> f64 {
    let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).map_or(0.0, f64::from);
    half(count >> 32) * f64::from(1 << 16) * f64::from(1 << 16) + half(count)
}

/// Writes a sealed trail of `records` records, connections and files in turn,
/// through the writer that `watch` uses.
pub(crate) fn write(path: &Path, records: u64) -> Result<()> {
    let Some(events) = records.checked_sub(2) else {
        bail!("--records must be at least 2");
    };
    let host = SigningKey::new("sandtrace/bench", Algorithm::Ed25519, &[1; 32])?;
    let signer = TrailSigner::new(ORIGIN, &host)?;
    let mut writer = TrailWriter::create_signed(path, identity(), signer)?;
    append(&mut writer, control(0, start().into()))?;
    for number in 1..=events {
        append(&mut writer, event(number))?;
    }
    writer.commit()?;
    let end = end(&writer);
    append(&mut writer, control(events + 1, end.into()))?;
    let at = moment(events + 1);
    writer.seal(at, at.mono_us).context("sealing the trail")?;
    Ok(())
}

/// When an event happens: 4,000 of them a second.
pub(crate) fn moment(number: u64) -> Timestamp {
    let start = Timestamp {
        mono_us: 60_000_000,
        wall: BEGIN,
    };
    start.plus_micros(number * 250)
}

pub(crate) fn identity() -> TrailIdentity {
    TrailIdentity {
        agent_id: "agent-bench".into(),
        sandbox_id: "bench".into(),
        trace_id: "trace-bench".into(),
        nonce: 1,
    }
}

/// Connections and files in turn.
pub(crate) fn event(number: u64) -> Judged {
    let payload = match number % 2 {
        0 => flow(number).into(),
        _ => file(number).into(),
    };
    Judged {
        verdict: Some(verdict()),
        ..control(number, payload)
    }
}

/// What nobody judges.
pub(crate) fn control(number: u64, payload: Payload) -> Judged {
    Judged {
        observation: Observation {
            at: moment(number),
            payload,
            tier: EvidenceTier::Hypervisor,
        },
        verdict: None,
    }
}

/// The last record that this writer is to append.
pub(crate) fn end(writer: &TrailWriter) -> TrailEnd {
    let counts = writer.counts();
    TrailEnd {
        events: counts.events(),
        reason: EndReason::SandboxEnded,
        reconciliation: Vec::new(),
        verdicts: counts.verdicts(),
    }
}

fn append(writer: &mut TrailWriter, judged: Judged) -> Result<()> {
    let at = judged.observation.at;
    writer.append(judged, at.mono_us)?;
    if writer.commit_due(at.mono_us) {
        writer.commit()?;
        writer.upkeep(at, at.mono_us)?;
    }
    Ok(())
}

pub(crate) fn start() -> TrailStart {
    TrailStart {
        cadence: Some(Cadence {
            heartbeat_s: Count(60),
            records: Count(1024),
            seconds: Count(10),
        }),
        key: None,
        previous: None,
        settings_digest: None,
        binary_digest: None,
        boot_id: None,
        capture: Vec::new(),
        needs_restart: Vec::new(),
        nonce: "0000000000000001".to_owned(),
        origin: ORIGIN.to_owned(),
        policy_digest: None,
        policy_path: None,
        resolvers: Vec::new(),
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn verdict() -> Verdict {
    Verdict {
        policy_rule: Some("tool:stripe_charge".to_owned()),
        reason: "api.stripe.com:443 is allowed".to_owned(),
        result: VerdictResult::Allow,
    }
}

/// A connection as `watch` records its end.
fn flow(number: u64) -> Flow {
    let peer = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10));
    let resolver = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 53));
    let name = "api.stripe.com".to_owned();
    let evidence = |source, resolver| NameEvidence {
        agrees: true,
        name: name.as_str().into(),
        observed_at: BEGIN,
        resolver,
        resolver_accepted: resolver.map(|_| true),
        discounted: false,
        source,
    };
    let sent = 500 + number % 3000;
    Flow {
        aggregate: None,
        bytes_received: Count(4096),
        bytes_sent: Count(sent),
        calls: Count(1),
        community_id: Some("1:LQU9qZlK+B5F3KDmev6m5PMibrg=".to_owned()),
        dst_host: name.clone(),
        dst_ip: Some(peer),
        dst_port: Some(443),
        duration_us: Count(20_000 + number % 1000),
        end_reason: Some(FlowEnd::Fin),
        ether_type: None,
        findings: Vec::new(),
        flow_id: Count(number),
        handshake_bytes: Count(320),
        history: None,
        http: None,
        icmp_type: None,
        interface: None,
        ip_protocol: None,
        max_call: Count(1),
        max_call_bytes: Count(sent - 320),
        missed_bytes_received: Count(0),
        missed_bytes_sent: Count(0),
        names: vec![
            evidence(NameSource::Dns, Some(resolver)),
            evidence(NameSource::TlsSni, None),
        ],
        packets_received: Count(9),
        packets_sent: Count(11),
        phase: FlowPhase::Close,
        protocol: Protocol::Tcp,
        src_ip: Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2))),
        src_port: u16::try_from(32_768 + number % 28_000).ok(),
        resent_bytes: Count(0),
        segments_received: None,
        segments_sent: None,
        started_at: BEGIN,
        state: Some("SF".into()),
        tls: Some(TlsFacts {
            alpn: vec!["http/1.1".to_owned()],
            certificate: None,
            ech: false,
            ja4: None,
            quic_version: None,
            sni: Some(name.clone()),
            version: None,
            version_offered: Some("1.3".to_owned()),
        }),
        tunnel: None,
        vlan: None,
        wire_bytes_received: Count(4690),
        wire_bytes_sent: Count(sent + 726),
    }
}

/// A file as `watch` records its change.
fn file(number: u64) -> FileChange {
    FileChange {
        gid_before: None,
        kind_before: None,
        mode_before: None,
        secrets: Vec::new(),
        uid_before: None,
        xattrs_changed: Vec::new(),
        disk: Some("/var/lib/sandboxes/bench/rootfs.ext4".to_owned()),
        gid: Some(1000),
        kind: FileKind::File,
        mode: Some(0o644),
        op: FileOp::Modified,
        path: format!("/home/agent/notes/{number}.md"),
        path_b64: None,
        quiesce_method: QuiesceMethod::Live,
        quiesced: false,
        renamed_from: None,
        renamed_from_b64: None,
        sha256: Some(Digest([0x5a; 32])),
        sha256_scope: Some(HashScope::Whole),
        size_after: Some(Count(number % 10_000)),
        size_before: Some(Count(120)),
        source: ChangeSource::Block,
        symlink_target: None,
        symlink_target_b64: None,
        uid: Some(1000),
        unreadable: None,
    }
}
