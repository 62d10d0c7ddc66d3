//! `--event-monitor path=FILE`: JSON objects, one behind the other, of what
//! happens to the VM (event_monitor/src/lib.rs of Cloud Hypervisor).

use sandtrace_sys::process::Process;
use serde::Deserialize;
use std::path::Path;

/// Longest file that is read: a pause and what follows it take 400 bytes.
const MAX_EVENTS: u64 = 1 << 20;

#[derive(Deserialize)]
struct Event {
    source: String,
    event: String,
}

/// Whether the VM is paused by what the last event of the kind says; `None`
/// where there is none, or the file is a pipe, which is somebody else's to read.
pub(super) fn is_paused(process: &Process, file: &Path) -> Option<bool> {
    last_state(&process.read_file(file, MAX_EVENTS).ok()?)
}

fn last_state(events: &[u8]) -> Option<bool> {
    // What is being written ends the list.
    let events = serde_json::Deserializer::from_slice(events).into_iter::<Event>();
    let states = events.map_while(Result::ok).filter_map(|event| {
        match (event.source.as_str(), event.event.as_str()) {
            ("vm", "paused") => Some(true),
            ("vm", "booted" | "resumed" | "restored" | "rebooted") => Some(false),
            _ => None,
        }
    });
    states.last()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_on_the_vm() {
        let event = |source: &str, event: &str| {
            format!(
                "{{\n  \"timestamp\": {{\n    \"secs\": 0,\n    \"nanos\": 7\n  }},\n  \
                 \"source\": \"{source}\",\n  \"event\": \"{event}\",\n  \"properties\": null\n}}\n\n"
            )
        };
        let booted = event("vmm", "starting") + &event("vm", "booting") + &event("vm", "booted");
        let state = |text: &str| last_state(text.as_bytes());
        assert_eq!(state(""), None);
        assert_eq!(state(&event("vmm", "starting")), None);
        assert_eq!(state(&booted), Some(false));
        let pausing = booted + &event("vm", "pausing");
        assert_eq!(state(&pausing), Some(false));
        let paused = pausing + &event("vm", "paused") + &event("virtio-device", "paused");
        assert_eq!(state(&paused), Some(true));
        assert_eq!(
            state(&format!("{paused}{{\"source\": \"vm\", \"ev")),
            Some(true)
        );
        assert_eq!(state(&(paused + &event("vm", "resumed"))), Some(false));
    }
}
