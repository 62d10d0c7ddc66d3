//! The command line as clap sees it. Nothing here is resolved yet.

use crate::config::Size;
use crate::verify::{self, VerifyArgs};
use crate::watch::{CaptureMode, SyscallMode};
use crate::witness::{WitnessCommand, WitnessTarget};
use clap::{Args, Parser, Subcommand};
use sandtrace_event::{EventType, EvidenceTier, VerdictResult};
use sandtrace_output::{Filter, Target};
use sandtrace_provider::ProviderKind;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// Hypervisor-level audit trails for AI agent sandboxes.
///
/// Records from the host what a sandbox sends and writes, judges it against
/// a policy, and keeps a hash-chained trail that anybody can verify.
#[derive(Debug, Parser)]
#[command(name = "sandtrace", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Watch a running sandbox and write its trail
    #[command(after_long_help = WATCH_EXAMPLES)]
    Watch(Box<WatchArgs>),
    /// List the sandboxes of this host and what can be captured of each
    List(ListArgs),
    /// Verify a trail: nothing edited, nothing missing, who signed it, no rule broken
    #[command(after_long_help = verify::EXAMPLES)]
    Verify(Box<VerifyArgs>),
    /// Print or forward the events of a trail
    #[command(after_long_help = STREAM_EXAMPLES)]
    Stream(StreamArgs),
    /// Write the trail of a capture file, as if its frames came in now
    #[command(after_long_help = REPLAY_EXAMPLES)]
    Replay(Box<ReplayArgs>),
    /// Say what differs between two disks or directories, or in an overlay, offline
    #[command(after_long_help = FSDIFF_EXAMPLES)]
    Fsdiff(FsdiffArgs),
    /// Take one conversation out of the evidence files of a watch
    #[command(after_long_help = EXTRACT_EXAMPLES)]
    Extract(ExtractArgs),
    /// Run a scripted agent in a real sandbox and watch it
    #[cfg(feature = "demo")]
    #[command(after_long_help = DEMO_EXAMPLES)]
    Demo(DemoArgs),
    /// Prove that one record is in a signed trail
    #[command(after_long_help = crate::prove::PROVE_EXAMPLES)]
    Prove(crate::prove::ProveArgs),
    /// Take some records out of a trail, with proofs that they are in it
    #[command(after_long_help = crate::prove::EXPORT_EXAMPLES)]
    Export(crate::prove::ExportArgs),
    /// Vouch for the growth of other hosts' trails
    #[command(subcommand)]
    Witness(WitnessCommand),
    /// Work with policy manifests
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Work with the settings file
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Work with profiles of VMM system calls
    #[command(subcommand)]
    Profile(ProfileCommand),
    /// Make, show and replace the key that vouches for this host's trails
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Say what this host can and cannot capture, and why
    Doctor(DoctorArgs),
    /// Print a shell's completion script
    Completions(CompletionsArgs),
    /// Write the manual pages
    Man(ManArgs),
}

const WATCH_EXAMPLES: &str = "\
Examples:
  Watch a Firecracker or QEMU sandbox by its id:
    sandtrace watch --sandbox-id vm-001 --policy policy.yaml
  Name everything by hand, and see JSON lines:
    sandtrace watch --sandbox-id box --tap tap0 --netns fc0 --disk rootfs.ext4 -o -
  Watch every sandbox of this host, one trail each:
    sandtrace watch --trail-dir /var/lib/sandtrace --policy policy.yaml
  Only show what is wrong (the trail keeps everything):
    sandtrace watch --sandbox-id vm-001 --policy policy.yaml --filter-verdict deny,anomaly

Ctrl-C ends the watch: the trail gets its last record and the summary is printed.";

const STREAM_EXAMPLES: &str = "\
Examples:
  sandtrace stream trace.jsonl --filter-verdict deny,anomaly
  sandtrace stream trace.jsonl --follow -o unix:///run/collector.sock";

const REPLAY_EXAMPLES: &str = "\
Examples:
  sandtrace replay incident.pcapng --policy policy.yaml --sandbox-ip 10.0.0.2
  sandtrace replay incident.pcap --trail incident.jsonl --resolver 10.0.0.1 -o -

