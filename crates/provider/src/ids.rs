//! Ids that may become part of a file name.

/// Longest id of a sandbox or an agent.
const MAX_ID: usize = 128;

/// Whether `id` may name a sandbox: 1 to 128 of `A-Z a-z 0-9 . _ -`, and
/// neither `.` nor `..`.
#[must_use]
pub fn is_valid_id(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=MAX_ID).contains(&id.len()) && id.bytes().all(allowed) && !matches!(id, "." | "..")
}

/// Whether `id` may name an agent: 1 to 128 printable ASCII characters
/// without spaces. It is never part of a file name.
pub(crate) fn is_valid_agent_id(id: &str) -> bool {
    (1..=MAX_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(id: &str, sandbox: bool, agent: bool) {
        assert_eq!(is_valid_id(id), sandbox, "{id:?}");
        assert_eq!(is_valid_agent_id(id), agent, "{id:?}");
    }

    #[test]
    fn ids() {
        check("vm-001", true, true);
        check("i0abc.def_G", true, true);
        check(&"x".repeat(128), true, true);
        check(&"x".repeat(129), false, false);
        check("", false, false);
        check(".", false, true);
        check("..", false, true);
        check("...", true, true);
        check("../etc", false, true);
        check("agent:a@b", false, true);
        check("two words", false, false);
        check("new\nline", false, false);
        check("esc\u{1b}", false, false);
        check("caf\u{e9}", false, false);
    }
}
