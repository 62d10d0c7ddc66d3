//! One layer of settings: what a settings file, the environment or the command
//! line says. What a layer does not say comes from the one below.

use super::schema::Written;
use super::words::{List, Size, Span, Word};
use crate::watch::{CaptureMode, SyscallMode};
use crate::witness::WitnessTarget;
use sandtrace_event::{EventType, EvidenceTier, VerdictResult};
use sandtrace_output::Target;
use sandtrace_provider::ProviderKind;
use serde_json::Value;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// One setting, as the documentation and the schema have it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    /// Its key in the file, `section.name`.
    pub(crate) key: &'static str,
    pub(crate) variable: &'static str,
    pub(crate) about: &'static str,
    /// What holds where no layer says anything, as a file would say it.
    pub(crate) default: Option<&'static str>,
    pub(crate) reload: Reload,
    /// What a file may give for it, as JSON Schema.
    pub(crate) schema: fn() -> Value,
}

/// What SIGHUP does about a setting that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reload {
    /// The new value is in force.
    Again,
    /// The old one stays, and the record of the change says so.
    Restart,
}

/// Declares every setting once: its key in the file, its variable, its type, its
/// default and what SIGHUP does about it. A type reads itself from one word, as
/// the environment gives it.
macro_rules! settings {
    ($($(#[doc = $doc:literal])* $field:ident: $type:ty =
        $key:literal, $variable:literal, $default:expr, $reload:ident;)*) => {
        /// Settings, each of which may be left to the layer below.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub(crate) struct Layer {
            $($(#[doc = $doc])* pub(crate) $field: Option<$type>,)*
        }

        impl Layer {
            /// Every setting, in the order of the documentation.
            pub(crate) const ALL: &[Setting] = &[$(Setting {
                key: $key,
                variable: $variable,
                about: concat!($($doc),*).trim_ascii_start(),
                default: $default,
                reload: Reload::$reload,
                schema: <$type as Written>::schema,
            },)*];

            /// This layer over `lower`.
            pub(crate) fn over(self, lower: Self) -> Self {
                Self { $($field: self.$field.or(lower.$field),)* }
            }

            /// The keys that this layer sets.
            pub(crate) fn keys(&self) -> Vec<&'static str> {
                let mut keys = Vec::new();
                $(if self.$field.is_some() { keys.push($key); })*
                keys
            }

            /// These settings with those of `newer` that need no restart, and the
            /// keys of those that would have changed and do.
            pub(crate) fn renewed(&self, newer: Self) -> (Self, Vec<&'static str>) {
                let mut kept = Vec::new();
                let renewed = Self {
                    $($field: if Reload::$reload == Reload::Again {
                        newer.$field
                    } else {
                        let said = [&self.$field, &newer.$field];
                        let [now, then] = said.map(|value| effect(value.as_ref(), $default));
                        if now != then { kept.push($key); }
                        self.$field.clone()
                    },)*
                };
                (renewed, kept)
            }

            /// Reads the variables that `get` knows.
            ///
            /// # Errors
            /// Which variable holds no such value, and why.
            pub(crate) fn from_variables(
                get: impl Fn(&str) -> Option<String>,
            ) -> Result<Self, (&'static str, String)> {
                let mut layer = Self::default();
                $(if let Some(text) = get($variable) {
                    let value = text.parse::<<$type as Variable>::Word>();
                    let value = value.map_err(|why| ($variable, why.to_string()))?;
                    layer.$field = Some(value.into());
                })*
                Ok(layer)
            }
        }
    };
}

settings! {
    /// Policy to judge events by.
    policy: PathBuf = "watch.policy", "SANDTRACE_POLICY", None, Again;
    /// Trail of one sandbox.
    trail: PathBuf = "watch.trail", "SANDTRACE_TRAIL", Some("./trace.jsonl"), Restart;
    /// Directory of the trails of all sandboxes.
    trail_dir: PathBuf = "watch.trail_dir", "SANDTRACE_TRAIL_DIR", Some("./trails"), Restart;
    /// Resolvers whose answers count, beside the policy's.
    resolvers: Vec<IpAddr> = "watch.resolvers", "SANDTRACE_RESOLVERS", None, Again;
    /// Time between two looks at a disk.
    scan_interval: Duration = "watch.scan_interval", "SANDTRACE_SCAN_INTERVAL", Some("2s"), Restart;
    /// Whether new content of files is searched for what looks like secrets.
    scan_secrets: bool = "watch.scan_secrets", "SANDTRACE_SCAN_SECRETS", Some("false"), Restart;
    /// How frames are captured.
    capture: CaptureMode = "watch.capture", "SANDTRACE_CAPTURE", Some("auto"), Restart;
    /// A silence of the sandbox that ends a call; zero for none.
    call_pause: Duration = "watch.call_pause", "SANDTRACE_CALL_PAUSE", Some("0s"), Restart;
    /// How a VMM's system calls are seen.
    syscalls: SyscallMode = "watch.syscalls", "SANDTRACE_SYSCALLS", Some("auto"), Restart;
    /// Time between two counts of system calls.
    syscall_interval: Duration = "watch.syscall_interval", "SANDTRACE_SYSCALL_INTERVAL", Some("5s"), Restart;
    /// Time between two questions whether a sandbox is paused; zero for never.
    state_interval: Duration = "watch.state_interval", "SANDTRACE_STATE_INTERVAL", Some("10s"), Restart;
    /// Most sandboxes at the same time.
    max_sandboxes: NonZeroUsize = "watch.max_sandboxes", "SANDTRACE_MAX_SANDBOXES", Some("1024"), Again;
    /// Directory of this host's key.
    state_dir: PathBuf = "watch.state_dir", "SANDTRACE_STATE_DIR", None, Restart;
    /// Who is asked to cosign the checkpoints of trails.
    witnesses: Vec<WitnessTarget> = "watch.witness", "SANDTRACE_WITNESS", None, Restart;
    /// How large one file of a trail gets.
    segment_size: Size = "watch.segment_size", "SANDTRACE_SEGMENT_SIZE", Some("1G"), Restart;
    /// How old it gets.
    segment_age: Duration = "watch.segment_age", "SANDTRACE_SEGMENT_AGE", None, Restart;
    /// Directory for frames as they were.
    evidence_pcap: PathBuf = "watch.evidence_pcap", "SANDTRACE_EVIDENCE_PCAP", None, Restart;
    /// How large one file of them gets.
    max_size: Size = "watch.max_size", "SANDTRACE_MAX_SIZE", Some("256M"), Restart;
    /// Providers that are looked for.
    providers: Vec<ProviderKind> = "providers.kinds", "SANDTRACE_PROVIDERS", None, Again;
    /// Docker's API.
    docker_socket: PathBuf = "providers.docker_socket", "SANDTRACE_DOCKER_SOCKET", Some("/var/run/docker.sock"), Again;
    /// Where events go.
    outputs: Vec<Target> = "output.targets", "SANDTRACE_OUTPUT", None, Restart;
    /// Only these event types.
    filter_type: Vec<EventType> = "output.filter_type", "SANDTRACE_FILTER_TYPE", None, Restart;
    /// Only these evidence tiers.
    filter_tier: Vec<EvidenceTier> = "output.filter_tier", "SANDTRACE_FILTER_TIER", None, Restart;
    /// Only these verdicts.
    filter_verdict: Vec<VerdictResult> = "output.filter_verdict", "SANDTRACE_FILTER_VERDICT", None, Restart;
}

/// What a setting comes to where a layer may leave it out: its default may be
/// written out as well.
fn effect<T: Variable + Clone>(value: Option<&T>, default: Option<&str>) -> Option<T> {
    let default = || default?.parse::<T::Word>().ok().map(Into::into);
    value
        .cloned()
        .or_else(default)
        .filter(|it| !it.is_nothing())
}

/// How a setting is written as one word.
pub(super) trait Variable: Sized {
    /// What parses the word.
    type Word: std::str::FromStr<Err: std::fmt::Display> + Into<Self>;

    /// Whether it says no more than if it was left out.
    fn is_nothing(&self) -> bool {
        false
    }
}

impl Variable for PathBuf {
    type Word = Self;
}

impl Variable for bool {
    type Word = Self;
}

impl Variable for NonZeroUsize {
    type Word = Self;
}

impl Variable for Size {
    type Word = Self;
}

impl Variable for CaptureMode {
    type Word = Word<Self>;
}

impl Variable for SyscallMode {
    type Word = Word<Self>;
}

impl Variable for Duration {
    type Word = Span;
}

impl<T: std::str::FromStr<Err: std::fmt::Display>> Variable for Vec<T> {
    type Word = List<T>;

    fn is_nothing(&self) -> bool {
        self.is_empty()
    }
}