Without --sandbox-ip, who sends the first frame between two addresses is taken for the sandbox.";

const EXTRACT_EXAMPLES: &str = "\
Examples:
  sandtrace extract trace.jsonl --flow 3 --evidence /var/lib/evidence -o flow-3.pcapng

Every file is held against its digest in the trail first. Exit codes: 0 written, 1 an evidence file
was changed, 4 unreadable, 69 no such flow or no evidence, 73 the output exists (docs/exit-codes.md).";

const FSDIFF_EXAMPLES: &str = "\
Examples:
  sandtrace fsdiff golden.ext4 rootfs.ext4
  sandtrace fsdiff golden.ext4 --sandbox vm-001
  sandtrace fsdiff before/ after/ --json
  sandtrace fsdiff BASE/rootfs.ext4.header BUILD/rootfs.ext4.header   (snapshots of E2B)
  sandtrace fsdiff BUILD/rootfs.ext4.header rootfs-ID-RANDOM.cow      (what a sandbox of E2B wrote)
  sandtrace fsdiff --overlay /var/lib/box/upper --lower /var/lib/box/base

Exit codes: 0 compared, 4 something could not be read (the answer says what), 64 usage, 69 no such
disk or sandbox, 77 not permitted (docs/exit-codes.md).";

#[cfg(feature = "demo")]
const DEMO_EXAMPLES: &str = "\
Examples:
  sandtrace demo stripe-exfil
  sandtrace demo persist --keep ./out
  sandtrace demo stripe-exfil --sandbox namespace
  sandtrace demo tamper";

