//! A record of a sandbox that fits into a line of the trail, whatever its VMM
//! says of itself.

use sandtrace_event::{Coverage, Layer, SandboxAttached};
use serde::Serialize;

/// Bytes of JSON for what cannot be seen, of the 65,535 of a record.
const COVERAGE: usize = 16 << 10;
/// The same for disks, for interfaces, and for labels.
const DISKS: usize = 14 << 10;
const TAPS: usize = 14 << 10;
const LABELS: usize = 8 << 10;
/// For what had crossed interfaces before.
const PASSED: usize = 4 << 10;

/// Leaves out what is too much, and says of each list how much that was.
pub(crate) fn fit(attached: &mut SandboxAttached) {
    let disks = cut(&mut attached.disks, DISKS);
    let taps = cut(&mut attached.taps, TAPS);
    let passed = cut(&mut attached.passed_before, PASSED);
    let coverage = cut(&mut attached.coverage, COVERAGE);
    let mut labels: Vec<_> = std::mem::take(&mut attached.labels).into_iter().collect();
    let left_out = cut(&mut labels, LABELS);
    attached.labels = labels.into_iter().collect();
    let mut say = |layer, count, what: &str| {
        if count > 0 {
            let missing = format!("{count} {what}: the record would be too long");
            attached.coverage.push(Coverage { layer, missing });
        }
    };
    say(Layer::Filesystem, disks, "more disks are not listed here");
    say(Layer::Network, taps, "more interfaces are not listed here");
    let what = "more interfaces that frames had crossed before are not listed here";
    say(Layer::Network, passed, what);
    say(Layer::Network, left_out, "more labels are not listed here");
    let what = "more things that cannot be seen are not listed here";
    say(Layer::Network, coverage, what);
}

/// Keeps the first of a list that take at most `bytes`. Answers how many it
/// does not keep.
fn cut<T: Serialize>(list: &mut Vec<T>, bytes: usize) -> usize {
    let mut left = bytes;
    let fits = |item: &&T| {
        // What cannot be written here cannot be written there.
        let length = serde_json::to_vec(item).map_or(usize::MAX, |json| json.len());
        let after = left.checked_sub(length.saturating_add(1));
        left = after.unwrap_or(0);
        after.is_some()
    };
    let kept = list.iter().take_while(fits).count();
    let count = list.len() - kept;
    list.truncate(kept);
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandtrace_event::{Count, DiskIdentity, Passed, TapIdentity};

    fn attached(lines: u32) -> SandboxAttached {
        let line = |number| Coverage {
            layer: Layer::Network,
            missing: format!(
                "interface \"{}{number}\" is configured",
                "\\u{0}".repeat(250)
            ),
        };
        let tap = |index| TapIdentity {
            index,
            interface: "tap0".to_owned(),
            netns: Some("n".repeat(255)),
        };
        let disk = |number| DiskIdentity {
            device: "8:1".to_owned(),
            inode: Count(number),
            path: "\u{1}".repeat(4096),
            kind: "ext4".to_owned(),
        };
        SandboxAttached {
            agent_id: None,
            coverage: (0..lines).map(line).collect(),
            disks: (0..u64::from(lines)).map(disk).collect(),
            labels: (0..lines)
                .map(|number| (number.to_string(), "l".repeat(256)))
                .collect(),
            passed_before: (0..lines).map(|_| passed()).collect(),
            provider: "firecracker".to_owned(),
            taps: (0..lines).map(tap).collect(),
            template: None,
            vmm: None,
        }
    }

    fn passed() -> Passed {
        let most = Count(u64::MAX);
        Passed {
            bytes_received: most,
            bytes_sent: most,
            interface: "tap0".to_owned(),
            own: false,
            packets_received: most,
            packets_sent: most,
        }
    }

    #[test]
    fn a_hostile_vmm_makes_no_record_too_long() {
        let mut attached = attached(256);
        fit(&mut attached);
        let json = serde_json::to_string(&attached).unwrap();
        assert!(json.len() < 60_000, "{}", json.len());
        assert!(json.contains("256 more disks"), "{json}");
        let said = attached.coverage.last().unwrap();
        let listed = attached.coverage.len() - 5;
        let rest = 256 - listed;
        assert!(listed > 5, "{listed}");
        assert!(said.missing.starts_with(&format!("{rest} more things")));
    }

    #[test]
    fn what_fits_stays_as_it_is() {
        let small = SandboxAttached {
            disks: Vec::new(),
            ..attached(3)
        };
        let mut fitted = small.clone();
        fit(&mut fitted);
        assert_eq!(fitted, small);
    }
}
