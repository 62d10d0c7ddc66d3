//! QEMU's option syntax: `key=value,…` with `,,` for a comma, or JSON.

use crate::DiskFormat;
use crate::claims::Format;
use serde_json::{Map, Value};

/// Most members of one option, and most drives of one JSON document.
pub(super) const MAX_MEMBERS: usize = 256;

/// Longest word of QEMU's own that is repeated.
const MAX_WORD: usize = 32;

/// Block drivers whose bytes are elsewhere.
const REMOTE: [&str; 18] = [
    "ftp",
    "ftps",
    "gluster",
    "http",
    "https",
    "iscsi",
    "nbd",
    "nfs",
    "null-aio",
    "null-co",
    "nvme",
    "nvme-io_uring",
    "rbd",
    "ssh",
    "vvfat",
    "virtio-blk-vfio-pci",
    "virtio-blk-vhost-user",
    "virtio-blk-vhost-vdpa",
];

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
        match serde_json::from_str(text) {
            Ok(Value::Object(members)) => Self::of(&members),
            _ => Self(Vec::new()),
        }
    }

    /// The members of a JSON object that are no objects themselves.
    pub(super) fn of(members: &Map<String, Value>) -> Self {
        let members = members.iter().take(MAX_MEMBERS);
        let members = members.filter_map(|(key, value)| {
            let value = match value {
                Value::String(value) => value.clone(),
                Value::Bool(true) => "on".to_owned(),
                Value::Bool(false) => "off".to_owned(),
                Value::Number(value) => value.to_string(),
                _ => return None,
            };
            Some((key.clone(), value))
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
    match name.split_once(':') {
        Some((word, _)) if is_word(word) => None,
        _ => Some(name),
    }
}

/// What stands before the first colon.
pub(super) fn protocol(name: &str) -> &str {
    word(name.split(':').next().unwrap_or_default())
}

/// A word of QEMU's own, such as a driver's name; anything else may be a
/// secret that was put in the wrong place.
pub(super) fn word(text: &str) -> &str {
    if is_word(text) && text.len() <= MAX_WORD && !is_odd(text) {
        text
    } else {
        "unknown"
    }
}

fn is_word(text: &str) -> bool {
    let in_word = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    !text.is_empty() && text.bytes().all(in_word)
}

/// No name of QEMU's has capitals.
fn is_odd(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// A block driver that keeps its bytes elsewhere than in a file of this host
/// (qapi/block-core.json, `BlockdevDriver`), by its name here.
pub(super) fn remote(driver: &str) -> Option<&'static str> {
    REMOTE.into_iter().find(|name| *name == driver)
}

/// What a format driver's name means (qapi/block-core.json, `BlockdevDriver`).
pub(super) fn format(driver: &str, options: &Options) -> Format {
    let is_moved = |key| options.get(key).is_some_and(|value| value != "0");
    match driver {
        "raw" if is_moved("offset") || options.get("size").is_some() => {
            Format::Other("a part of a raw file".to_owned())
        }
        "raw" | "file" | "host_device" => Format::RAW,
        "qcow2" => Format::Known(DiskFormat::Qcow2),
        other => Format::Other(word(other).to_owned()),
    }
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
            _ = filename(&text);
        }
    }
}
