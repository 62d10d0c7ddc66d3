//! What among a program's arguments may be a secret, and is not told: from the
//! first sign of one to the end of its argument, so that neither quotes nor
//! spaces nor commas in a value let a part of it pass. Rather too much is hidden
//! than too little: what a program does shows in its calls as well.

use crate::filesystem::secrets;

/// What stands for what is not told.
const HIDDEN: &str = "***";

/// Parts of names, in lower case, wherever they stand. The longer first where
/// one begins with another.
const PARTS: [&str; 18] = [
    "token",
    "secret",
    "password",
    "passwd",
    "passw",
    // As scripts for expect spell it.
    "assword",
    "passphrase",
    "passcode",
    "pwd",
    "apikey",
    "credential",
    "authorization",
    "bearer",
    "cookie",
    "session",
    "signature",
    "jwt",
    "hmac",
];

/// The same, where no letter follows: `bypass` is one, `passt` is none.
const ENDS: [&str; 9] = [
    "key", "pass", "auth", "pw", "psk", "cred", "creds", "sig", "otp",
];

/// In lists a value may stand before its name.
const VALUES: [&str; 3] = ["data=", "value=", "{"];

/// What a script hands to the next program of a pipe.
const SAYS: [&str; 2] = ["echo ", "printf "];

/// Options that set a variable.
const SETS_VARIABLE: [&str; 3] = ["-e", "--env", "--environment"];

/// Digits of the longest number that is taken for a port, not for a password.
const PORT: usize = 5;

/// Arguments without what nobody is to read. Each comes with whether it was cut.
pub(super) fn hide(words: impl Iterator<Item = (String, bool)>) -> Vec<String> {
    let mut before = Says::Nothing;
    let hidden = words.map(|(word, cut)| {
        let said = std::mem::replace(&mut before, Says::by(&word));
        match said {
            Says::Secret => HIDDEN.to_owned(),
            Says::Password if !is_port(&word) => HIDDEN.to_owned(),
            _ if secrets::are_in(word.as_bytes()) => HIDDEN.to_owned(),
            Says::Pair => told(&word, cut, after_pair(&word)),
            Says::Variable => told(&word, cut, after(&word, '=')),
            Says::Password | Says::Nothing => told(&word, cut, None),
        }
    });
    hidden.collect()
}

/// What an argument says of the one after it.
#[derive(Clone, Copy)]
enum Says {
    Nothing,
    /// `NAME=value`.
    Variable,
    /// `user:password`.
    Pair,
    /// A password, or a port.
    Password,
    Secret,
}

impl Says {
    fn by(word: &str) -> Self {
        if SETS_VARIABLE.contains(&word) {
            return Self::Variable;
        }
        if ends_with_name(word) {
            return Self::Secret;
        }
        if matches!(word, "-p" | "-P") {
            return Self::Password;
        }
        match options(word).next() {
            Some((0, name)) if sets_pair(name) && name.len() == word.len() => Self::Pair,
            _ => Self::Nothing,
        }
    }
}

/// Whether an argument ends with a name whose value is the next: `--token`,
/// `Authorization:`. A path is none.
fn ends_with_name(word: &str) -> bool {
    let is_path = word.starts_with('/') && !word.contains(':');
    let in_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let word = word.trim_end_matches(['=', ':']);
    let name = word.get(word.trim_end_matches(in_name).len()..);
    !is_path && name.is_some_and(|name| first_word(name).is_some())
}

/// An argument up to the first sign of a secret; `known` is one that is known of.
fn told(word: &str, is_cut: bool, known: Option<usize>) -> String {
    let signs = [
        known,
        before_word(word),
        after_word(word),
        after_variable(word),
        after_option(word),
        after_feed(word),
    ];
    let end = signs.into_iter().flatten().min().unwrap_or(word.len());
    let (begin, at) = place(word, is_cut).unwrap_or((word.len(), word.len()));
    let first = end.min(begin);
    let mut said = word.get(..first).unwrap_or_default().to_owned();
    if first < word.len() {
        said.push_str(HIDDEN);
    }
    // What follows the place of `https://user:password@place`.
    if at < end {
        said.push_str(word.get(at..end).unwrap_or_default());
        said.push_str(if end < word.len() { HIDDEN } else { "" });
    }
    said
}

/// From after the first colon to the last `@`: user and password of a place. One
/// that was cut may have had its `@` later.
fn place(word: &str, is_cut: bool) -> Option<(usize, usize)> {
    let begin = after(word, ':')?;
    let end = if is_cut { word.len() } else { word.rfind('@')? };
    (begin < end).then_some((begin, end))
}

/// The end of the first word that stands for a secret, with the sign that a value
/// follows.
fn after_word(word: &str) -> Option<usize> {
    let (_, end) = first_word(word)?;
    let rest = word.get(end..)?;
    Some(end + usize::from(rest.starts_with(['=', ':'])))
}

