//! How many files this process may have open, against how many it may need.

use crate::show;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Of one sandbox with one interface and one disk there are six: its process,
/// its packet socket, the socket that is asked for counters, its disk, the
/// queue of the disk's events and its trail. The others are for a second disk or interface, and for an API that
/// is asked.
const EACH: u64 = 8;
/// Whatever else is open.
const BASE: u64 = 192;

/// Raises the limit as far as this process may, and says where that is not
/// enough for so many sandboxes.
pub(super) fn raise(max_sandboxes: usize) {
    let wanted = wanted(max_sandboxes);
    let now = getrlimit(Resource::Nofile);
    let raised = raised(&now, wanted);
    // Where the kernel refuses, the former limit is what there is.
    let set = raised.filter(|raised| setrlimit(Resource::Nofile, *raised).is_ok());
    let limit = set.map_or(now.current, |raised| raised.current);
    if let Some(limit) = limit.filter(|limit| *limit < wanted) {
        let enough = limit.saturating_sub(BASE) / EACH;
        show::tell(&format!(
            "  at most {limit} files may be open, enough for about {enough} sandboxes; \
             for {max_sandboxes} raise the limit to {wanted} (LimitNOFILE= of systemd, ulimit -Hn)"
        ));
    }
}

fn wanted(max_sandboxes: usize) -> u64 {
    let sandboxes = u64::try_from(max_sandboxes).unwrap_or(u64::MAX);
    sandboxes.saturating_mul(EACH).saturating_add(BASE)
}

/// The limit to set; `None` where there is no need. `None` within is no limit.
fn raised(now: &Rlimit, wanted: u64) -> Option<Rlimit> {
    if now.current.is_none_or(|current| current >= wanted) {
        return None;
    }
    let most = now.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    Some(Rlimit {
        current: Some(most),
        maximum: now.maximum,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(current: Option<u64>, maximum: Option<u64>, expected: Option<u64>) {
        let raised = raised(&Rlimit { current, maximum }, 8192);
        let limit = raised.map(|raised| raised.current.unwrap());
        assert_eq!(limit, expected, "{current:?} of {maximum:?}");
    }

    #[test]
    fn raised_as_far_as_needed_and_allowed() {
        check(Some(1024), Some(524_288), Some(8192));
        check(Some(1024), None, Some(8192));
        check(Some(1024), Some(4096), Some(4096));
        check(Some(20_000), Some(20_000), None);
        check(None, None, None);
        assert_eq!(wanted(1000), 8192);
        assert_eq!(wanted(usize::MAX), u64::MAX);
    }

    /// What the documentation says one sandbox may take.
    #[test]
    fn bounds_are_documented() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/providers.md");
        let page = std::fs::read_to_string(page).unwrap();
        let number = |number: u64| show::grouped(number);
        let flows = sandtrace_wire::FlowConfig::default();
        let count = |it: usize| number(it.try_into().unwrap());
        let (table, burst) = (count(flows.max_flows), u64::from(flows.open_burst));
        let (burst, steady) = (number(burst), number(u64::from(flows.opens_per_second)));
        let questions = number(u64::from(flows.dns_burst));
        let (ring, blocks) = (
            super::super::sandbox::RING,
            super::super::sandbox::RING.blocks,
        );
        let kept = (
            count(flows.reassembly_bytes),
            flows.reassembly_bytes_total >> 20,
        );
        for row in [
            format!(
                "| {} KiB, {} ms |",
                (ring.block_size * blocks) >> 10,
                ring.retire_ms * blocks
            ),
            format!(
                "| {table} at the same time; their records {burst} at once and {steady} a second"
            ),
            format!("| {questions} records at once and {steady} a second"),
            format!("| {} each, {} MiB for an interface |", kept.0, kept.1),
            format!(
                "| {} addresses, {} questions |",
                count(flows.max_named_addresses),
                count(flows.max_dns_pending)
            ),
        ] {
            assert!(page.contains(&row), "docs/providers.md: {row}");
        }
    }
}
