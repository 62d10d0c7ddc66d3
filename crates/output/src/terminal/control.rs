//! Lines of what Sandtrace says of itself.

use super::columns::Columns;
use super::summary;
use sandtrace_event::{
    CaptureGap, Coverage, DetachReason, EndReason, EvidenceFile, GapCause, GapUnit, Layer, Passed,
    PolicyChange, RunState, SandboxAttached, SandboxDetached, SandboxState, TapIdentity, TrailEnd,
    TrailStart,
};

const KIND: &str = "CTL";

pub(super) fn start(start: &TrailStart, trace_id: &str) -> Columns {
    let backend =
        |it: &sandtrace_event::BackendInForce| format!("{} by {}", layer(it.layer), it.backend);
    let capture: Vec<_> = start.capture.iter().map(backend).collect();
    let policy = match &start.policy_path {
        Some(path) => format!("policy {path}"),
        None => "no policy".to_owned(),
    };
    Columns::new(KIND, "start")
        .path(format!("trail {trace_id}").as_bytes())
        .remark(&policy)
        .remark(&capture.join(", "))
}

pub(super) fn attached(attached: &SandboxAttached, sandbox_id: &str) -> Columns {
    let vmm = attached.vmm.as_ref();
    let vmm = vmm.map(|vmm| format!("{} pid {}", vmm.name, vmm.pid));
    let mut columns = Columns::new(KIND, "attached")
        .path(sandbox_id.as_bytes())
        .remark(&format!("by {}", attached.provider))
        .remark(&vmm.unwrap_or_default());
    for tap in attached.taps.iter().take(4) {
        columns = columns.remark(&place(tap));
    }
    for passed in attached.passed_before.iter().take(4) {
        columns = columns.remark(&before(passed));
    }
    for disk in attached.disks.iter().take(4) {
        columns = columns.remark(&format!("{} {}", disk.kind, disk.path));
    }
    for coverage in attached.coverage.iter().take(4) {
        columns = columns.remark(&missing(coverage));
    }
    columns
}

pub(super) fn detached(detached: &SandboxDetached, sandbox_id: &str) -> Columns {
    let reason = match detached.reason {
        DetachReason::VmmExited => "its VMM ended",
        DetachReason::InterfaceGone => "its interface is gone",
        DetachReason::Interrupted => "interrupted",
        DetachReason::Duration => "the given time is over",
        DetachReason::EndOfFile => "the capture file is over",
    };
    Columns::new(KIND, "detached")
        .path(sandbox_id.as_bytes())
        .remark(reason)
}

pub(super) fn state(state: &SandboxState, sandbox_id: &str) -> Columns {
    let word = match state.state {
        RunState::Running => "running",
        RunState::Paused => "paused",
    };
    Columns::new(KIND, word)
        .path(sandbox_id.as_bytes())
        .remark(&format!("by {}", state.source))
}

pub(super) fn policy_change(change: &PolicyChange) -> Columns {
    let kind = if change.accepted {
        "settings"
    } else {
        "settings refused"
    };
    let policy = match (&change.path, &change.new_policy) {
        (Some(path), Some(digest)) => format!("policy {path} {digest}"),
        (Some(path), None) => format!("policy {path}"),
        (None, _) => "no policy".to_owned(),
    };
    let remark = match (&change.problem, change.needs_restart.as_slice()) {
        (Some(problem), _) => problem.clone(),
        (None, []) => String::new(),
        (None, kept) => format!("as before until a restart: {}", kept.join(", ")),
    };
    Columns::new(KIND, kind)
        .path(policy.as_bytes())
        .remark(&remark)
}

pub(super) fn gap(gap: &CaptureGap) -> Columns {
    let cause = match gap.cause {
        GapCause::RingDrop => "ring full",
        GapCause::CounterMismatch => "counters differ",
        GapCause::BeforeCapture => "before the capture began",
        GapCause::InterfaceGone => "interface gone",
        GapCause::DiskUnreadable => "disk unreadable",
        GapCause::ScanBound => "over the bound of one scan",
        GapCause::TableFull => "table full",
        GapCause::CallBound => "over the bound of one interval",
        GapCause::TraceLost => "tracing lost",
        GapCause::EventsLost => "events lost",
        GapCause::FileDamaged => "file damaged",
        GapCause::FileDrops => "dropped by who wrote the file",
        GapCause::ClockStep => "the file's clock was set",
        GapCause::EvidenceFailed => "evidence not written",
        GapCause::RecordTooLong => "record too long",
    };
    let unit = match gap.unit {
        GapUnit::Calls => "calls",
        GapUnit::Threads => "threads",
        GapUnit::Packets => "packets",
        GapUnit::Bytes => "bytes",
        GapUnit::Paths => "paths",
        GapUnit::Scans => "scans",
        GapUnit::Interfaces => "interfaces",
        GapUnit::Files => "files",
        GapUnit::Records => "records",
    };
    Columns::new(KIND, "gap")
        .path(format!("{} {}", layer(gap.layer), gap.source).as_bytes())
        .remark(&format!("NOT SEEN: {} {unit}, {cause}", gap.count))
        .remark(&gap.detail)
}

pub(super) fn evidence(file: &EvidenceFile) -> Columns {
    Columns::new(KIND, "evidence")
        .path(file.file.as_bytes())
        .bytes(Some(file.bytes.0))
        .remark(&match &file.interface {
            Some(interface) => format!("{} frames of {interface}", file.frames),
            None => format!("{} frames", file.frames),
        })
}

pub(super) fn end(end: &TrailEnd) -> Columns {
    let reason = match end.reason {
        EndReason::SandboxEnded => "the sandbox ended",
        EndReason::Interrupted => "interrupted",
        EndReason::Duration => "the given time is over",
        EndReason::EndOfFile => "the capture file is over",
        EndReason::CaptureFailed => "capture failed",
    };
    Columns::new(KIND, "end")
        .path(reason.as_bytes())
        .remark(&summary::totals(end))
}

fn layer(layer: Layer) -> &'static str {
    match layer {
        Layer::Network => "network",
        Layer::Filesystem => "filesystem",
        Layer::Syscall => "syscall",
    }
}

fn place(tap: &TapIdentity) -> String {
    match &tap.netns {
        Some(netns) => format!("{} in {netns}", tap.interface),
        None => tap.interface.clone(),
    }
}

fn before(passed: &Passed) -> String {
    format!(
        "{} had taken {} frames and sent {} before",
        passed.interface, passed.packets_sent, passed.packets_received
    )
}

fn missing(coverage: &Coverage) -> String {
    format!(
        "not visible: {}: {}",
        layer(coverage.layer),
        coverage.missing
    )
}
