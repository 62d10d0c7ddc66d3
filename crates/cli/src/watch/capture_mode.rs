//! How frames are to be captured, as the user says it.

use sandtrace_capture::network::Backend;

/// How a sandbox's frames are captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum CaptureMode {
    /// A packet ring for one sandbox; eBPF for many, where it works
    #[default]
    Auto,
    /// A packet ring with every frame, or no watch
    AfPacket,
    /// eBPF programs that count, which costs the sandbox less, or no watch
    Ebpf,
}

impl From<CaptureMode> for Backend {
    fn from(mode: CaptureMode) -> Self {
        match mode {
            CaptureMode::Auto => Self::Auto,
            CaptureMode::AfPacket => Self::AfPacket,
            CaptureMode::Ebpf => Self::Ebpf,
        }
    }
}
