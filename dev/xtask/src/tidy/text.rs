//! Rules for every text file.

use super::Finding;
use super::source::has_word;
use std::path::Path;

/// Notes to oneself. Spelled in two parts, for this file is checked too.
const NOTES: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
];
/// Beginnings of paths that exist on one person's machine only.
const PERSONAL: &[&str] = &[
    concat!("/Us", "ers/"),
    concat!("/ro", "ot/.cargo"),
    concat!("/ro", "ot/.rustup"),
];
/// The agent's home inside a sandbox, which manifests and tests name.
const AGENTS: &str = concat!("/ho", "me/agent");

/// Paths of the machine that this runs on: the checkout and the home
/// directory, unless they are so short that other things may be called the same.
pub(super) struct Strangers(Vec<String>);

impl Strangers {
    /// Of the checkout and the home directory.
    pub(super) fn of(root: &Path, home: Option<&Path>) -> Self {
        let telling = |path: &&Path| path.components().count() > 2;
        let paths = [Some(root), home].into_iter().flatten().filter(telling);
        Self(paths.map(|path| format!("{}/", path.display())).collect())
    }
}

/// Checks one file line by line.
pub(super) fn check(path: &Path, content: &str, strangers: &Strangers) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, text) in content.lines().enumerate() {
        let mut find = |what: String| {
            findings.push(Finding {
                place: path.display().to_string(),
                line: at + 1,
                what,
            });
        };
        if let Some(note) = NOTES.iter().find(|note| has_word(text, note)) {
            find(format!("{note}: do it, or file an issue"));
        }
        if let Some(begin) = machine_path(text, strangers) {
            find(format!("a path of one machine: {begin}…"));
        }
    }
    findings
}

fn machine_path<'a>(text: &str, strangers: &'a Strangers) -> Option<&'a str> {
    let own = strangers.0.iter().map(String::as_str);
    PERSONAL.iter().copied().chain(own).find(|begin| {
        text.match_indices(begin).any(|(at, _)| {
            let before = text.get(..at).and_then(|text| text.chars().next_back());
            let inside = before.is_some_and(|c| c.is_alphanumeric() || "_-.>})*]".contains(c));
            let agents = text.get(at..).is_some_and(|text| text.starts_with(AGENTS));
            !inside && !agents
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_line(text: &str, expected: usize) {
        let strangers = Strangers::of(
            Path::new("/srv/checkout/sandtrace"),
            Some(Path::new(concat!("/ho", "me/alice"))),
        );
        let found = check(Path::new("a.md"), text, &strangers);
        assert_eq!(found.len(), expected, "{text}: {found:?}");
    }

    #[test]
    fn notes_to_oneself() {
        check_line(concat!("// TO", "DO: later"), 1);
        check_line(concat!("FIX", "ME"), 1);
        check_line(concat!("sha256:XX", "XX"), 0);
        check_line(concat!("to", "do"), 0);
    }

    #[test]
    fn paths_of_one_machine() {
        check_line(concat!("see /ho", "me/alice/x"), 1);
        check_line(concat!("see /ho", "me/bob/x"), 0);
        check_line(concat!("paths: [/ho", "me/agent/**]"), 0);
        check_line(concat!("\"/Us", "ers/bob\""), 1);
        check_line("/srv/checkout/sandtrace/target", 1);
        check_line("/srv/checkout/other", 0);
        check_line("{upper}/srv/checkout/sandtrace/", 0);
        check_line("/proc/PID/root/run", 0);
    }
}
