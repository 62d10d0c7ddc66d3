//! `sandtrace extract`: one conversation out of the evidence files of a watch.

use crate::args::ExtractArgs;
use crate::digest::digest_of;
use crate::exit::{Exit, Failure, OrExit as _};
use crate::show;
use anyhow::Context as _;
use sandtrace_audit_chain::TrailReader;
use sandtrace_audit_chain::segments::{self, SegmentReader};
use sandtrace_capture::network::{PcapNgWriter, Search, Selection};
use sandtrace_event::{Count, EvidenceFile, Flow, FlowPhase, IngressFlow, Payload};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Seek as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};

/// Bytes read at once.
const BUFFER: usize = 256 * 1024;

pub(crate) fn run(args: &ExtractArgs) -> Result<Exit, Failure> {
    let trail = Trail::read(&args.trail)?;
    let session = trail.session_of(args.flow, args.session)?;
    let flow = trail.carrier(args.flow, session)?;
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
    let files = trail.files_of(flow, session);
    let found = select(&files, flow, &directory)
        .and_then(|selection| copy(&files, selection, &directory, file));
    if found.is_err() {
        // An extract that is not whole is worse than none; the error tells why.
        let _half = std::fs::remove_file(&out);
    }
    let found = found?;
    let counted = flow.packets_sent.0.saturating_add(flow.packets_received.0);
    show::tell(&format!(
        "{}: {found} of {counted} frames of flow {} with {}, from {} files whose digests are in \
         the trail",
        out.display(),
        flow.flow_id,
        show::escaped(&flow.dst_host),
        files.len()
    ));
    Ok(judged(flow, found, counted))
}

/// Whether the frames that were found are those that its record counted. Only the
/// last record of a conversation has all of them.
fn judged(flow: &Flow, found: u64, counted: u64) -> Exit {
    let goes_on = flow.phase != FlowPhase::Close;
    if found == counted || (goes_on && found > counted) {
        return Exit::Success;
    }
    show::tell(&format!(
        "sandtrace: the extract is not what was counted: {found} frames were found, flow {} has \
         {counted}",
        flow.flow_id
    ));
    Exit::Incomplete
}

