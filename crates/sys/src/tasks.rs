//! Threads and children of processes, as `/proc` shows them now (proc(5)).

use std::collections::BTreeMap;
use std::fs;

/// Whether any thread of a process has not ended.
#[must_use]
pub fn lives(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    let mut threads = threads.into_iter().flatten().flatten();
    threads.any(|thread| {
        let stat = fs::read(thread.path().join("stat")).unwrap_or_default();
        matches!(state_and_parent(&stat), Some((state, _)) if !matches!(state, b'Z' | b'X'))
    })
}

/// Processes that live, by the one that started them.
#[must_use]
pub fn by_parent() -> BTreeMap<u32, Vec<u32>> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let stat = fs::read(entry.path().join("stat")).unwrap_or_default();
        if let Some((_, parent)) = state_and_parent(&stat) {
            children.entry(parent).or_default().push(pid);
        }
    }
    children
}

/// Fields 3 and 4: behind the name in brackets, which may hold anything.
fn state_and_parent(stat: &[u8]) -> Option<(u8, u32)> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.bytes().next()?;
    Some((state, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_and_parent_stand_behind_any_name() {
        assert_eq!(state_and_parent(b"7 (a) R 1) S 42 7"), Some((b'S', 42)));
        assert_eq!(state_and_parent(b"7 (a"), None);
        assert_eq!(state_and_parent(b"7 (a) S"), None);
    }

    #[test]
    fn this_process_lives_and_a_zombie_does_not() {
        assert!(lives(std::process::id()));
        assert!(!lives(0));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        while lives(child.id()) {
            std::thread::yield_now();
        }
        assert!(by_parent()[&std::process::id()].contains(&child.id()));
        child.wait().unwrap();
    }
}
