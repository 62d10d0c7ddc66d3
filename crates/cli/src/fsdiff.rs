//! `sandtrace fsdiff`: what differs between two disks or trees, offline, by
//! the code that watches them.

mod in_use;
mod live;

use crate::args::{DiskFormat, FsdiffArgs};
use crate::exit::{Exit, Failure, OrExit as _};
use crate::show::{escaped, grouped, tell};
use anstyle::{AnsiColor, Style};
use sandtrace_capture::filesystem::overlay::{OverlayMount, mount_for_upper};
use sandtrace_capture::filesystem::{
    Baseline, FsCollector, FsConfig, FsError, ImageFormat, OverlayXattrs, Source,
};
use sandtrace_event::{
    CaptureGap, FileChange, FileKind, FileOp, GapUnit, HashScope, Payload, QuiesceMethod,
};
use serde_json::json;
use std::io::{self, IsTerminal as _, Write};
use std::path::Path;

/// Compares and prints.
pub(crate) fn run(args: &FsdiffArgs) -> Result<Exit, Failure> {
    let mounted = args.overlay.as_deref().and_then(mounted);
    let mut given = args.before.iter().chain(&args.after);
    // Nobody holds still for this a sandbox, or who uses a mounted overlay or writes
    // to an image.
    let is_live =
        args.sandbox.is_some() || mounted.is_some() || given.any(|disk| in_use::is_written(disk));
    let quiesce = if is_live {
        QuiesceMethod::Live
    } else {
        QuiesceMethod::Detached
    };
    let (source, config) = match (&args.overlay, &args.sandbox) {
        (Some(upper), _) => overlay(upper, mounted, args)?,
        (None, Some(id)) => {
            let before = args.before.as_deref();
            let base = before.map(|before| source(before, args.before_format));
            live::source(id, args, base)?
        }
        (None, None) => pair(args)?,
    };
    let config = FsConfig {
        scan_secrets: args.scan_secrets,
        ..config
    };
    let mut collector = FsCollector::attach(source, config).map_err(failure_of)?;
    let mut answer = Answer::new(args.json);
    let mut written = Ok(());
    let now = crate::watch::moment::now();
    let scanned = collector.scan(now, quiesce, &mut |seen| {
        if written.is_ok() {
            written = answer.add(&seen.payload);
        }
    });
    written.or_exit(Exit::Io)?;
    scanned.map_err(failure_of)?;
    answer.end().or_exit(Exit::Io)?;
    Ok(match answer.gaps {
        0 => Exit::Success,
        _ => Exit::Malformed,
    })
}

/// The overlay that is mounted here with this upper dir.
fn mounted(upper: &Path) -> Option<OverlayMount> {
    let mounts = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    mount_for_upper(&mounts, &upper.canonicalize().ok()?)
}

/// Two images, two directories, or one of each.
fn pair(args: &FsdiffArgs) -> Result<(Source, FsConfig), Failure> {
    let (Some(before), Some(after)) = (&args.before, &args.after) else {
        return Err(Failure::new(
            Exit::Usage,
            "give two disks or directories, BEFORE and AFTER, or one overlay with --overlay",
        ));
    };
    let config = FsConfig {
        baseline: Baseline::Of(source(before, args.before_format)),
        ..FsConfig::default()
    };
    if is_cow(before) {
        let why = "a .cow is read above its template only: name the template first, then the .cow";
        return Err(Failure::new(Exit::Usage, why));
    }
    if is_cow(after) && args.format.is_none() {
        tell(
            "sandtrace: a hole in a .cow is a block of the template or one that was zeroed or \
             trimmed, which nothing tells apart: all are read as the template's, so what was \
             deleted may show as still there",
        );
        let (cow, template) = (after.clone(), before.clone());
        return Ok((Source::E2bCow { cow, template }, config));
    }
    Ok((source(after, args.format), config))
}

/// What a sandbox of E2B wrote, by the name that the orchestrator gives it.
fn is_cow(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "cow") && !path.is_dir()
}

