//! `sandtrace extract`: one conversation out of the evidence files of a watch.

use crate::args::ExtractArgs;
use crate::digest::digest_of;
use crate::exit::{Exit, Failure, OrExit as _};
use crate::show;
use anyhow::Context as _;
use sandtrace_audit_chain::TrailReader;
use sandtrace_audit_chain::segments::{self, SegmentReader};
use sandtrace_capture::network::{Extracted, PcapNgWriter, Wanted, extract};
use sandtrace_event::{Count, EvidenceFile, Flow, IngressFlow, Payload};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Seek as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};

/// Bytes read at once.
const BUFFER: usize = 256 * 1024;

pub(crate) fn run(args: &ExtractArgs) -> Result<Exit, Failure> {
    let trail = Trail::read(&args.trail)?;
    let flow = trail.carrier(args.flow)?;
    let directory = match &args.evidence {
        Some(directory) => directory.clone(),
        None => parent(&args.trail),
    };
    if trail.files.is_empty() {
        let message = format!(
            "{} names no evidence files: the watch ran without --evidence-pcap",
            args.trail.display()
        );
        return Err(Failure::new(Exit::Unavailable, message));
    }
    let out = args
        .output
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("flow-{}.pcapng", args.flow)));
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&out)
        .with_context(|| format!("create {}", out.display()))
        .or_exit(Exit::CannotCreate)?;
    let files = trail.files_of(flow);
    let found = copy(&files, flow, &directory, file);
    if found.is_err() {
        // An extract that is not whole is worse than none; the error tells why.
        let _half = std::fs::remove_file(&out);
    }
    let found = found?;
    let counted = flow.packets_sent.0.saturating_add(flow.packets_received.0);
    show::tell(&format!(
        "{}: {} of {} frames of flow {} with {}, from {} files whose digests are in the trail",
        out.display(),
        found.frames,
        counted,
        flow.flow_id,
        show::escaped(&flow.dst_host),
        files.len()
    ));
    Ok(Exit::Success)
}

/// What a trail says of conversations and evidence.
struct Trail {
    /// The last record of each.
    flows: BTreeMap<u64, Flow>,
    files: Vec<EvidenceFile>,
    /// The sandbox's interface before it had others.
    first_interface: Option<String>,
}

impl Trail {
    fn read(path: &Path) -> Result<Self, Failure> {
        let context = || format!("read trail {}", path.display());
        let segments = segments::existing(path)
            .and_then(|paths| SegmentReader::open(&paths))
            .with_context(context)
            .or_exit(Exit::Malformed)?;
        let mut reader = TrailReader::new(segments);
        let mut trail = Self {
            flows: BTreeMap::new(),
            files: Vec::new(),
            first_interface: None,
        };
        while let Some(line) = reader
            .next_line()
            .with_context(context)
            .or_exit(Exit::Malformed)?
        {
            let event = line
                .event()
                .with_context(context)
                .or_exit(Exit::Malformed)?;
            match event.payload {
                Payload::NetworkEgress(flow) | Payload::NetworkIngress(IngressFlow(flow)) => {
                    trail.flows.insert(flow.flow_id.0, flow);
                }
                Payload::EvidenceFile(file) => trail.files.push(file),
                Payload::SandboxAttached(attached) if trail.first_interface.is_none() => {
                    let first = attached.taps.into_iter().next();
                    trail.first_interface = first.map(|tap| tap.interface);
                }
                _ => {}
            }
        }
        Ok(trail)
    }

    /// The evidence files of the interface that a conversation is on. Records name
    /// it once there are several.
    fn files_of(&self, flow: &Flow) -> Vec<EvidenceFile> {
        let interface = flow.interface.as_ref().or(self.first_interface.as_ref());
        let files = self.files.iter();
        let on = |file: &&EvidenceFile| match (interface, &file.interface) {
            (Some(wanted), Some(of)) => wanted == of,
            _ => true,
        };
        files.filter(on).cloned().collect()
    }

    /// The conversation on the interface: what is inside of a tunnel is in the
    /// frames of the one that carries it.
    fn carrier(&self, number: u64) -> Result<&Flow, Failure> {
        let missing = |number: u64| {
            let message = match self.flows.last_key_value() {
                Some((last, _)) => format!("no flow {number} in the trail; they go up to {last}"),
                None => format!("no flow {number} in the trail, which has none"),
            };
            Failure::new(Exit::Unavailable, message)
        };
        let mut flow = self.flows.get(&number).ok_or_else(|| missing(number))?;
        while let Some(Count(outer)) = flow.tunnel.as_ref().and_then(|it| it.outer_flow_id) {
            // A carrier is older than what it carries.
            if outer >= flow.flow_id.0 {
                return Err(missing(outer));
            }
            flow = self.flows.get(&outer).ok_or_else(|| missing(outer))?;
        }
        if let Some(aggregate) = &flow.aggregate {
            let message = format!(
                "flow {number} stands for {} conversations, which are not told apart",
                aggregate.flows
            );
            return Err(Failure::new(Exit::Unavailable, message));
        }
        Ok(flow)
    }
}

