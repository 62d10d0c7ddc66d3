//! Rules for Rust files.

use super::Finding;
use super::lexer::code_only;
use std::path::Path;

/// A file with more lines than this is split into modules of one concern.
const MAX_LINES: usize = 600;

/// Checks one Rust file.
pub(super) fn check(path: &Path, source: &str) -> Vec<Finding> {
    let place = path.display().to_string();
    let code = code_only(source);
    let mut findings = Vec::new();
    if !source.trim_start().starts_with("//!") {
        findings.push(Finding::of(
            &place,
            "must begin with a //! line that says what it is",
        ));
    }
    let lines = source.lines().count();
    if lines > MAX_LINES {
        findings.push(Finding::of(
            &place,
            format!("{lines} lines; split it below {MAX_LINES}"),
        ));
    }
    if !path.starts_with("crates/sys") {
        for (line, _) in code_lines(&code).filter(|(_, text)| has_word(text, "unsafe")) {
            findings.push(Finding {
                place: place.clone(),
                line,
                what: "unsafe code belongs in crates/sys".to_owned(),
            });
        }
    }
    for line in unreasoned_allows(&code) {
        findings.push(Finding {
            place: place.clone(),
            line,
            what: "use #[expect(…, reason = \"…\")], or give the allow a reason".to_owned(),
        });
    }
    findings
}

fn code_lines(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.lines().enumerate().map(|(at, text)| (at + 1, text))
}

/// Whether `word` stands in `text` on its own.
pub(super) fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
        .any(|candidate| candidate == word)
}

/// Lines of `#[allow(…)]`, `#![allow(…)]` and `cfg_attr(…, allow(…))`
/// attributes in which no reason is given.
fn unreasoned_allows(code: &str) -> Vec<usize> {
    code.match_indices('#')
        .filter_map(|(at, _)| {
            let rest = code.get(at + 1..)?;
            let attribute = rest.strip_prefix('!').unwrap_or(rest).strip_prefix('[')?;
            let attribute = until_closed(attribute);
            let allows = attribute.starts_with("allow(")
                || attribute.starts_with("cfg_attr") && has_word(attribute, "allow");
            let line = 1 + code.get(..at)?.matches('\n').count();
            (allows && !has_word(attribute, "reason")).then_some(line)
        })
        .collect()
}

/// The text up to the bracket that closes what was opened before it.
fn until_closed(text: &str) -> &str {
    let mut depth = 1_usize;
    for (at, character) in text.char_indices() {
        match character {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return text.get(..at).unwrap_or(text);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_source(path: &str, source: &str, expected: &[(usize, &str)]) {
        let found = check(Path::new(path), source);
        let found: Vec<_> = found.iter().map(|f| (f.line, f.what.as_str())).collect();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for ((line, what), (expected_line, expected_what)) in found.iter().zip(expected) {
            assert_eq!(line, expected_line);
            assert!(what.contains(expected_what), "{what}");
        }
    }

    #[test]
    fn module_docs() {
        check_source("a.rs", "//! Fine.\n", &[]);
        check_source("a.rs", "// Not a doc.\n", &[(0, "must begin")]);
        check_source("a.rs", "", &[(0, "must begin")]);
    }

    #[test]
    fn unsafe_code() {
        let source = "//! x\nfn f() { unsafe { g() } }\n";
        check_source("crates/wire/src/a.rs", source, &[(2, "unsafe code")]);
        check_source("crates/sys/src/a.rs", source, &[]);
        check_source(
            "a.rs",
            "//! unsafe\n#![forbid(unsafe_code)]\nconst A: &str = \"unsafe\";\n",
            &[],
        );
    }

    #[test]
    fn allows_without_a_reason() {
        check_source(
            "a.rs",
            "//! x\n#[allow(dead_code)]\nfn f() {}\n",
            &[(2, "reason")],
        );
        check_source(
            "a.rs",
            "//! x\n\n#![allow(\n  x::y,\n)]\n",
            &[(3, "reason")],
        );
        check_source(
            "a.rs",
            "//! x\n#[cfg_attr(test, allow(dead_code))]\nfn f() {}\n",
            &[(2, "reason")],
        );
        check_source(
            "a.rs",
            "//! x\n#[expect(dead_code, reason = \"y\")]\n#[allow(x, reason = \"y\")]\nfn f() {}\n",
            &[],
        );
    }

    #[test]
    fn long_files() {
        let source = format!("//! x\n{}", "\n".repeat(MAX_LINES));
        check_source("a.rs", &source, &[(0, "split it")]);
    }
}
