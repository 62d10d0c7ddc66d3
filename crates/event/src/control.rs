//! Payloads of control records: what Sandtrace says of itself.

use crate::{Count, Digest, WallTime};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One of the things that can be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// Packets on the sandbox's interface.
    Network,
    /// Files of its disk.
    Filesystem,
    /// System calls of its VMM process.
    Syscall,
}

/// A capture backend that was chosen, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendInForce {
    /// Name of the backend: `af_packet`, `overlay`, `ext4`, `ebpf`, `ptrace`,
    /// `capture_file`, `off`.
    pub backend: String,
    /// What it watches.
    pub layer: Layer,
    /// Why this one.
    pub reason: String,
}

/// The sandbox's VMM (or init) process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmmIdentity {
    /// Base name of its executable as argv\[0\] says.
    pub name: String,
    /// Process id on the host.
    pub pid: u32,
    /// Start time in clock ticks since boot (field 22 of /proc/PID/stat): pid and start time name one process.
    pub start_ticks: Count,
}

/// The host's side of a sandbox's network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TapIdentity {
    /// Interface index within its namespace.
    pub index: u32,
    /// Interface name.
    pub interface: String,
    /// Network namespace by name or path; absent for Sandtrace's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
}

/// What had crossed an interface when its capture began, by its own counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Passed {
    /// Bytes that it had sent to a sandbox.
    pub bytes_received: Count,
    /// Bytes that it had taken from a sandbox.
    pub bytes_sent: Count,
    /// The interface.
    pub interface: String,
    /// Nobody else held the interface before, as far as the kernel tells: what
    /// passed was this sandbox's, and is a `capture_gap`.
    pub own: bool,
    /// Frames that it had sent to a sandbox.
    pub packets_received: Count,
    /// Frames that it had taken from a sandbox.
    pub packets_sent: Count,
}

/// A disk of the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskIdentity {
    /// Device number of the file system that holds the image, as `major:minor`.
    pub device: String,
    /// Inode of the image (or directory) in that file system.
    pub inode: Count,
    /// Path by which it was opened.
    pub path: String,
    /// `ext4`, `overlay`.
    pub kind: String,
}

/// A layer that cannot be seen, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coverage {
    /// The layer.
    pub layer: Layer,
    /// What of it is not visible, and why.
    pub missing: String,
}

/// Sandtrace began to watch a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxAttached {
    /// The agent, where its provider's metadata names one. Where that was not
    /// known yet when the trail began, its records have the sandbox's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// What cannot be seen of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub coverage: Vec<Coverage>,
    /// Its disks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<DiskIdentity>,
    /// Names that its provider gives it beside its id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Interfaces that frames had crossed before their capture began.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed_before: Vec<Passed>,
    /// Adapter that found it: `firecracker`, `e2b`, `daytona`,
    /// `cloud-hypervisor`, `qemu`, `libkrun`, `manual`; `replay` for a capture file.
    pub provider: String,
    /// Its interfaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taps: Vec<TapIdentity>,
    /// What it was made from, where its provider says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Its process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmm: Option<VmmIdentity>,
}

/// Why watching ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DetachReason {
    /// The VMM process ended.
    VmmExited,
    /// The interface went away.
    InterfaceGone,
    /// The operator ended the watch.
    Interrupted,
    /// The time given with `--duration` was over.
    Duration,
    /// The capture file was read, to its end or as far as it is whole.
    EndOfFile,
}

/// Sandtrace no longer watches a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxDetached {
    /// Why.
    pub reason: DetachReason,
}

/// Whether the guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// Its vCPUs run.
    Running,
    /// Its vCPUs and devices stand still.
    Paused,
}

/// A sandbox was paused or goes on, by the word of who runs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxState {
    /// When it was last known to be in the other state: the change lies between
    /// then and this record. Absent where it was paused when it was first asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<WallTime>,
    /// Who says so: `firecracker_api`, `cloud_hypervisor_api`,
    /// `cloud_hypervisor_events` (the file of its `--event-monitor`), `threads` (its
    /// vCPUs did not run for five seconds), `cgroup` (it is frozen), `process` (it
    /// is stopped), `none` (nobody says it is paused).
    pub source: String,
    /// The state from here on.
    pub state: RunState,
}

