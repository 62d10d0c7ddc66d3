//! `-blockdev`: nodes that stand on one another, a file at the bottom, and
//! above it the driver that says how the disk is kept in it.

use super::options::{MAX_MEMBERS, Options, format, remote};
use crate::claims::{Drive, Format};
use serde_json::Value;
use std::path::PathBuf;

/// Drivers that hand on what the node below them has.
const FILTERS: [&str; 6] = [
    "blkdebug",
    "compress",
    "copy-before-write",
    "copy-on-read",
    "preallocate",
    "throttle",
];

/// What one `-blockdev` names, or all of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Nodes {
    files: Vec<File>,
    links: Vec<Link>,
}

/// A node that is a file.
#[derive(Debug, PartialEq, Eq)]
struct File {
    name: Option<String>,
    drive: Drive,
}

/// A node that stands on another one.
#[derive(Debug, PartialEq, Eq)]
struct Link {
    /// Its own name, and that of the other.
    name: Option<String>,
    on: String,
    /// `None`: it is a filter.
    format: Option<Format>,
}

/// What one `-blockdev` names.
#[derive(Debug, Default)]
pub(super) struct Blockdev {
    nodes: Nodes,
    /// Drivers without a file.
    pub(super) remote: Vec<&'static str>,
}

/// The nodes of one `-blockdev`, which may nest them.
pub(super) fn blockdev(text: &str) -> Blockdev {
    let mut found = Blockdev::default();
    if text.starts_with('{') {
        let document = serde_json::from_str(text).unwrap_or(Value::Null);
        found.collect(&document, true, None);
        return found;
    }
    let options = Options::parse(text, "driver");
    let drivers = ["driver", "file.driver"].map(|key| options.get(key));
    for driver in drivers.iter().flatten() {
        if found.note_remote(driver) {
            return found;
        }
    }
    let [driver, _] = drivers;
    let above = driver.and_then(|driver| own_format(&driver, &options));
    let writable = options.get("read-only").as_deref() != Some("on");
    let name = options.get("node-name");
    if let Some(path) = options.get("filename") {
        found.add_file(name, &path, writable, None);
    } else if let Some(path) = options.get("file.filename") {
        found.add_file(options.get("file.node-name"), &path, writable, above);
    } else if let Some(on) = options.get("file") {
        let format = above;
        found.nodes.links.push(Link { name, on, format });
    }
    found
}

/// What a node says of the format of the one below it; `None`: nothing.
fn own_format(driver: &str, options: &Options) -> Option<Format> {
    (!FILTERS.contains(&driver)).then(|| format(driver, options))
}

impl Blockdev {
    /// `above`: the format that the nodes around this one give it. serde_json
    /// bounds the depth of a document to 128.
    fn collect(&mut self, value: &Value, writable: bool, above: Option<&Format>) {
        let Value::Object(members) = value else {
            return;
        };
        if self.nodes.len() + self.remote.len() >= MAX_MEMBERS {
            return;
        }
        let text = |key| members.get(key).and_then(Value::as_str);
        let driver = text("driver").unwrap_or_default();
        if self.note_remote(driver) {
            return;
        }
        let read_only = members.get("read-only").and_then(Value::as_bool);
        let writable = writable && !read_only.unwrap_or(false);
        let name = text("node-name").map(str::to_owned);
        if let Some(path) = text("filename") {
            return self.add_file(name, path, writable, above.cloned());
        }
        let own = own_format(driver, &Options::of(members));
        let below = own.as_ref().or(above);
        if let Some(on) = text("file") {
            let (on, format) = (on.to_owned(), below.cloned());
            self.nodes.links.push(Link { name, on, format });
        }
        for (key, value) in members {
            // What a drive falls back on is never written to.
            let above = below.filter(|_| key == "file");
            self.collect(value, writable && key != "backing", above);
        }
    }

    fn note_remote(&mut self, driver: &str) -> bool {
        let remote = remote(driver);
        self.remote.extend(remote);
        remote.is_some()
    }

    fn add_file(
        &mut self,
        name: Option<String>,
        path: &str,
        writable: bool,
        format: Option<Format>,
    ) {
        // A descriptor that QEMU was given: no path, but among its open files.
        if path.starts_with("/dev/fdset/") {
            return;
        }
        let drive = Drive {
            path: PathBuf::from(path),
            writable,
            format: format.unwrap_or_default(),
        };
        self.nodes.files.push(File { name, drive });
    }
}