/// What a trail says of conversations and evidence.
#[derive(Default)]
struct Trail {
    /// The last record of each, by its number and the session that counted it: each
    /// session numbers its conversations from 1.
    flows: BTreeMap<(u64, u32), Flow>,
    /// With the sessions that wrote them.
    files: Vec<(u32, EvidenceFile)>,
    /// The sandbox's interface before it had others.
    first_interface: Option<String>,
    /// The last session.
    session: u32,
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
            session: 1,
            ..Self::default()
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
            trail.take(event.payload);
        }
        Ok(trail)
    }

    fn take(&mut self, payload: Payload) {
        match payload {
            Payload::NetworkEgress(flow) | Payload::NetworkIngress(IngressFlow(flow)) => {
                self.flows.insert((flow.flow_id.0, self.session), flow);
            }
            Payload::EvidenceFile(file) => self.files.push((self.session, file)),
            Payload::SandboxAttached(attached) if self.first_interface.is_none() => {
                let first = attached.taps.into_iter().next();
                self.first_interface = first.map(|tap| tap.interface);
            }
            Payload::SessionStart(_) => self.session += 1,
            _ => {}
        }
    }

    /// The session whose conversation is meant: the newest that has one of this
    /// number, if the user does not say.
    fn session_of(&self, number: u64, chosen: Option<u32>) -> Result<u32, Failure> {
        let of = self.flows.range((number, 0)..=(number, u32::MAX));
        let sessions: Vec<_> = of.map(|((_, session), _)| *session).collect();
        if let Some(chosen) = chosen {
            if sessions.contains(&chosen) {
                return Ok(chosen);
            }
            let message = format!(
                "no flow {number} in session {chosen}; sessions that have one: {sessions:?}"
            );
            return Err(Failure::new(Exit::Unavailable, message));
        }
        let Some(newest) = sessions.last() else {
            return Err(self.missing(number));
        };
        if sessions.len() > 1 {
            show::tell(&format!(
                "sandtrace: sessions {sessions:?} of the trail each have a flow {number}; taken \
                 is that of session {newest}, --session chooses another"
            ));
        }
        Ok(*newest)
    }

    fn missing(&self, number: u64) -> Failure {
        let message = match self.flows.last_key_value() {
            Some(((last, _), _)) => {
                format!("no flow {number} in the trail; they go up to {last}")
            }
            None => format!("no flow {number} in the trail, which has none"),
        };
        Failure::new(Exit::Unavailable, message)
    }

    /// The evidence files of the interface that a conversation is on, of its session.
    /// Records name the interface once there are several.
    fn files_of(&self, flow: &Flow, session: u32) -> Vec<EvidenceFile> {
        let interface = flow.interface.as_ref().or(self.first_interface.as_ref());
        let files = self.files.iter().filter(|(of, _)| *of == session);
        let on = |file: &&EvidenceFile| match (interface, &file.interface) {
            (Some(wanted), Some(of)) => wanted == of,
            _ => true,
        };
        files.map(|(_, file)| file).filter(on).cloned().collect()
    }

    /// The conversation on the interface: what is inside of a tunnel is in the
    /// frames of the one that carries it.
    fn carrier(&self, number: u64, session: u32) -> Result<&Flow, Failure> {
        let find = |number: u64| {
            let flow = self.flows.get(&(number, session));
            flow.ok_or_else(|| self.missing(number))
        };
        let mut flow = find(number)?;
        while let Some(Count(outer)) = flow.tunnel.as_ref().and_then(|it| it.outer_flow_id) {
            // A carrier is older than what it carries.
            if outer >= flow.flow_id.0 {
                return Err(self.missing(outer));
            }
            flow = find(outer)?;
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

/// Which frames of these files are the conversation's.
fn select(
    files: &[EvidenceFile],
    flow: &Flow,
    directory: &Path,
) -> Result<Option<Selection>, Failure> {
    for lacks_first in [false, true] {
        let mut search = Search::new(flow, lacks_first);
        for file in files {
            let source = BufReader::with_capacity(BUFFER, vouched(file, directory)?);
            search
                .look(source)
                .with_context(|| format!("evidence file {}", file.file))
                .or_exit(Exit::Malformed)?;
        }
        if let Some(found) = search.end() {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn copy(
    files: &[EvidenceFile],
    selection: Option<Selection>,
    directory: &Path,
    out: File,
) -> Result<u64, Failure> {
    let interface = files.first().and_then(|file| file.interface.as_deref());
    let mut writer = PcapNgWriter::new(BufWriter::new(out), interface.unwrap_or_default())
        .context("write the extract")
        .or_exit(Exit::Io)?;
    let mut copied = 0;
    if let Some(mut selection) = selection {
        for file in files {
            let source = BufReader::with_capacity(BUFFER, vouched(file, directory)?);
            copied += selection
                .copy(source, &mut writer)
                .with_context(|| format!("evidence file {}", file.file))
                .or_exit(Exit::Malformed)?;
        }
    }
    let last = files.last().map_or(0, |file| file.last_at.0);
    writer
        .finish(last, 0)
        .context("write the extract")
        .or_exit(Exit::Io)?;
    Ok(copied)
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
            files: vec![(1, file("tap0")), (1, file("tap1")), (2, file("tap1"))],
            first_interface: Some("tap0".to_owned()),
            ..Trail::default()
        };
        let of = |trail: &Trail, interface| -> Vec<String> {
            let files = trail.files_of(&flow(interface), 1).into_iter();
            files.filter_map(|file| file.interface).collect()
        };
        assert_eq!(of(&trail, Some("tap1")), ["tap1"]);
        assert_eq!(of(&trail, None), ["tap0"], "from before there were several");
        trail.first_interface = None;
        assert_eq!(of(&trail, None), ["tap0", "tap1"]);
    }

    #[test]
    fn each_session_numbers_its_conversations() {
        let mut trail = Trail::default();
        for session in [1, 2] {
            trail.flows.insert((1, session), flow(None));
        }
        trail.flows.insert((2, 1), flow(None));
        assert_eq!(trail.session_of(1, None).unwrap(), 2, "the newest");
        assert_eq!(trail.session_of(1, Some(1)).unwrap(), 1);
        assert_eq!(trail.session_of(2, None).unwrap(), 1);
        assert!(trail.session_of(2, Some(2)).is_err());
        assert!(trail.session_of(3, None).is_err());
    }

    #[test]
    fn only_the_last_record_counts_all_frames() {
        let mut last = flow(None);
        assert_eq!(judged(&last, 2, 2), Exit::Success);
        for found in [1, 3] {
            assert_eq!(judged(&last, found, 2), Exit::Incomplete);
        }
        last.phase = FlowPhase::Update;
        assert_eq!(judged(&last, 3, 2), Exit::Success);
        assert_eq!(judged(&last, 1, 2), Exit::Incomplete);
    }
}