/// The operator ordered the settings to be read again while the sandbox was
/// watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyChange {
    /// Whether the new settings are in force from here on. If not, the old
    /// ones still are.
    pub accepted: bool,
    /// Settings that changed in the file or the environment and are as before
    /// until a restart, by their keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs_restart: Vec<String>,
    /// SHA-256 of the policy as it was read; absent for none, or where it could
    /// not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_policy: Option<Digest>,
    /// SHA-256 of the settings file as it was read; absent for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_settings: Option<Digest>,
    /// SHA-256 of the policy before; absent for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_policy: Option<Digest>,
    /// SHA-256 of the settings file before; absent for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_settings: Option<Digest>,
    /// The policy's file, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Why it was not accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Which providers' sandboxes are looked for; absent where this trail is
    /// of one sandbox that was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub providers: Option<Vec<String>>,
}

/// Why something was not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapCause {
    /// The kernel's ring was full.
    RingDrop,
    /// The interface's own counters and the sum of all flows differ.
    CounterMismatch,
    /// The sandbox's frames crossed the interface before its capture began.
    BeforeCapture,
    /// The interface vanished while it was watched.
    InterfaceGone,
    /// A disk or directory could not be read.
    DiskUnreadable,
    /// Events that bring a scan forward were lost; the scan came all the same.
    EventsLost,
    /// More changed than one scan may report.
    ScanBound,
    /// A table was full, or a bound met: calls, threads or processes were not counted.
    TableFull,
    /// More different calls than one interval reports one by one.
    CallBound,
    /// Tracing of the process broke off, or could not begin.
    TraceLost,
    /// A capture file ends within a frame or is damaged there.
    FileDamaged,
    /// Whoever wrote a capture file dropped frames, as the file says.
    FileDrops,
    /// The clock of a capture file was set while it was taken.
    ClockStep,
    /// Evidence files could not be written; the flows are not affected.
    EvidenceFailed,
    /// A record was too long for a line; its verdict is kept.
    RecordTooLong,
}

/// What a gap counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GapUnit {
    /// System calls.
    Calls,
    /// Processes or threads.
    Threads,
    /// Frames.
    Packets,
    /// Bytes.
    Bytes,
    /// Paths.
    Paths,
    /// Scans.
    Scans,
    /// Interfaces.
    Interfaces,
    /// Capture files.
    Files,
    /// Records.
    Records,
}

/// Something was lost, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptureGap {
    /// Why.
    pub cause: GapCause,
    /// How much.
    pub count: Count,
    /// In a sentence.
    pub detail: String,
    /// Earliest moment at which it can have been lost.
    pub first_at: WallTime,
    /// Latest moment at which it can have been lost.
    pub last_at: WallTime,
    /// What was being watched.
    pub layer: Layer,
    /// Interface or disk.
    pub source: String,
    /// What `count` counts.
    pub unit: GapUnit,
}

/// A file with frames as they were, closed and complete (`watch --evidence-pcap`),
/// or of a replay the capture, as far as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvidenceFile {
    /// Its length.
    pub bytes: Count,
    /// Its name, within the directory that was given.
    pub file: String,
    /// Time of the first frame in it.
    pub first_at: WallTime,
    /// Frames in it.
    pub frames: Count,
    /// Interface that they crossed, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Time of the last frame in it.
    pub last_at: WallTime,
    /// Digest of the whole file.
    pub sha256: Digest,
}

/// The interface's own counters beside what the flows say, over the watch.
///
/// `interface_*` are differences of the kernel's counters (host rx is guest
/// egress); `flow_*` are sums over all flow records; ring drops are known
/// losses in between. Where the interface was busy while its counters were
/// read, the flows may be ahead of them by what crossed it meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reconciliation {
    /// Σ `wire_bytes_received` of all flows.
    pub flow_bytes_received: Count,
    /// Σ `wire_bytes_sent` of all flows.
    pub flow_bytes_sent: Count,
    /// Σ `packets_received` of all flows.
    pub flow_packets_received: Count,
    /// Σ `packets_sent` of all flows.
    pub flow_packets_sent: Count,
    /// Interface name.
    pub interface: String,
    /// Bytes that the interface sent to the sandbox.
    pub interface_bytes_received: Count,
    /// Bytes that the interface took from the sandbox.
    pub interface_bytes_sent: Count,
    /// Frames that the interface sent to the sandbox.
    pub interface_packets_received: Count,
    /// Frames that the interface took from the sandbox.
    pub interface_packets_sent: Count,
    /// Whether the flows hold everything that crossed the interface: all that
    /// it took from the sandbox exactly, and at least what it delivered (the
    /// host may send what the VMM never takes).
    pub matches: bool,
    /// Frames that the kernel dropped before Sandtrace could read them.
    pub ring_drops: Count,
}