#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// Sandbox to watch: found among running ones, or the name of what is given by hand
    #[arg(long, value_name = "ID")]
    pub(crate) sandbox_id: Option<String>,
    /// Watch every sandbox of this host, also those that start later; the same as no --sandbox-id
    #[arg(long, conflicts_with = "sandbox_id")]
    pub(crate) all: bool,
    /// Settings file [default: /etc/sandtrace/config.toml, if there is one] [env: SANDTRACE_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Directory of the trails of all sandboxes, one file each [default: ./trails]
    #[arg(long, value_name = "DIR", conflicts_with = "sandbox_id")]
    pub(crate) trail_dir: Option<PathBuf>,
    /// Most sandboxes watched at the same time [default: 1024]
    #[arg(long, value_name = "N", conflicts_with = "sandbox_id")]
    pub(crate) max_sandboxes: Option<NonZeroUsize>,
    #[command(flatten)]
    pub(crate) discover: DiscoverArgs,
    /// Agent's name in the trail [default: what the sandbox's metadata says, else its id]
    #[arg(
        long,
        value_name = "ID",
        requires = "sandbox_id",
        conflicts_with = "all"
    )]
    pub(crate) agent_id: Option<String>,
    /// Policy to judge events by; without one nothing is judged
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Trail to write; one that stopped without its end goes on [default: ./trace.jsonl]
    #[arg(
        long,
        value_name = "FILE",
        requires = "sandbox_id",
        conflicts_with = "all"
    )]
    pub(crate) trail: Option<PathBuf>,
    /// VMM process, where the id alone does not find it
    #[arg(
        long,
        value_name = "N",
        requires = "sandbox_id",
        conflicts_with = "all"
    )]
    pub(crate) pid: Option<u32>,
    /// Sandbox's interface on the host
    #[arg(
        long,
        value_name = "IF",
        requires = "sandbox_id",
        conflicts_with = "all"
    )]
    pub(crate) tap: Option<String>,
    /// Network namespace of that interface
    #[arg(long, value_name = "NAME|PATH", requires = "tap")]
    pub(crate) netns: Option<String>,
    /// Disk image or block device with ext4
    #[arg(
        long,
        value_name = "PATH",
        requires = "sandbox_id",
        conflicts_with = "all"
    )]
    pub(crate) disk: Vec<PathBuf>,
    /// How these disks' bytes are kept [default: qcow2 where the name ends in .qcow2, else raw]
    #[arg(long, value_name = "FORMAT", requires = "disk")]
    pub(crate) format: Option<DiskFormat>,
    /// Upper dir of the sandbox's overlay
    #[arg(
        long,
        value_name = "UPPER",
        requires = "sandbox_id",
        conflicts_with = "all"
    )]
    pub(crate) overlay: Option<PathBuf>,
    /// Resolver whose DNS answers count as evidence, beside those in the policy
    #[arg(long, value_name = "IP")]
    pub(crate) resolver: Vec<IpAddr>,
    /// End after this time, such as 90s or 1h
    #[arg(long, value_name = "T", value_parser = humantime::parse_duration)]
    pub(crate) duration: Option<Duration>,
    /// Time between two looks at the disk [default: 2s]
    #[arg(long, value_name = "T", value_parser = humantime::parse_duration)]
    pub(crate) scan_interval: Option<Duration>,
    /// Image or directory as the sandbox's disk or overlay was before: the first look is compared
    /// with it, not with what is there when the watch begins
    #[arg(
        long,
        value_name = "PATH",
        requires = "sandbox_id",
        conflicts_with = "all"
    )]
    pub(crate) base: Option<PathBuf>,
    /// How the bytes of that image are kept [default: by its name, as well]
    #[arg(long, value_name = "FORMAT", requires = "base")]
    pub(crate) base_format: Option<DiskFormat>,
    /// Say what of new content looks like secrets: rule and count, never the secret
    #[arg(long)]
    pub(crate) scan_secrets: bool,
    /// How the sandbox's frames are captured [default: auto]
    #[arg(long, value_enum, value_name = "HOW")]
    pub(crate) capture: Option<CaptureMode>,
    /// Silence of the sandbox after which what it sends next on a connection is another call, such
    /// as 1s; 0s: only an answer ends a call [default: 0s]
    #[arg(long, value_name = "T", value_parser = humantime::parse_duration)]
    pub(crate) call_pause: Option<Duration>,
    /// How the VMM's own system calls on the host are seen, never the guest's [default: auto]
    #[arg(long, value_enum, value_name = "HOW")]
    pub(crate) syscalls: Option<SyscallMode>,
    /// Time between two counts of system calls [default: 5s]
    #[arg(long, value_name = "T", value_parser = humantime::parse_duration)]
    pub(crate) syscall_interval: Option<Duration>,
    /// Time between two questions to a VMM's API whether it is paused; 0s: never [default: 10s]
    #[arg(long, value_name = "T", value_parser = humantime::parse_duration)]
    pub(crate) state_interval: Option<Duration>,
    #[command(flatten)]
    pub(crate) state: StateArgs,
    #[command(flatten)]
    pub(crate) segments: SegmentArgs,
    /// Address of the sandbox: another source address is then a finding; repeatable
    #[arg(
        long,
        value_name = "IP",
        requires = "sandbox_id",
        conflicts_with = "all"
    )]
    pub(crate) sandbox_ip: Vec<IpAddr>,
    #[command(flatten)]
    pub(crate) evidence: EvidenceArgs,
    #[command(flatten)]
    pub(crate) show: ShowArgs,
}

/// Whether frames are kept as they were.
#[derive(Debug, Args)]
pub(crate) struct EvidenceArgs {
    /// Keep all frames as pcapng files in this directory; the trail has their digests
    #[arg(long, value_name = "DIR")]
    pub(crate) evidence_pcap: Option<PathBuf>,
    /// Begin the next evidence file when one has this size, such as 64M [default: 256M]
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_size: Option<Size>,
}

