//! Values of settings as they are written: in a settings file as strings,
//! numbers and lists, in the environment as one word.

use crate::watch::{CaptureMode, SyscallMode};
use clap::ValueEnum;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

/// A value that is written as a string.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Word<T>(pub(super) T);

/// A time such as `2s` or `1h 30m`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Span(pub(super) Duration);

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

/// Reads a string of a settings file.
fn parsed<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(from: D) -> Result<T, D::Error> {
    let word = String::deserialize(from)?;
    let wrong = |why: T::Err| D::Error::custom(format_args!("{word:?}: {why}"));
    word.parse().map_err(wrong)
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