/// What is at a path; `format` says what no name tells.
pub(crate) fn source(path: &Path, format: Option<DiskFormat>) -> Source {
    let named = Source::by_path(path);
    match (named, format) {
        (Source::Image { path, .. }, Some(format)) => {
            let format = format.into();
            Source::Image { path, format }
        }
        (named, _) => named,
    }
}

impl From<DiskFormat> for ImageFormat {
    fn from(format: DiskFormat) -> Self {
        match format {
            DiskFormat::Raw => Self::Raw,
            DiskFormat::Qcow2 => Self::Qcow2,
        }
    }
}

/// An upper dir against its lower layers: those that were given, or those of
/// the overlay that is mounted with it.
fn overlay(
    upper: &Path,
    mounted: Option<OverlayMount>,
    args: &FsdiffArgs,
) -> Result<(Source, FsConfig), Failure> {
    let mut xattrs = mounted.as_ref().map(|mount| mount.xattrs);
    let (mut lowers, mut data_layers) = (args.lower.clone(), args.data.clone());
    if lowers.is_empty() {
        match mounted {
            Some(mount) if mount.has_absolute_layers() => {
                (lowers, data_layers) = (mount.lowers, mount.data);
            }
            Some(_) => tell(
                "sandtrace: the overlay was mounted with relative lower dirs, which only its \
                 mounter knows; name them with --lower: everything shows as created",
            ),
            None => tell(&format!(
                "sandtrace: no --lower was given and no overlay with the upper dir {} is mounted \
                 here: everything in it shows as created",
                upper.display()
            )),
        }
    }
    if args.userxattr {
        xattrs = Some(OverlayXattrs::User);
    }
    let config = FsConfig {
        baseline: Baseline::Lowers,
        overlay_xattrs: xattrs.unwrap_or_default(),
        data_layers,
        ..FsConfig::default()
    };
    let upper = upper.to_owned();
    Ok((Source::Overlay { upper, lowers }, config))
}

fn failure_of(error: FsError) -> Failure {
    let exit = match &error {
        FsError::Layer { source, .. } | FsError::Image { source, .. }
            if source.kind() == io::ErrorKind::PermissionDenied =>
        {
            Exit::NoPermission
        }
        _ => Exit::Unavailable,
    };
    Failure {
        exit,
        error: error.into(),
    }
}

/// The answer, as it is printed.
struct Answer {
    json: bool,
    changes: u64,
    gaps: u64,
}

impl Answer {
    fn new(json: bool) -> Self {
        Self {
            json,
            changes: 0,
            gaps: 0,
        }
    }

    fn add(&mut self, payload: &Payload) -> io::Result<()> {
        match payload {
            Payload::FilesystemChange(_) => self.changes += 1,
            _ => self.gaps += 1,
        }
        let mut out = anstream::stdout().lock();
        match payload {
            payload if self.json => {
                let event = json!({ "event_type": payload.event_type(), "payload": payload });
                write_json(&mut out, &event)
            }
            Payload::FilesystemChange(change) => writeln!(out, "{}", line(change)),
            Payload::CaptureGap(gap) => writeln!(out, "{}", gap_line(gap)),
            _ => Ok(()),
        }
    }

    fn end(&self) -> io::Result<()> {
        let mut out = anstream::stdout().lock();
        if self.json {
            let sums = json!({ "changes": self.changes, "gaps": self.gaps });
            return write_json(&mut out, &json!({ "summary": sums }));
        }
        let changes = match self.changes {
            0 => "no difference".to_owned(),
            1 => "1 difference".to_owned(),
            count => format!("{} differences", grouped(count)),
        };
        match self.gaps {
            0 => writeln!(out, "{changes}"),
            _ => writeln!(out, "{changes} in what could be read"),
        }
    }
}

/// One line; on a terminal nothing that a guest chose may steer it.
fn write_json(out: &mut impl Write, value: &serde_json::Value) -> io::Result<()> {
    let text = value.to_string();
    if io::stdout().is_terminal() {
        writeln!(out, "{}", sandtrace_output::terminal::ascii_json(&text))
    } else {
        writeln!(out, "{text}")
    }
}