fn copy(
    files: &[EvidenceFile],
    flow: &Flow,
    directory: &Path,
    out: File,
) -> Result<Extracted, Failure> {
    let wanted = Wanted::of(flow);
    let interface = files.first().and_then(|file| file.interface.as_deref());
    let mut writer = PcapNgWriter::new(BufWriter::new(out), interface.unwrap_or_default())
        .context("write the extract")
        .or_exit(Exit::Io)?;
    let mut sum = Extracted::default();
    for file in files {
        let source = vouched(file, directory)?;
        let found = extract(
            BufReader::with_capacity(BUFFER, source),
            &wanted,
            &mut writer,
        )
        .with_context(|| format!("evidence file {}", file.file))
        .or_exit(Exit::Malformed)?;
        sum.frames += found.frames;
        sum.of += found.of;
    }
    let last = files.last().map_or(0, |file| file.last_at.0);
    writer
        .finish(last, 0)
        .context("write the extract")
        .or_exit(Exit::Io)?;
    Ok(sum)
}

/// The file, if it is the one that the trail speaks of.
fn vouched(file: &EvidenceFile, directory: &Path) -> Result<File, Failure> {
    let name = Path::new(&file.file);
    let is_plain = matches!(
        name.components().collect::<Vec<_>>()[..],
        [Component::Normal(_)]
    );
    if !is_plain {
        let name = show::escaped(&file.file);
        let message = format!("evidence file {name}: a name with a directory in it");
        return Err(Failure::new(Exit::Malformed, message));
    }
    let path = directory.join(name);
    let context = || format!("read evidence file {}", path.display());
    let mut source = File::open(&path)
        .with_context(context)
        .or_exit(Exit::Malformed)?;
    let digest = digest_of(&source)
        .with_context(context)
        .or_exit(Exit::Malformed)?;
    if digest != file.sha256 {
        let message = format!(
            "evidence file {} was changed: its digest is {digest}, the trail says {}",
            path.display(),
            file.sha256
        );
        return Err(Failure::new(Exit::Tampered, message));
    }
    source
        .rewind()
        .with_context(context)
        .or_exit(Exit::Malformed)?;
    Ok(source)
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn flow(interface: Option<&str>) -> Flow {
        let counts = [
            "bytes_received",
            "bytes_sent",
            "calls",
            "duration_us",
            "flow_id",
            "handshake_bytes",
            "max_call",
            "max_call_bytes",
            "missed_bytes_received",
            "missed_bytes_sent",
            "packets_received",
            "packets_sent",
            "resent_bytes",
            "wire_bytes_received",
            "wire_bytes_sent",
        ];
        let mut flow = json!({
            "dst_host": "link", "phase": "close", "protocol": "arp",
            "started_at": "2025-03-25T12:00:00.000000000Z",
        });
        for count in counts {
            flow[count] = json!(1);
        }
        if let Some(interface) = interface {
            flow["interface"] = json!(interface);
        }
        serde_json::from_value(flow).unwrap()
    }

    #[test]
    fn files_of_another_interface_are_left_alone() {
        let at = "2025-03-25T12:00:00.000000000Z";
        let file = |interface: &str| {
            let file = json!({
                "bytes": 1, "file": format!("box-{interface}-000001.pcapng"), "first_at": at,
                "frames": 1, "interface": interface, "last_at": at,
                "sha256": format!("sha256:{}", "0".repeat(64)),
            });
            serde_json::from_value::<EvidenceFile>(file).unwrap()
        };
        let mut trail = Trail {
            flows: BTreeMap::new(),
            files: vec![file("tap0"), file("tap1")],
            first_interface: Some("tap0".to_owned()),
        };
        let of = |trail: &Trail, interface| -> Vec<String> {
            let files = trail.files_of(&flow(interface)).into_iter();
            files.filter_map(|file| file.interface).collect()
        };
        assert_eq!(of(&trail, Some("tap1")), ["tap1"]);
        assert_eq!(of(&trail, None), ["tap0"], "from before there were several");
        trail.first_interface = None;
        assert_eq!(of(&trail, None), ["tap0", "tap1"]);
    }
}
