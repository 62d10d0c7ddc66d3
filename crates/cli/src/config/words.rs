//! Values of settings as they are written: in a settings file as strings,
//! numbers and lists, in the environment as one word.

use crate::watch::{CaptureMode, SyscallMode};
use clap::ValueEnum;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer};
use std::fmt::{self, Display, Write as _};
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

/// A value that is written as a string.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Word<T>(pub(super) T);

/// A time such as `2s` or `1h 30m`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Span(pub(super) Duration);

/// Bytes, with an optional K, M, G or T for powers of 1,024.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

/// In the environment, words with commas between them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct List<T>(pub(super) Vec<T>);

/// A choice between a few words.
pub(crate) trait Choice: ValueEnum + Copy {
    /// What is wrong with any other word.
    const OTHERWISE: &str;
}

impl Choice for CaptureMode {
    const OTHERWISE: &str = "not a way to capture frames: use auto, af-packet or ebpf";
}

impl Choice for SyscallMode {
    const OTHERWISE: &str = "not a way to see system calls: use auto, ebpf, ptrace or off";
}

impl<T: Choice> FromStr for Word<T> {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let known = T::value_variants().iter();
        let mode = known.copied().find(|mode| {
            let name = mode.to_possible_value();
            name.is_some_and(|name| name.get_name() == word)
        });
        mode.map(Self).ok_or_else(|| T::OTHERWISE.to_owned())
    }
}

impl From<Word<Self>> for CaptureMode {
    fn from(word: Word<Self>) -> Self {
        word.0
    }
}

impl From<Word<Self>> for SyscallMode {
    fn from(word: Word<Self>) -> Self {
        word.0
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let span = humantime::parse_duration(word);
        span.map(Self)
            .map_err(|why| format!("{why}: give a time such as 2s or 1h"))
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}

/// Letters of the powers of 1,024, from the first on.
const POWERS: &str = "KMGT";

impl FromStr for Size {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let mut powers = (1_u32..).zip(POWERS.chars());
        let with_letter =
            powers.find_map(|(power, letter)| Some((word.strip_suffix(letter)?, power)));
        let (digits, power) = with_letter.unwrap_or((word, 0));
        let factor = 1024_u64.checked_pow(power);
        let number: Option<u64> = digits.parse().ok().filter(|number| *number > 0);
        number
            .zip(factor)
            .and_then(|(number, factor)| number.checked_mul(factor))
            .map(Self)
            .ok_or_else(|| "a size is a number of bytes, or one with K, M, G or T".to_owned())
    }
}

impl Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.0;
        let mut letter = None;
        for power in POWERS.chars() {
            if left == 0 || !left.is_multiple_of(1024) {
                break;
            }
            left /= 1024;
            letter = Some(power);
        }
        write!(f, "{left}")?;
        letter.map_or(Ok(()), |letter| f.write_char(letter))
    }
}

impl<T: FromStr<Err: Display>> FromStr for List<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words = text
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty());
        let parse = |word: &str| word.parse().map_err(|why| format!("{word}: {why}"));
        words.map(parse).collect::<Result<_, _>>().map(Self)
    }
}

impl<T> From<List<T>> for Vec<T> {
    fn from(list: List<T>) -> Self {
        list.0
    }
}

/// Reads a string of a settings file, where it stands: an error from here has its
/// place, one from after it that of the list around it.
fn parsed<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(from: D) -> Result<T, D::Error> {
    from.deserialize_str(Parse(PhantomData))
}

struct Parse<T>(PhantomData<T>);

impl<T: FromStr<Err: Display>> Visitor<'_> for Parse<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<T, E> {
        word.parse()
            .map_err(|why| E::custom(format_args!("{word:?}: {why}")))
    }
}

impl<'de, T: Choice> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        parsed(from)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        parsed(from)
    }
}

/// One of a list of strings.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Item<T>(pub(super) T);

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for Item<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        parsed(from).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(word: &str, bytes: Option<u64>, written: &str) {
        let size = word.parse::<Size>().ok();
        assert_eq!(size.map(|size| size.0), bytes, "{word}");
        if let Some(size) = size {
            assert_eq!(size.to_string(), written);
        }
    }

    #[test]
    fn sizes() {
        check("1", Some(1), "1");
        check("1000", Some(1000), "1000");
        check("64K", Some(65_536), "64K");
        check("65536", Some(65_536), "64K");
        check("1024M", Some(1 << 30), "1G");
        check("2T", Some(2 << 40), "2T");
        for word in [
            "",
            "0",
            "0M",
            "M",
            "-1",
            "1KM",
            "1MK",
            "1m",
            "1 M",
            "99999999T",
        ] {
            check(word, None, "");
        }
    }
}
