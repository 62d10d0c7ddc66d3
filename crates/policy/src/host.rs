//! Host names and the patterns that match them, label by label.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

/// Longest name in its written form (RFC 1035 §2.3.4).
const MAX_NAME: usize = 253;
/// Longest label (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;

/// One label of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Label {
    /// This label, in lower case.
    Is(Box<str>),
    /// `*`: exactly one label.
    One,
    /// `**`: one label or more.
    Many,
}

/// `api.stripe.com`, `*.stripe.com`, `**.amazonaws.com`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPattern(Vec<Label>);

/// Why a text is not a host pattern, and what might be right.
pub(crate) type Refusal = (String, Option<String>);

impl HostPattern {
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        if !text.is_ascii() {
            let hint = "write the name in its ASCII form, which begins with xn--";
            return Err(("not an ASCII name".to_owned(), Some(hint.to_owned())));
        }
        let lower = text.to_ascii_lowercase();
        let name = lower.strip_suffix('.').unwrap_or(&lower);
        if name.is_empty() {
            return Err(("an empty host".to_owned(), None));
        }
        if name.len() > MAX_NAME {
            return Err((format!("longer than {MAX_NAME} characters"), None));
        }
        name.split('.')
            .map(|label| parse_label(name, label))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub(crate) fn matches(&self, name: &HostName<'_>) -> bool {
        let labels = name.0.split('.');
        glob(&self.0, labels, |label, text| match label {
            Label::Is(literal) => **literal == **text,
            Label::One | Label::Many => true,
        })
    }

    /// Whether every name that `other` matches is one that this matches too.
    /// May say no where the truth is yes, never the other way round.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        glob(&self.0, other.0.iter(), |mine, theirs| {
            match (mine, theirs) {
                (Label::Is(mine), Label::Is(theirs)) => mine == theirs,
                (Label::Is(_), _) | (Label::One, Label::Many) => false,
                (Label::One, _) | (Label::Many, _) => true,
            }
        })
    }

    /// What every matched name ends with (whole labels); empty where the
    /// last label is a wildcard.
    pub(crate) fn suffix(&self) -> String {
        let literal = |label: &Label| match label {
            Label::Is(text) => Some(text.to_string()),
            Label::One | Label::Many => None,
        };
        let mut labels: Vec<_> = self.0.iter().rev().map_while(literal).collect();
        labels.reverse();
        labels.join(".")
    }
}

fn parse_label(name: &str, label: &str) -> Result<Label, Refusal> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    match label {
        "*" => Ok(Label::One),
        "**" => Ok(Label::Many),
        "" => Err(("an empty label".to_owned(), None)),
        _ if label.len() > MAX_LABEL => Err((
            format!("a label is longer than {MAX_LABEL} characters"),
            None,
        )),
        _ if label.bytes().all(fine) => Ok(Label::Is(label.into())),
        _ => Err(misfit(name, label)),
    }
}

/// What somebody may have meant who wrote a label like this.
fn misfit(name: &str, label: &str) -> Refusal {
    let whole = |hint: String| (format!("not a host name: {name:?}"), Some(hint));
    if name.contains("://") {
        return whole("give the host alone, without scheme and path".to_owned());
    }
    if let Some((address, _)) = name.split_once('/')
        && address.parse::<IpAddr>().is_ok()
    {
        return whole("give an address range as `cidr:`".to_owned());
    }
    if let Some((host, port)) = name.rsplit_once(':')
        && port.parse::<u16>().is_ok()
    {
        return whole(format!("write host: {host} and port: {port}"));
    }
    if label.contains('*') {
        return whole(
            "a wildcard stands for whole labels: `*` for one, `**` for one or more".to_owned(),
        );
    }
    whole("letters, digits, `-`, `_` and dots".to_owned())
}

/// Matches items against a pattern in which `Many` takes one item or more,
/// in time bounded by the product of both lengths.
fn glob<I: Iterator + Clone>(
    pattern: &[Label],
    mut items: I,
    accepts: impl Fn(&Label, &I::Item) -> bool,
) -> bool {
    // Where to go on, should the last `Many` have to take one item more.
    let mut retry: Option<(usize, I)> = None;
    let mut at = 0;
    loop {
        let advanced = match (pattern.get(at), items.next()) {
            (None, None) => return true,
            // Nothing is left, and to take more elsewhere leaves less.
            (Some(_), None) => return false,
            (None, Some(_)) => false,
            (Some(label), Some(item)) => {
                let fits = accepts(label, &item);
                if fits && *label == Label::Many {
                    retry = Some((at + 1, items.clone()));
                }
                fits
            }
        };
        if advanced {
            at += 1;
            continue;
        }
        let Some((after, rest)) = &mut retry else {
            return false;
        };
        if rest.next().is_none() {
            return false;
        }
        at = *after;
        items = rest.clone();
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, label) in self.0.iter().enumerate() {
            let dot = if i == 0 { "" } else { "." };
            let text = match label {
                Label::Is(text) => text,
                Label::One => "*",
                Label::Many => "**",
            };
            write!(f, "{dot}{text}")?;
        }
        Ok(())
    }
}

/// A name as somebody claims it, in the form that is compared: lower case,
/// no trailing dot, no empty label, not an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostName<'a>(Cow<'a, str>);

