//! What a fuzz target calls: the reader of capture files, and all behind it.

#![expect(clippy::panic, reason = "a fuzz target tells by a panic what it found")]

use super::pcapng::PcapNgWriter;
use super::{Progress, Replay, ReplayConfig, Search, first_moment};
use crate::Observer;
use sandtrace_event::{EvidenceTier, Flow, Limits, Observation, Payload};
use sandtrace_wire::FlowConfig;

/// Keeps the last flow.
#[derive(Default)]
struct Last(Option<Flow>);

impl Observer for Last {
    fn observe(&mut self, observation: Observation) -> Limits {
        if let Payload::NetworkEgress(flow) = observation.payload {
            self.0 = Some(flow);
        }
        Limits::default()
    }
}

/// A capture file, replayed, and one conversation taken out of it.
pub fn capture_file(bytes: &[u8]) {
    let _moment = first_moment(bytes);
    let config = ReplayConfig {
        name: "fuzz".to_owned(),
        flows: FlowConfig::default(),
        tier: EvidenceTier::Hypervisor,
    };
    let Ok(mut replay) = Replay::open(bytes, config) else {
        return;
    };
    let mut observer = Last::default();
    let failed = loop {
        match replay.read(64, &mut observer) {
            Ok(Progress::More) => {}
            Ok(Progress::End) => break None,
            Err(error) => break Some(error),
        }
    };
    let totals = replay.finish(failed.as_ref(), &mut observer);
    // A frame has a header of 16 bytes in a file, and more in the other format.
    let frames = totals.sent.packets + totals.received.packets;
    if usize::try_from(frames).is_ok_and(|frames| frames > bytes.len() / 8) {
        panic!("more frames than bytes for them");
    }
    let (Some(flow), Ok(mut out)) = (observer.0, PcapNgWriter::new(Vec::new(), "fuzz")) else {
        return;
    };
    let mut search = Search::new(&flow, false);
    let _read_as_before = search.look(bytes);
    if let Some(mut selection) = search.end()
        && selection
            .copy(bytes, &mut out)
            .is_ok_and(|copied| copied == 0 || copied > frames)
    {
        panic!("another number of frames than the file has of it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn begins() -> Vec<Vec<u8>> {
        let Some(folder) = crate::published::corpus("no_file_breaks_the_reader", "ja4/pcap") else {
            return Vec::new();
        };
        let paths = crate::published::files(&folder);
        let begin = |path: &_| {
            let mut bytes = std::fs::read(path).unwrap();
            bytes.truncate(20_000);
            bytes
        };
        paths.iter().map(begin).collect()
    }

    proptest! {
        #[test]
        fn no_file_breaks_the_reader(
            bytes: Vec<u8>,
            changes in prop::collection::vec((0_usize..20_000, any::<u8>()), 0..12),
            file in 0_usize..64,
        ) {
            capture_file(&bytes);
            let files = begins();
            let Some(mut bytes) = files.get(file % files.len().max(1)).cloned() else {
                return Ok(());
            };
            for (place, value) in changes {
                // Half of them where the blocks' own lengths are.
                let place = if value % 2 == 0 { place % 256 } else { place };
                if let Some(byte) = bytes.get_mut(place) {
                    *byte = value;
                }
            }
            capture_file(&bytes);
        }
    }
}
