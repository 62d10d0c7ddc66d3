//! Rust source with comments, strings and characters blanked out.

/// The same text with everything that is not code replaced by spaces; lines
/// and byte positions stay as they are.
pub(super) fn code_only(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let skipped = match not_code(rest, code.chars().next_back()) {
            0 => {
                code.push(first);
                first.len_utf8()
            }
            length => {
                let (blank, _) = rest.split_at_checked(length).unwrap_or((rest, ""));
                for character in blank.chars() {
                    let width = character.len_utf8();
                    code.extend(std::iter::repeat_n(
                        if character == '\n' { '\n' } else { ' ' },
                        width,
                    ));
                }
                length
            }
        };
        rest = rest.get(skipped..).unwrap_or_default();
    }
    code
}

/// Bytes of the comment, string or character at the beginning of `rest`; 0
/// where code begins there.
fn not_code(rest: &str, before: Option<char>) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment(rest);
    }
    if rest.starts_with('"') {
        return quoted(rest, '"');
    }
    if rest.starts_with('\'') {
        return character(rest);
    }
    let in_a_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if rest.starts_with('r') && !in_a_word || rest.starts_with('r') && before == Some('b') {
        return raw_string(rest);
    }
    0
}

/// Block comments nest.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(here) = rest.get(at..).filter(|here| !here.is_empty()) {
        let step = if here.starts_with("/*") {
            depth += 1;
            2
        } else if here.starts_with("*/") {
            depth -= 1;
            2
        } else {
            here.chars().next().map_or(1, char::len_utf8)
        };
        at += step;
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in rest.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            end if end == quote => return at + end.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

/// `'x'` and `'\n'` are characters, `'a` is a lifetime.
fn character(rest: &str) -> usize {
    let mut characters = rest.chars().skip(1);
    match (characters.next(), characters.next()) {
        (Some('\\'), _) => quoted(rest, '\''),
        (Some(one), Some('\'')) => 2 + one.len_utf8(),
        _ => 0,
    }
}

/// `r"…"`, `r#"…"#`, …; an identifier such as `r#type` is code.
fn raw_string(rest: &str) -> usize {
    let marks = rest.chars().skip(1).take_while(|c| *c == '#').count();
    let Some(body) = rest
        .get(1 + marks..)
        .and_then(|body| body.strip_prefix('"'))
    else {
        return 0;
    };
    let end = format!("\"{}", "#".repeat(marks));
    let begin = rest.len() - body.len();
    body.find(&end)
        .map_or(rest.len(), |at| begin + at + end.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, expected: &str) {
        assert_eq!(code_only(source), expected);
    }

    #[test]
    fn what_is_not_code_is_blank() {
        check("a // b\nc", "a     \nc");
        check("a /* b /* c */ d */ e", "a                   e");
        check(r#"f("a \" b", 'c', '\'')"#, "f(        ,    ,     )");
        check(r###"r#"a " b"# + x"###, &format!("{:10} + x", ""));
        check("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}");
        check("r#type", "r#type");
        check("var\"x\"", "var   ");
        check("\"ü\nü\"", "   \n   ");
    }
}
