//! QEMU's option syntax: `key=value,…` with `,,` for a comma, or JSON.

use crate::claims::Drive;
use serde_json::Value;
use std::path::PathBuf;

/// Most members of one option, and most drives of one JSON document.
const MAX_MEMBERS: usize = 256;

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

/// Whether a block driver keeps its bytes elsewhere than in a file of this
/// host (qapi/block-core.json, `BlockdevDriver`).
pub(super) fn is_remote(driver: &str) -> bool {
    REMOTE.contains(&driver)
}

/// What one `-blockdev` names.
#[derive(Debug, Default)]
pub(super) struct Blockdev {
    pub(super) drives: Vec<Drive>,
    /// Drivers without a file.
    pub(super) remote: Vec<&'static str>,
}

/// The files of one `-blockdev`, which may nest them.
pub(super) fn blockdev(text: &str) -> Blockdev {
    let mut found = Blockdev::default();
    if text.starts_with('{') {
        let document = serde_json::from_str(text).unwrap_or(Value::Null);
        found.collect(&document, true);
        return found;
    }
    let options = Options::parse(text, "driver");
    let drivers = ["driver", "file.driver"].map(|key| options.get(key));
    if drivers
        .iter()
        .flatten()
        .any(|driver| found.note_remote(driver))
    {
        return found;
    }
    let writable = options.get("read-only").as_deref() != Some("on");
    let path = options.get("filename");
    let path = path.or_else(|| options.get("file.filename"));
    found
        .drives
        .extend(path.and_then(|path| drive(&path, writable)));
    found
}

impl Blockdev {
    /// serde_json bounds the depth of a document to 128.
    fn collect(&mut self, value: &Value, writable: bool) {
        let Value::Object(members) = value else {
            return;
        };
        if self.drives.len() + self.remote.len() >= MAX_MEMBERS {
            return;
        }
        let driver = members.get("driver").and_then(Value::as_str);
        if driver.is_some_and(|driver| self.note_remote(driver)) {
            return;
        }
        let read_only = members.get("read-only").and_then(Value::as_bool);
        let writable = writable && !read_only.unwrap_or(false);
        if let Some(path) = members.get("filename").and_then(Value::as_str) {
            self.drives.extend(drive(path, writable));
        }
        for (key, value) in members {
            // What a drive falls back on is never written to.
            self.collect(value, writable && key != "backing");
        }
    }

    fn note_remote(&mut self, driver: &str) -> bool {
        let remote = REMOTE.iter().find(|name| **name == driver);
        self.remote.extend(remote);
        remote.is_some()
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
