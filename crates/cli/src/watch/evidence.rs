//! Where frames are kept as they were.

use crate::config::EvidencePlace;
use crate::exit::{Exit, Failure, OrExit as _};
use anyhow::Context as _;
use sandtrace_audit_chain::TrailIdentity;
use sandtrace_capture::network::EvidenceConfig;
use sandtrace_event::{CaptureGap, Count, GapCause, GapUnit, Layer, Timestamp};
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::Path;

/// A directory for the frames of every sandbox that is watched.
pub(crate) struct Keeping(EvidencePlace);

impl Keeping {
    /// Makes the directory where it is not there yet.
    pub(crate) fn make(place: &EvidencePlace) -> Result<Self, Failure> {
        let directory = &place.directory;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .with_context(|| format!("create directory {} for evidence", directory.display()))
            .or_exit(Exit::CannotCreate)?;
        Ok(Self(place.clone()))
    }

    /// The files of one trail.
    pub(crate) fn of(&self, identity: &TrailIdentity) -> EvidenceConfig {
        EvidenceConfig {
            directory: self.0.directory.clone(),
            prefix: format!("{}-{:016x}", identity.sandbox_id, identity.nonce),
            max_bytes: self.0.max_bytes,
        }
    }
}

/// Names that one record has room for.
const MOST_NAMES: usize = 8;

/// The evidence files of this sandbox that no earlier session closed, because its
/// process was killed: no record vouches for them.
pub(super) fn left_open(
    config: &EvidenceConfig,
    sandbox: &str,
    at: Timestamp,
) -> Option<CaptureGap> {
    let names = std::fs::read_dir(&config.directory).ok()?;
    let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut open: Vec<_> = names
        .filter(|name| is_of(name, sandbox) && !name.starts_with(&config.prefix))
        // One that cannot be read is told as well.
        .filter(|name| !is_closed(&config.directory.join(name)).unwrap_or(false))
        .collect();
    open.sort_unstable();
    let count = u64::try_from(open.len()).ok().filter(|count| *count > 0)?;
    let more = open.len() > MOST_NAMES;
    open.truncate(MOST_NAMES);
    Some(CaptureGap {
        cause: GapCause::EvidenceFailed,
        count: Count(count),
        detail: format!(
            "earlier sessions did not close these evidence files, so no record vouches for \
             them: {}{}",
            open.join(", "),
            if more { ", …" } else { "" }
        ),
        first_at: at.wall,
        last_at: at.wall,
        layer: Layer::Network,
        source: config.directory.display().to_string(),
        unit: GapUnit::Files,
    })
}

/// Whether a watch of this sandbox gave a file this name.
fn is_of(name: &str, sandbox: &str) -> bool {
    let rest = name.strip_prefix(sandbox);
    let rest = rest.and_then(|rest| rest.strip_prefix('-')?.strip_suffix(".pcapng"));
    let nonce = rest.and_then(|rest| rest.split('-').next());
    nonce.is_some_and(|nonce| nonce.len() == 16 && nonce.bytes().all(|it| it.is_ascii_hexdigit()))
}

/// Whether a file ends with the statistics that a watch closes it with.
fn is_closed(path: &Path) -> io::Result<bool> {
    const INTERFACE_STATISTICS: u32 = 5;
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let number = |at: Option<u64>| {
        let mut bytes = [0; 4];
        let at = at.ok_or(io::ErrorKind::UnexpectedEof)?;
        file.read_exact_at(&mut bytes, at)?;
        io::Result::Ok(u32::from_le_bytes(bytes))
    };
    // A block's length stands at its end too.
    let last = number(len.checked_sub(4))?;
    Ok(number(len.checked_sub(u64::from(last)))? == INTERFACE_STATISTICS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandtrace_capture::network::PcapNgWriter;
    use sandtrace_event::WallTime;

    #[test]
    fn files_that_nobody_closed_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let whole = |name: &str| {
            let file = File::create(path(name)).unwrap();
            PcapNgWriter::new(file, "tap0").unwrap()
        };
        let _closed = whole("box-00000000000000aa-tap0-000001.pcapng").finish(1, 0);
        let _torn = whole("box-00000000000000aa-tap0-000002.pcapng");
        std::fs::write(path("box-00000000000000bb-tap0-000001.pcapng"), "").unwrap();
        for other in [
            "box-2-00000000000000aa-tap0-000001.pcapng",
            "box-00000000000000cc-tap0-000001.pcapng",
            "box-notes.pcapng",
        ] {
            std::fs::write(path(other), "").unwrap();
        }
        let config = EvidenceConfig {
            directory: directory.path().to_owned(),
            prefix: "box-00000000000000cc".to_owned(),
            max_bytes: 1,
        };
        let at = Timestamp {
            mono_us: 1,
            wall: WallTime(1),
        };
        let gap = left_open(&config, "box", at).unwrap();
        assert_eq!(gap.count.0, 2);
        let named =
            "box-00000000000000aa-tap0-000002.pcapng, box-00000000000000bb-tap0-000001.pcapng";
        assert!(gap.detail.ends_with(named), "{}", gap.detail);
        assert_eq!(left_open(&config, "another", at), None);
    }
}