impl Nodes {
    pub(super) fn extend(&mut self, found: Blockdev) {
        let room = MAX_MEMBERS.saturating_sub(self.len());
        self.files.extend(found.nodes.files.into_iter().take(room));
        let room = MAX_MEMBERS.saturating_sub(self.len());
        self.links.extend(found.nodes.links.into_iter().take(room));
    }

    fn len(&self) -> usize {
        self.files.len() + self.links.len()
    }

    /// The files, each in the format that the nodes above it say. QEMU never
    /// guesses here: a file with nothing above it is the disk byte for byte.
    pub(super) fn drives(self) -> Vec<Drive> {
        let Self { files, links } = self;
        let drives = files.into_iter().map(|File { name, mut drive }| {
            if drive.format == Format::Untold {
                drive.format = format_above(name.as_deref(), &links);
            }
            drive
        });
        drives.collect()
    }
}

fn format_above(name: Option<&str>, links: &[Link]) -> Format {
    let mut name = name;
    // A chain is no longer than there are links: a loop ends here.
    for _ in links {
        let Some(below) = name else { break };
        let Some(link) = links.iter().find(|link| link.on == below) else {
            break;
        };
        if let Some(format) = &link.format {
            return format.clone();
        }
        name = link.name.as_deref();
    }
    Format::RAW
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DiskFormat;
    use proptest::prelude::*;

    const QCOW2: Format = Format::Known(DiskFormat::Qcow2);

    #[track_caller]
    fn check(blockdevs: &[&str], expected: &[(&str, Format)]) {
        let mut nodes = Nodes::default();
        for text in blockdevs {
            nodes.extend(blockdev(text));
        }
        let drives = nodes.drives().into_iter();
        let drives: Vec<_> = drives.map(|drive| (drive.path, drive.format)).collect();
        let expected = expected.iter();
        let expected: Vec<_> = expected
            .map(|(path, format)| (PathBuf::from(path), format.clone()))
            .collect();
        assert_eq!(drives, expected, "{blockdevs:?}");
    }

    #[test]
    fn the_node_above_a_file_says_its_format() {
        let file = "driver=file,node-name=f,filename=/d";
        check(&[file], &[("/d", Format::RAW)]);
        check(&[file, "driver=qcow2,node-name=q,file=f"], &[("/d", QCOW2)]);
        check(&["driver=qcow2,node-name=q,file=f", file], &[("/d", QCOW2)]);
        check(&[file, "driver=raw,file=f"], &[("/d", Format::RAW)]);
        let vmdk = Format::Other("vmdk".to_owned());
        check(&[file, "driver=vmdk,file=f"], &[("/d", vmdk)]);
        let part = Format::Other("a part of a raw file".to_owned());
        let moved = "driver=raw,file=f,offset=1048576";
        check(&[file, moved], &[("/d", part.clone())]);
        let moved = r#"{"driver":"raw","file":"f","offset":1048576}"#;
        check(&[file, moved], &[("/d", part)]);
        let named = "driver=qcow2,file.driver=file,file.filename=/d";
        check(&[named], &[("/d", QCOW2)]);
        let nested = r#"{"driver":"qcow2","file":{"driver":"file","filename":"/d"},
                         "backing":{"driver":"raw","file":{"driver":"file","filename":"/b"}}}"#;
        check(&[nested], &[("/b", Format::RAW), ("/d", QCOW2)]);
        let filter = r#"{"driver":"throttle","node-name":"t","file":"f"}"#;
        check(&[file, filter, "qcow2,file=t"], &[("/d", QCOW2)]);
        check(&[file, filter], &[("/d", Format::RAW)]);
        let filtered = r#"{"driver":"qcow2","file":{"driver":"throttle","file":
                           {"driver":"file","filename":"/d"}}}"#;
        check(&[filtered], &[("/d", QCOW2)]);
        let filtered = r#"{"driver":"qcow2","file":{"driver":"throttle","file":"f"}}"#;
        check(&[file, filtered], &[("/d", QCOW2)]);
    }

    #[test]
    fn loops_end() {
        let file = "driver=file,node-name=f,filename=/d";
        let loops = ["throttle,node-name=a,file=f", "throttle,node-name=f,file=a"];
        check(&[file, loops[0], loops[1]], &[("/d", Format::RAW)]);
    }

    proptest! {
        #[test]
        fn any_text_parses(texts: Vec<String>) {
            let mut nodes = Nodes::default();
            for text in &texts {
                nodes.extend(blockdev(text));
            }
            _ = nodes.drives();
        }
    }
}