#[derive(Debug, Args)]
pub(crate) struct ExtractArgs {
    /// Trail of the watch
    pub(crate) trail: PathBuf,
    /// Number of the conversation: flow_id of its records
    #[arg(long, value_name = "ID")]
    pub(crate) flow: u64,
    /// Session of the trail, from 1, where several have a flow of this number [default: the
    /// newest of them]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) session: Option<u32>,
    /// Directory of the evidence files [default: the trail's]
    #[arg(long, value_name = "DIR")]
    pub(crate) evidence: Option<PathBuf>,
    /// File to write [default: ./flow-ID.pcapng]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// Where this host's key is.
#[derive(Debug, Args)]
pub(crate) struct StateArgs {
    /// Directory of this host's key [default: /var/lib/sandtrace, or ~/.local/state/sandtrace]
    /// [env: SANDTRACE_STATE_DIR]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
}

/// When a trail goes on in a new file.
#[derive(Debug, Args)]
pub(crate) struct SegmentArgs {
    /// Witness that is asked to cosign the trail's checkpoints, http://HOST:PORT or unix:///PATH;
    /// with #VKEY its signatures are checked before they are kept; repeatable
    #[arg(long, value_name = "URL[#VKEY]")]
    pub(crate) witness: Vec<WitnessTarget>,
    /// Begin the trail's next file when one has this size, such as 256M [default: 1G]
    #[arg(long, value_name = "SIZE")]
    pub(crate) segment_size: Option<Size>,
    /// Begin the trail's next file when one has this age, such as 24h
    #[arg(long, value_name = "T", value_parser = humantime::parse_duration)]
    pub(crate) segment_age: Option<Duration>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make this host's key and print its verifier key
    Init(StateArgs),
    /// Print this host's verifier key, which auditors pin with verify --key
    Show(KeysShowArgs),
    /// Replace this host's key; the old one is overwritten
    Rotate(StateArgs),
}

#[derive(Debug, Args)]
pub(crate) struct KeysShowArgs {
    #[command(flatten)]
    pub(crate) state: StateArgs,
    /// Print path, id and earlier keys too, as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Settings file [default: /etc/sandtrace/config.toml, if there is one] [env: SANDTRACE_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) discover: DiscoverArgs,
    /// Print the answer as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which sandboxes are looked for.
#[derive(Debug, Default, Args)]
pub(crate) struct DiscoverArgs {
    /// Only these: firecracker, e2b, daytona, cloud-hypervisor, qemu, libkrun
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) provider: Vec<ProviderKind>,
    /// Docker's API socket, by which Daytona's containers are found [default: /var/run/docker.sock]
    #[arg(long, value_name = "PATH")]
    pub(crate) docker_socket: Option<PathBuf>,
}

/// What is shown and sent. The trail always keeps everything.
#[derive(Clone, Debug, Args)]
pub(crate) struct ShowArgs {
    /// Where events go: - (standard output, JSON lines), FILE, or unix:///PATH; repeatable
    #[arg(short, long, value_name = "TARGET")]
    pub(crate) output: Vec<Target>,
    /// Only these event types
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) filter_type: Vec<EventType>,
    /// Only these evidence tiers
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) filter_tier: Vec<EvidenceTier>,
    /// Only these verdicts
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) filter_verdict: Vec<VerdictResult>,
}