impl<'a> HostName<'a> {
    /// `None` where the text is no name: no pattern matches it, `**` included.
    pub(crate) fn new(text: &'a str) -> Option<Self> {
        let name = text.strip_suffix('.').unwrap_or(text);
        let empty_label = name.is_empty() || name.starts_with('.') || name.ends_with('.');
        if empty_label || name.contains("..") || name.len() > MAX_NAME {
            return None;
        }
        if looks_like_address(name) {
            return None;
        }
        Some(Self(
            if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
                Cow::Owned(name.to_ascii_lowercase())
            } else {
                Cow::Borrowed(name)
            },
        ))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, then the name without its first label, and so on; the last
    /// is empty.
    pub(crate) fn suffixes(&self) -> impl Iterator<Item = &str> {
        let mut rest = Some(&*self.0);
        std::iter::from_fn(move || {
            let suffix = rest?;
            rest = match suffix.split_once('.') {
                Some((_, tail)) => Some(tail),
                None if suffix.is_empty() => None,
                None => Some(""),
            };
            Some(suffix)
        })
    }
}

/// Cheap first: only what is made of an address' characters is parsed.
fn looks_like_address(name: &str) -> bool {
    let last = name.bytes().last().unwrap_or_default();
    (last.is_ascii_digit() || name.contains(':')) && name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(pattern: &str, name: &str, expected: bool) {
        let pattern = HostPattern::parse(pattern).unwrap();
        let matched = HostName::new(name).is_some_and(|name| pattern.matches(&name));
        assert_eq!(matched, expected, "{pattern} {name}");
    }

    #[test]
    fn labels_are_matched_whole() {
        check("api.stripe.com", "api.stripe.com", true);
        check("API.stripe.com.", "api.Stripe.COM.", true);
        check("api.stripe.com", "api.stripe.com.evil.example", false);
        check("*.stripe.com", "api.stripe.com", true);
        check("*.stripe.com", "evilstripe.com", false);
        check("*.stripe.com", "stripe.com", false);
        check("*.stripe.com", "a.b.stripe.com", false);
        check("**.stripe.com", "a.b.stripe.com", true);
        check("**.stripe.com", "stripe.com", false);
        check("**.stripe.com", "evilstripe.com", false);
        check("s3.*.amazonaws.com", "s3.eu-west-1.amazonaws.com", true);
        check("**.b.**.d", "a.b.b.c.d", true);
        check("**", "anything", true);
        check("xn--bcher-kva.example", "xn--bcher-kva.example", true);
    }

    #[test]
    fn what_is_no_name_is_matched_by_nothing() {
        for name in [
            "",
            ".",
            "..",
            "a..b",
            ".stripe.com",
            "10.0.0.1",
            "::1",
            "2001:db8::1",
        ] {
            check("**", name, false);
            check("**.**.**.**", name, false);
        }
        check("*.stripe.com", ".stripe.com", false);
    }

    #[test]
    fn other_spellings_are_refused_with_advice() {
        let table = [
            ("https://api.stripe.com", "without scheme"),
            (
                "api.stripe.com:443",
                "write host: api.stripe.com and port: 443",
            ),
            ("10.0.0.0/8", "cidr"),
            ("api*.stripe.com", "whole labels"),
            ("bücher.example", "xn--"),
            ("a b", "letters"),
        ];
        for (text, advice) in table {
            let (_, suggestion) = HostPattern::parse(text).unwrap_err();
            assert!(suggestion.unwrap().contains(advice), "{text}");
        }
        for text in ["", ".", "a..b", &"a".repeat(64), &"a.".repeat(200)] {
            assert!(HostPattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn suffixes_end_with_nothing() {
        let name = HostName::new("a.b.c").unwrap();
        assert_eq!(
            name.suffixes().collect::<Vec<_>>(),
            ["a.b.c", "b.c", "c", ""]
        );
    }

    /// The definition itself, in exponential time.
    fn oracle(pattern: &[Label], name: &[&str]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            ([], _) | (_, []) => false,
            ([Label::Is(text), rest @ ..], [first, tail @ ..]) => {
                **text == **first && oracle(rest, tail)
            }
            ([Label::One, rest @ ..], [_, tail @ ..]) => oracle(rest, tail),
            ([Label::Many, rest @ ..], _) => {
                (1..=name.len()).any(|taken| oracle(rest, &name[taken..]))
            }
        }
    }

    fn pattern() -> impl Strategy<Value = HostPattern> {
        let label = prop_oneof![Just("a"), Just("b"), Just("*"), Just("**")];
        prop::collection::vec(label, 1..7)
            .prop_map(|labels| HostPattern::parse(&labels.join(".")).unwrap())
    }

    fn name() -> impl Strategy<Value = String> {
        prop::collection::vec(prop_oneof![Just("a"), Just("b"), Just("c")], 1..8)
            .prop_map(|labels| labels.join("."))
    }

    proptest! {
        #[test]
        fn matching_agrees_with_its_definition(pattern in pattern(), name in name()) {
            let labels: Vec<_> = name.split('.').collect();
            let expected = oracle(&pattern.0, &labels);
            prop_assert_eq!(pattern.matches(&HostName::new(&name).unwrap()), expected);
        }

        #[test]
        fn covering_is_sound(wide in pattern(), narrow in pattern(), name in name()) {
            let name = HostName::new(&name).unwrap();
            if wide.covers(&narrow) && narrow.matches(&name) {
                prop_assert!(wide.matches(&name));
            }
            prop_assert!(wide.covers(&wide));
        }

        #[test]
        fn a_matched_name_ends_with_the_suffix(pattern in pattern(), name in name()) {
            let name = HostName::new(&name).unwrap();
            if pattern.matches(&name) {
                let suffix = pattern.suffix();
                prop_assert!(name.suffixes().any(|own| own == suffix));
            }
        }

        #[test]
        fn any_text_is_taken_or_refused(text in "\\PC{0,40}") {
            let _ = HostPattern::parse(&text);
            let _ = HostName::new(&text);
        }
    }
}
