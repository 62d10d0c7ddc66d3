//! QEMU's option syntax: `key=value,…` with `,,` for a comma, or JSON.

use crate::claims::Drive;
use serde_json::Value;
use std::path::PathBuf;

/// Most members of one option, and most drives of one JSON document.
const MAX_MEMBERS: usize = 256;

/// The members of one option, at its top level.
pub(super) struct Options(Vec<(String, String)>);

impl Options {
    /// Reads `text`; a first member without a key gets the key `implied`.
    pub(super) fn parse(text: &str, implied: &str) -> Self {
        if text.starts_with('{') {
            return Self::json(text);
        }
        let members = split(text).into_iter().enumerate();
        let members = members.map(|(n, member)| match member.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None if n == 0 => (implied.to_owned(), member),
            None => (member, "on".to_owned()),
        });
        Self(members.collect())
    }

    fn json(text: &str) -> Self {
        let Ok(Value::Object(members)) = serde_json::from_str(text) else {
            return Self(Vec::new());
        };
        let members = members.into_iter().take(MAX_MEMBERS);
        let members = members.filter_map(|(key, value)| match value {
            Value::String(value) => Some((key, value)),
            Value::Bool(true) => Some((key, "on".to_owned())),
            Value::Bool(false) => Some((key, "off".to_owned())),
            _ => None,
        });
        Self(members.collect())
    }

    /// The last value of a key, which is the one that QEMU uses.
    pub(super) fn get(&self, key: &str) -> Option<String> {
        let found = self.0.iter().rev().find(|(name, _)| name == key);
        found.map(|(_, value)| value.clone())
    }
}

fn split(text: &str) -> Vec<String> {
    let mut members = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == ',' && chars.next_if_eq(&',').is_none() {
            if members.len() == MAX_MEMBERS {
                break;
            }
            members.push(String::new());
        } else if let Some(member) = members.last_mut() {
            member.push(c);
        }
    }
    members
}

/// The path of a drive's file; `None` where a protocol other than `file:`
/// stands before it (`nbd:`, `rbd:`, `https://`).
pub(super) fn filename(name: &str) -> Option<&str> {
    if let Some(path) = name.strip_prefix("file:") {
        return Some(path);
    }
    let is_protocol = |word: &str| {
        let in_word = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        !word.is_empty() && word.bytes().all(in_word)
    };
    match name.split_once(':') {
        Some((word, _)) if is_protocol(word) => None,
        _ => Some(name),
    }
}

/// The files of one `-blockdev`, which may nest them.
pub(super) fn blockdev(text: &str) -> Vec<Drive> {
    if text.starts_with('{') {
        let document = serde_json::from_str(text).unwrap_or(Value::Null);
        let mut drives = Vec::new();
        collect(&document, true, &mut drives);
        return drives;
    }
    let options = Options::parse(text, "driver");
    let writable = options.get("read-only").as_deref() != Some("on");
    let path = options.get("filename");
    let path = path.or_else(|| options.get("file.filename"));
    path.and_then(|path| drive(&path, writable))
        .into_iter()
        .collect()
}

/// serde_json bounds the depth of a document to 128.
fn collect(value: &Value, writable: bool, drives: &mut Vec<Drive>) {
    let Value::Object(members) = value else {
        return;
    };
    let read_only = members.get("read-only").and_then(Value::as_bool);
    let writable = writable && !read_only.unwrap_or(false);
    if let Some(path) = members.get("filename").and_then(Value::as_str)
        && drives.len() < MAX_MEMBERS
    {
        drives.extend(drive(path, writable));
    }
    for (key, value) in members {
        // What a drive falls back on is never written to.
        collect(value, writable && key != "backing", drives);
    }
}

fn drive(path: &str, writable: bool) -> Option<Drive> {
    // A descriptor that QEMU was given: no path, but among its open files.
    let given = path.starts_with("/dev/fdset/");
    (!given).then(|| Drive {
        path: PathBuf::from(path),
        writable,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn commas_are_doubled() {
        assert_eq!(split("a,b=c,,d,"), ["a", "b=c,d", ""]);
        assert_eq!(split(""), [""]);
        assert_eq!(split(",,,"), [",", ""]);
        assert_eq!(split(&",a".repeat(1000)).len(), MAX_MEMBERS);
    }

    #[test]
    fn protocols() {
        assert_eq!(filename("/a:b"), Some("/a:b"));
        assert_eq!(filename("disk.img"), Some("disk.img"));
        assert_eq!(filename("file:disk.img"), Some("disk.img"));
        assert_eq!(filename("https://h/x"), None);
        assert_eq!(filename("nbd:unix:/s"), None);
        assert_eq!(filename("./nbd:x"), Some("./nbd:x"));
    }

    proptest! {
        #[test]
        fn any_text_parses(text: String) {
            _ = Options::parse(&text, "file").get("file");
            _ = blockdev(&text);
            _ = filename(&text);
        }
    }
}