impl ShowArgs {
    pub(crate) fn filter(&self) -> Filter {
        Filter {
            types: self.filter_type.clone(),
            tiers: self.filter_tier.clone(),
            verdicts: self.filter_verdict.clone(),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct StreamArgs {
    /// Trail to read
    pub(crate) trail: PathBuf,
    /// Go on with what is appended, until the trail ends
    #[arg(long)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) show: ShowArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// Capture file: pcap or pcapng
    pub(crate) file: PathBuf,
    /// Policy to judge events by; without one nothing is judged
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Trail to write; must not exist yet
    #[arg(long, value_name = "FILE", default_value = "./trace.jsonl")]
    pub(crate) trail: PathBuf,
    /// Address of the sandbox: what it sends is egress; repeatable
    #[arg(long, value_name = "IP")]
    pub(crate) sandbox_ip: Vec<IpAddr>,
    /// Resolver whose DNS answers count as evidence, beside those in the policy
    #[arg(long, value_name = "IP")]
    pub(crate) resolver: Vec<IpAddr>,
    /// Silence of the sandbox after which what it sends next on a connection is another call, such
    /// as 1s [default: only an answer ends a call]
    #[arg(long, value_name = "T", value_parser = humantime::parse_duration)]
    pub(crate) call_pause: Option<Duration>,
    /// Sandbox's name in the trail
    #[arg(long, value_name = "ID", default_value = "replay")]
    pub(crate) sandbox_id: String,
    /// Agent's name in the trail [default: the sandbox's]
    #[arg(long, value_name = "ID")]
    pub(crate) agent_id: Option<String>,
    /// Make the same trail of the same file every time, ids and all
    #[arg(long)]
    pub(crate) deterministic: bool,
    #[command(flatten)]
    pub(crate) state: StateArgs,
    #[command(flatten)]
    pub(crate) show: ShowArgs,
}

/// What an image is, where its name does not tell: its bytes never decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DiskFormat {
    /// Byte for byte
    Raw,
    /// QEMU's format
    Qcow2,
}

#[derive(Debug, Args)]
pub(crate) struct FsdiffArgs {
    /// Disk image, block device, header of an E2B snapshot or directory as it was
    #[arg(required_unless_present_any = ["overlay", "sandbox"])]
    pub(crate) before: Option<PathBuf>,
    /// The same as it is now
    pub(crate) after: Option<PathBuf>,
    /// Instead of AFTER: the disk of this running sandbox; or, without BEFORE, its overlay
    #[arg(long, value_name = "ID", conflicts_with_all = ["after", "overlay"])]
    pub(crate) sandbox: Option<String>,
    /// Which of its disks, by the name that list gives it, where it has several
    #[arg(long, value_name = "PATH", requires = "sandbox")]
    pub(crate) disk: Option<String>,
    /// How AFTER's bytes are kept [default: qcow2 where its name ends in .qcow2, else raw]
    #[arg(long, value_name = "FORMAT", requires = "after")]
    pub(crate) format: Option<DiskFormat>,
    /// How BEFORE's bytes are kept [default: by its name, as well]
    #[arg(long, value_name = "FORMAT", requires = "before")]
    pub(crate) before_format: Option<DiskFormat>,
    /// Upper dir of an overlay, compared with its lower dirs
    #[arg(long, value_name = "UPPER", conflicts_with_all = ["before", "after"])]
    pub(crate) overlay: Option<PathBuf>,
    /// Lower dir, topmost first; repeatable [default: those of the mounted overlay]
    #[arg(long, value_name = "DIR", requires = "overlay")]
    pub(crate) lower: Vec<PathBuf>,
    /// Data-only lower dir, topmost first; repeatable
    #[arg(long, value_name = "DIR", requires = "lower")]
    pub(crate) data: Vec<PathBuf>,
    /// The overlay was mounted with userxattr
    #[arg(long, requires = "overlay")]
    pub(crate) userxattr: bool,
    /// Say what of new content looks like secrets: rule and count, never the secret
    #[arg(long)]
    pub(crate) scan_secrets: bool,
    /// Print one JSON object per line: differences, what could not be read, sums
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Check that a policy loads, and say what it allows
    Check(PolicyCheckArgs),
}

#[derive(Debug, Args)]
pub(crate) struct PolicyCheckArgs {
    /// Policy manifest
    pub(crate) file: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check that the settings load, and say what they are and where each is from
    Check(ConfigCheckArgs),
    /// Print the JSON Schema of the settings file (docs/schema/settings.schema.json)
    Schema,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigCheckArgs {
    /// Settings file [default: /etc/sandtrace/config.toml]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProfileCommand {
    /// Print rules that allow the VMM what it did in these trails
    Learn(ProfileLearnArgs),
    /// Print the profiles that come with Sandtrace, and what each was made from
    List,
}

#[derive(Debug, Args)]
pub(crate) struct ProfileLearnArgs {
    /// Trails with VMM system calls
    #[arg(required = true, value_name = "TRAIL")]
    pub(crate) trails: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print the answer as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// Shell to complete in
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Directory for the pages; it must exist
    pub(crate) dir: PathBuf,
}

#[cfg(feature = "demo")]
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// What the agent does
    #[arg(value_enum, default_value = "stripe-exfil")]
    pub(crate) scenario: DemoScenario,
    /// Where it runs
    #[arg(long, value_enum, default_value = "microvm")]
    pub(crate) sandbox: DemoSandbox,
    /// Keep trails and policy in this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
}

#[cfg(feature = "demo")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DemoScenario {
    /// A second charge on an allowed connection carries stolen credentials
    StripeExfil,
    /// A first run plants an instruction on the disk, a second run follows it
    Persist,
    /// A signed trail is attacked in every known way; needs no sandbox
    Tamper,
}

#[cfg(feature = "demo")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DemoSandbox {
    /// A QEMU microVM with a tap and an ext4 disk
    Microvm,
    /// Linux namespaces with a veth pair and an overlay
    Namespace,
}
