//! Path patterns: absolute, normal, `*` within a segment, `**` across.
//!
//! globset does the matching (see [`crate::index`]); here a text becomes a
//! pattern of which the meaning is clear before globset sees it.

use std::fmt;

/// Longest path that Linux takes (`PATH_MAX`, limits.h), in bytes.
const MAX_PATH: usize = 4096;

/// What else would have a meaning for globset.
const SPECIAL: [char; 7] = ['?', '[', ']', '{', '}', '\\', '*'];

/// A path pattern in the text that the manifest gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PathPattern {
    text: Box<str>,
    segments: Box<[Box<str>]>,
}

/// Why a text is not a path pattern, and what might be right.
pub(crate) type Refusal = (String, Option<String>);

impl PathPattern {
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        let refuse = |why: &str, hint: String| Err((why.to_owned(), Some(hint)));
        let Some(relative) = text.strip_prefix('/') else {
            let hint = format!("write {:?}", format!("/{text}"));
            return refuse("not an absolute path", hint);
        };
        if text.len() > MAX_PATH {
            return Err((format!("longer than {MAX_PATH} bytes"), None));
        }
        if text.contains('\u{fffd}') {
            let hint = "use `*` for what is not UTF-8".to_owned();
            return refuse("U+FFFD stands for bytes that are not UTF-8", hint);
        }
        if let Some(trimmed) = text.strip_suffix('/').filter(|trimmed| !trimmed.is_empty()) {
            let hint = format!(
                "write {trimmed:?}, or {:?} for what is below",
                format!("{text}**")
            );
            return refuse("a path pattern does not end with `/`", hint);
        }
        if !relative.is_empty() {
            relative.split('/').try_for_each(check_segment)?;
        }
        Ok(Self {
            text: text.into(),
            segments: relative.split('/').map(Into::into).collect(),
        })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// `/home/agent` for `/home/agent/**`.
    pub(crate) fn directory(&self) -> Option<&str> {
        let directory = self.text.strip_suffix("/**")?;
        Some(if directory.is_empty() { "/" } else { directory })
    }

    /// Whether every path that `other` matches is one that this matches too.
    /// May say no where the truth is yes, never the other way round.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        segments_cover(&self.segments, &other.segments)
    }
}

/// Takes the shortest run for every `**` and a longer one where the rest
/// does not fit, in time bounded by the product of both lengths.
fn segments_cover(wide: &[Box<str>], narrow: &[Box<str>]) -> bool {
    let mut retry: Option<(usize, usize)> = None;
    let (mut w, mut n) = (0, 0);
    loop {
        match (wide.get(w).map(|segment| &**segment), narrow.get(n)) {
            (None, None) => return true,
            // At the end `**` takes one segment or more.
            (Some("**"), item) if w + 1 == wide.len() => return item.is_some(),
            (Some("**"), _) => {
                w += 1;
                retry = Some((w, n));
                continue;
            }
            // To take more elsewhere leaves even less.
            (Some(_), None) => return false,
            (Some(mine), Some(theirs)) if segment_covers(mine, theirs) => {
                (w, n) = (w + 1, n + 1);
                continue;
            }
            _ => {}
        }
        match retry.as_mut() {
            Some((after, taken)) if *taken < narrow.len() => {
                *taken += 1;
                (w, n) = (*after, *taken);
            }
            _ => return false,
        }
    }
}

fn segment_covers(wide: &str, narrow: &str) -> bool {
    wide == narrow || (wide == "*" && narrow != "**")
}

fn check_segment(segment: &str) -> Result<(), Refusal> {
    let refuse = |why: &str, hint: &str| Err((why.to_owned(), Some(hint.to_owned())));
    match segment {
        "" => return refuse("an empty segment (`//`)", "write one `/`"),
        "." | ".." => {
            return refuse(
                "`.` and `..` are not allowed in a path pattern",
                "write the path as the sandbox sees it",
            );
        }
        "**" => return Ok(()),
        _ if segment.contains("**") => {
            return refuse(
                "`**` stands for whole segments",
                "write `/**/` between slashes, or `*` within a segment",
            );
        }
        _ => {}
    }
    let mut characters = segment.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' if characters
                .next()
                .is_some_and(|next| SPECIAL.contains(&next)) => {}
            '\\' => {
                return refuse(
                    "`\\` before a character that needs none",
                    "write `\\\\` for a backslash",
                );
            }
            '?' | '[' | ']' | '{' | '}' => {
                let hint = format!(
                    "only `*` and `**` are wildcards; write `\\{c}` for the character itself"
                );
                return refuse("an unknown wildcard", &hint);
            }
            _ => {}
        }
    }
    Ok(())
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether an observed path is one that a disk can have: absolute, without
/// empty segments, `.` and `..`. Names on a forged disk may hold anything.
pub(crate) fn is_normal(path: &[u8]) -> bool {
    let Some(relative) = path.strip_prefix(b"/") else {
        return false;
    };
    let fine = |segment: &[u8]| !matches!(segment, b"" | b"." | b"..") && !segment.contains(&0);
    relative.is_empty() || relative.split(|&byte| byte == b'/').all(fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clear_patterns_are_taken() {
        for text in [
            "/",
            "/**",
            "/home/agent/**",
            "/a/*/b.*",
            "/a/**/b",
            "/x/\\[id\\]/y",
            "/tmp/é",
        ] {
            assert_eq!(PathPattern::parse(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn others_are_refused_with_advice() {
        let table = [
            ("home/agent", "\"/home/agent\""),
            ("", "\"/\""),
            ("/tmp/", "\"/tmp/**\""),
            ("/tmp/../etc", "as the sandbox sees it"),
            ("/tmp/./x", "as the sandbox sees it"),
            ("/tmp//x", "one `/`"),
            ("/tmp/a**", "between slashes"),
            ("/tmp/{a,b}", "\\{"),
            ("/tmp/[ab]", "\\["),
            ("/tmp/a?", "\\?"),
            ("/tmp/\\a", "backslash"),
            ("/tmp/\u{fffd}", "not UTF-8"),
        ];
        for (text, advice) in table {
            let (_, suggestion) = PathPattern::parse(text).unwrap_err();
            assert!(suggestion.unwrap().contains(advice), "{text}");
        }
    }

    #[test]
    fn covering_knows_the_simple_cases() {
        let table = [
            ("/home/**", "/home/agent/**", true),
            ("/home/**", "/home", false),
            ("/home/**", "/home/x", true),
            ("/home/agent/**", "/home/**", false),
            ("/a/**/z", "/a/z", true),
            ("/a/**/z", "/a/b/c/z", true),
            ("/a/*", "/a/*.txt", true),
            ("/a/*", "/a/**", false),
            ("/a/*.txt", "/a/*", false),
            ("/**", "/x", true),
        ];
        for (wide, narrow, expected) in table {
            let [wide, narrow] = [wide, narrow].map(|text| PathPattern::parse(text).unwrap());
            assert_eq!(wide.covers(&narrow), expected, "{wide} {narrow}");
        }
    }

    #[test]
    fn only_normal_paths_are_normal() {
        for path in ["/", "/a", "/a/b", "/a/...", "/a/ "] {
            assert!(is_normal(path.as_bytes()), "{path}");
        }
        for path in ["", "a", "/a/", "//", "/a/../b", "/..", "/./a", "/a\0"] {
            assert!(!is_normal(path.as_bytes()), "{path:?}");
        }
    }
}
