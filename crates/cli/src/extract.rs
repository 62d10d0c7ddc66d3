//! `sandtrace extract`: one conversation out of the evidence files of a watch.

use crate::args::ExtractArgs;
use crate::exit::{Exit, Failure, OrExit as _};
use crate::show;
use anyhow::Context as _;
use sandtrace_audit_chain::TrailReader;
use sandtrace_capture::network::{Extracted, PcapNgWriter, Wanted, extract};
use sandtrace_event::{Count, Digest, EvidenceFile, Flow, IngressFlow, Payload};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, BufWriter, Seek as _};
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
    let found = copy(&trail.files, flow, &directory, file);
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
        trail.files.len()
    ));
    Ok(Exit::Success)
}

/// What a trail says of conversations and evidence.
struct Trail {
    /// The last record of each.
    flows: BTreeMap<u64, Flow>,
    files: Vec<EvidenceFile>,
}

impl Trail {
    fn read(path: &Path) -> Result<Self, Failure> {
        let context = || format!("read trail {}", path.display());
        let file = File::open(path)
            .with_context(context)
            .or_exit(Exit::Malformed)?;
        let mut reader = TrailReader::new(file);
        let mut trail = Self {
            flows: BTreeMap::new(),
            files: Vec::new(),
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
                _ => {}
            }
        }
        Ok(trail)
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
    let interface = files.first().map_or("", |file| file.interface.as_str());
    let mut writer = PcapNgWriter::new(BufWriter::new(out), interface)
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

fn digest_of(source: &File) -> std::io::Result<Digest> {
    let mut reader = BufReader::with_capacity(BUFFER, source);
    let mut hasher = Sha256::new();
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok(Digest(hasher.finalize().into()));
        }
        hasher.update(bytes);
        let taken = bytes.len();
        reader.consume(taken);
    }
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