fn line(change: &FileChange) -> String {
    let (word, style) = match change.op {
        FileOp::Created => ("created", AnsiColor::Green.on_default()),
        FileOp::Modified => ("modified", AnsiColor::Yellow.on_default()),
        FileOp::Deleted => ("deleted", AnsiColor::Red.on_default()),
        FileOp::Renamed => ("renamed", AnsiColor::Cyan.on_default()),
        FileOp::Metadata => ("metadata", Style::new().dimmed()),
    };
    let mut line = format!("{style}{word:9}{style:#} {}", escaped(&change.path));
    for remark in remarks(change).iter().filter(|remark| !remark.is_empty()) {
        line.push_str("  ");
        line.push_str(remark);
    }
    line
}

fn remarks(change: &FileChange) -> Vec<String> {
    let text = |label: &str, text: &Option<String>| {
        let text = text.as_deref().map(escaped);
        text.map_or_else(String::new, |text| format!("{label} {text}"))
    };
    vec![
        text("from", &change.renamed_from),
        text("→", &change.symlink_target),
        kind(change.kind).to_owned(),
        sizes(change),
        owner(change),
        digest(change),
        attributes(change),
        secrets(change),
        text("unreadable:", &change.unreadable),
    ]
}

fn kind(kind: FileKind) -> &'static str {
    match kind {
        FileKind::File => "",
        FileKind::Dir => "directory",
        FileKind::Symlink => "symlink",
        FileKind::Char => "character device",
        FileKind::Block => "block device",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
        FileKind::Unknown => "unknown kind",
    }
}

fn sizes(change: &FileChange) -> String {
    let size = |size: Option<sandtrace_event::Count>| size.map(|size| grouped(size.0));
    match (size(change.size_before), size(change.size_after)) {
        (Some(before), Some(after)) if before != after => format!("{before} → {after} B"),
        (_, Some(size)) | (Some(size), None) => format!("{size} B"),
        (None, None) => String::new(),
    }
}

/// What of mode and owner is no longer what it was.
fn owner(change: &FileChange) -> String {
    let mut parts = Vec::new();
    if let (Some(was), Some(is)) = (change.mode_before, change.mode) {
        parts.push(format!("mode {was:04o} → {is:04o}"));
    }
    for (name, was, is) in [
        ("uid", change.uid_before, change.uid),
        ("gid", change.gid_before, change.gid),
    ] {
        if let (Some(was), Some(is)) = (was, is) {
            parts.push(format!("{name} {was} → {is}"));
        }
    }
    parts.join("  ")
}

/// Extended attributes of what was there before as well.
fn attributes(change: &FileChange) -> String {
    if change.xattrs_changed.is_empty() {
        return String::new();
    }
    format!("attributes {}", escaped(&change.xattrs_changed.join(", ")))
}

fn secrets(change: &FileChange) -> String {
    let found = change.secrets.iter();
    let found: Vec<_> = found
        .map(|found| format!("{} × {}", found.count.0, escaped(&found.rule)))
        .collect();
    match found.is_empty() {
        true => String::new(),
        false => format!("looks like secrets: {}", found.join(", ")),
    }
}

fn digest(change: &FileChange) -> String {
    let Some(digest) = &change.sha256 else {
        return String::new();
    };
    match change.sha256_scope {
        Some(HashScope::HeadTail) => format!("{digest} (head and tail)"),
        Some(HashScope::Whole) | None => digest.to_string(),
    }
}

fn gap_line(gap: &CaptureGap) -> String {
    let style = AnsiColor::Magenta.on_default();
    let unit = match gap.unit {
        GapUnit::Paths => "paths",
        _ => "places",
    };
    format!(
        "{style}not read {style:#} {} {unit}: {}",
        grouped(gap.count.0),
        escaped(&gap.detail)
    )
}