/// Where a value may stand before the word that tells what it is.
fn before_word(word: &str) -> Option<usize> {
    let (begin, _) = first_word(word)?;
    let before = word.get(..begin)?;
    let ends = VALUES.iter().filter_map(|value| {
        let at = before.find(value)?;
        Some(at + value.len())
    });
    ends.min()
}

fn first_word(word: &str) -> Option<(usize, usize)> {
    let lower = word.to_ascii_lowercase();
    let parts = PARTS.iter().filter_map(|part| {
        let at = lower.find(part)?;
        Some((at, at + part.len()))
    });
    let ends = ENDS.iter().filter_map(|name| {
        let mut found = lower.match_indices(name).map(|(at, _)| at);
        let is_letter = |at: usize| {
            lower
                .as_bytes()
                .get(at)
                .is_some_and(u8::is_ascii_alphabetic)
        };
        let is_plural = |end: usize| lower.as_bytes().get(end) == Some(&b's');
        let goes_on = |end: usize| is_letter(end + usize::from(is_plural(end)));
        let at = found.find(|at| !goes_on(at + name.len()))?;
        Some((at, at + name.len()))
    });
    // Of two at one place the longer, which is the word that was meant.
    let (begin, end) = parts
        .chain(ends)
        .min_by_key(|(at, end)| (*at, usize::MAX - end))?;
    let is_plural = lower.get(end..)?.starts_with('s');
    Some((begin, end + usize::from(is_plural)))
}

/// As shells and orchestrators write variables of an environment: `NAME=`.
fn after_variable(word: &str) -> Option<usize> {
    let in_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let equals = word.match_indices('=').map(|(at, _)| at);
    let mut named = equals.filter(|at| {
        let before = word.get(..*at).unwrap_or_default();
        let name = before.trim_end_matches(in_name).len();
        let name = before.get(name..).unwrap_or_default();
        name.contains(|c: char| c.is_ascii_uppercase())
    });
    named.next().map(|at| at + 1)
}

/// What a script feeds a program with: `echo … |`, `<<< …`.
fn after_feed(word: &str) -> Option<usize> {
    let said = SAYS.iter().filter_map(|says| {
        let end = word.find(says)? + says.len();
        word.get(end..)?.contains('|').then_some(end)
    });
    let fed = word.find("<<").map(|at| at + 2);
    said.chain(fed).min()
}

/// Passwords of options, also amid a script: `-u user:…`, `-p…`, `--env=name=…`.
fn after_option(word: &str) -> Option<usize> {
    let ends = options(word).flat_map(|(at, name)| {
        let from = word.get(at..).unwrap_or_default();
        let in_pair = || sets_pair(name).then(|| after_pair(from)).flatten();
        let ends = [
            in_pair(),
            after_password(from, at == 0),
            after_set(from, name),
        ];
        ends.into_iter().flatten().map(move |end| at + end)
    });
    ends.min()
}

/// `-p…` and `-p …`, of an argument of its own or of a script, in which a port is the
/// next word.
fn after_password(option: &str, is_whole: bool) -> Option<usize> {
    let value = ["-p", "-P"]
        .iter()
        .find_map(|name| option.strip_prefix(name))?;
    let port = value.trim_start_matches([' ', '=']);
    let port = match is_whole {
        true => port,
        false => port.split_ascii_whitespace().next().unwrap_or_default(),
    };
    (!value.is_empty() && !is_port(port)).then_some(option.len() - value.len())
}

/// `--env=name=…`.
fn after_set(option: &str, name: &str) -> Option<usize> {
    let set = option.strip_prefix(name)?.strip_prefix('=')?;
    let end = SETS_VARIABLE.contains(&name).then(|| after(set, '='))??;
    Some(name.len() + 1 + end)
}

/// Where options begin, and their names with the dashes.
fn options(word: &str) -> impl Iterator<Item = (usize, &str)> {
    let in_name = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let dashes = word.match_indices('-').map(|(at, _)| at);
    dashes.filter_map(move |at| {
        let (before, from) = word.split_at_checked(at)?;
        let len = from.find(|c| !in_name(c)).unwrap_or(from.len());
        (!before.ends_with(in_name)).then_some((at, from.get(..len)?))
    })
}

/// Whether an option may take `user:password`: `-u`, `-sU`, `--proxy-user`.
fn sets_pair(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    if lower.starts_with("--") {
        return lower.contains("user");
    }
    lower.contains('u')
}

fn after_pair(word: &str) -> Option<usize> {
    word.find([':', '%', ',']).map(|at| at + 1)
}

fn after(word: &str, sign: char) -> Option<usize> {
    word.find(sign).map(|at| at + sign.len_utf8())
}

/// Whether a text is a number that is no longer than those of ports.
fn is_port(text: &str) -> bool {
    (1..=PORT).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests;
