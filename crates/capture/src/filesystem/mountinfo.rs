//! The overlay mount that writes to an upper dir, out of mountinfo
//! (proc_pid_mountinfo(5)).

use super::config::OverlayXattrs;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// What a mount of type `overlay` says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayMount {
    /// Layers below, topmost first, without data-only layers. A path that the
    /// mounter gave relative to its own directory stays relative.
    pub lowers: Vec<PathBuf>,
    /// Where the overlay is mounted.
    pub mount_point: PathBuf,
    /// Which attributes it takes for its own.
    pub xattrs: OverlayXattrs,
}

/// Finds the overlay whose upper dir is `upper`, in the text of
/// `/proc/PID/mountinfo`.
#[must_use]
pub fn mount_for_upper(mountinfo_text: &str, upper: &Path) -> Option<OverlayMount> {
    mountinfo_text
        .lines()
        .find_map(|line| parse_line(line, upper))
}

/// The lower layers of the overlay whose upper dir is `upper`, topmost first.
#[must_use]
pub fn layers_for_upper(mountinfo_text: &str, upper: &Path) -> Option<Vec<PathBuf>> {
    mount_for_upper(mountinfo_text, upper).map(|mount| mount.lowers)
}

fn parse_line(line: &str, upper: &Path) -> Option<OverlayMount> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut fields = file_system.split(' ');
    if fields.next() != Some("overlay") {
        return None;
    }
    let options = fields.nth(1)?;
    let mut found = OverlayMount {
        lowers: Vec::new(),
        mount_point: path(&unescape(mount.split(' ').nth(4)?)),
        xattrs: OverlayXattrs::Trusted,
    };
    let mut is_ours = false;
    for option in options.split(',') {
        match option.split_once('=').unwrap_or((option, "")) {
            ("upperdir", value) => is_ours = path(&unescape(value)) == upper,
            ("lowerdir", value) => found.lowers = split_lowers(value),
            ("lowerdir+", value) => found.lowers.push(path(&unescape(value))),
            ("userxattr", _) => found.xattrs = OverlayXattrs::User,
            _ => {}
        }
    }
    is_ours.then_some(found)
}

/// `a:b::data`: layers, then data-only layers, which never show in the merge.
/// The kernel repeats what the mounter wrote, in which a backslash takes the
/// next character for itself, and escapes that in octal.
fn split_lowers(value: &str) -> Vec<PathBuf> {
    let value = unescape(value);
    let mut layers = Vec::new();
    let mut layer = Vec::new();
    let mut rest = value.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        match byte {
            b'\\' => layer.extend(rest.next()),
            b':' => {
                layers.push(path(&std::mem::take(&mut layer)));
                if rest.peek() == Some(&b':') {
                    return layers;
                }
            }
            byte => layer.push(byte),
        }
    }
    layers.push(path(&layer));
    layers
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = octal(rest).unwrap_or((*first, after));
        bytes.push(byte);
        rest = after;
    }
    bytes
}

/// A backslash and three octal digits at the start of `text`.
fn octal(text: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, after) = text.strip_prefix(b"\\")?.split_at_checked(3)?;
    let digits = str::from_utf8(digits).ok()?;
    let byte = u8::from_str_radix(digits, 8).ok()?;
    Some((byte, after))
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(options: &str, expected: Option<&[&str]>) {
        let text = format!(
            "43 27 0:39 / /tmp rw - tmpfs none rw\n\
             46 43 0:40 / /mnt/m\\040n rw,relatime shared:1 - overlay ov rw,{options},uuid=on\n"
        );
        let lowers = layers_for_upper(&text, Path::new("/up per"));
        let expected = expected.map(|paths| paths.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(lowers, expected, "{options}");
    }

    #[test]
    fn layers_are_found_and_unescaped() {
        let upper = r"upperdir=/up\040per,workdir=/w";
        for (lowerdir, layers) in [
            ("lowerdir=/a", &["/a"][..]),
            ("lowerdir=/a:/b", &["/a", "/b"]),
            (r"lowerdir=/a\:1:/b", &["/a:1", "/b"]),
            (r"lowerdir=/a\134:1:/b", &["/a:1", "/b"]),
            (
                r"lowerdir=/a\134\054b:/c\134\134d:/e\040f",
                &["/a,b", r"/c\d", "/e f"],
            ),
            ("lowerdir=/a:/b::/data1::/data2", &["/a", "/b"]),
            (
                r"lowerdir+=/a,lowerdir+=/b:c\134d,datadir+=/d",
                &["/a", r"/b:c\d"],
            ),
        ] {
            check(&format!("{lowerdir},{upper}"), Some(layers));
        }
        check("lowerdir=/a,upperdir=/other,workdir=/w", None);
        check("lowerdir=/a:/b", None);
    }

    #[test]
    fn the_attribute_prefix_is_told() {
        let line =
            r"1 2 0:3 / /m\040n rw - overlay o rw,lowerdir=/l,upperdir=/u,workdir=/w,userxattr";
        let mount = mount_for_upper(line, Path::new("/u")).unwrap();
        assert_eq!(mount.xattrs, OverlayXattrs::User);
        assert_eq!(mount.mount_point, Path::new("/m n"));
        assert_eq!(mount_for_upper("no mountinfo", Path::new("/u")), None);
    }
}
