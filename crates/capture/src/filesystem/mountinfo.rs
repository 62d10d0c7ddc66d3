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
    /// Data-only layers, topmost first: they never show in the merge, but hold
    /// the content of files in the others.
    pub data: Vec<PathBuf>,
    /// Where the overlay is mounted.
    pub mount_point: PathBuf,
    /// Which attributes it takes for its own.
    pub xattrs: OverlayXattrs,
}

impl OverlayMount {
    /// Whether all layers are told by paths that mean the same to everybody:
    /// one that the mounter gave relative to its own directory does not.
    #[must_use]
    pub fn has_absolute_layers(&self) -> bool {
        let mut layers = self.lowers.iter().chain(&self.data);
        layers.all(|layer| layer.is_absolute())
    }
}

/// The overlays whose upper dir is `upper`, in the order of the bytes of
/// `/proc/PID/mountinfo`. What a sandbox's process sees there the sandbox may
/// have mounted itself.
pub fn mounts_for_upper(mountinfo: &[u8], upper: &Path) -> impl Iterator<Item = OverlayMount> {
    let lines = mountinfo.split(|byte| *byte == b'\n');
    lines.filter_map(move |line| parse_line(line, upper))
}

/// The first of them.
#[must_use]
pub fn mount_for_upper(mountinfo: &[u8], upper: &Path) -> Option<OverlayMount> {
    mounts_for_upper(mountinfo, upper).next()
}

fn parse_line(line: &[u8], upper: &Path) -> Option<OverlayMount> {
    let (mount, file_system) = split_once(line, b" - ")?;
    let mut fields = file_system.split(|byte| *byte == b' ');
    if fields.next() != Some(b"overlay") {
        return None;
    }
    let options = fields.nth(1)?;
    let mount_point = mount.split(|byte| *byte == b' ').nth(4)?;
    let mut found = OverlayMount {
        lowers: Vec::new(),
        data: Vec::new(),
        mount_point: path(&unescape(mount_point)),
        xattrs: OverlayXattrs::FOLLOWED,
    };
    let mut is_ours = false;
    let (mut redirect_dir, mut metacopy): (&[u8], &[u8]) = (b"", b"");
    for option in options.split(|byte| *byte == b',') {
        match split_once(option, b"=").unwrap_or((option, b"")) {
            (b"upperdir", value) => is_ours = path(&unescape(value)) == upper,
            (b"lowerdir", value) => (found.lowers, found.data) = split_lowers(value),
            (b"datadir+", value) => found.data.push(path(&unescape(value))),
            (b"lowerdir+", value) => found.lowers.push(path(&unescape(value))),
            (b"redirect_dir", value) => redirect_dir = value,
            (b"metacopy", value) => metacopy = value,
            (b"userxattr", _) => found.xattrs = OverlayXattrs::User,
            _ => {}
        }
    }
    if is_ours && found.xattrs != OverlayXattrs::User {
        found.xattrs = OverlayXattrs::Trusted {
            redirects: follows_redirects(redirect_dir),
            metacopy: follows_metacopy(metacopy),
        };
    }
    is_ours.then_some(found)
}

/// Whether a parameter of the module is off. Options are only shown where they are
/// not what it says (Documentation/filesystems/overlayfs.rst).
fn is_off(parameter: &str) -> bool {
    let path = format!("/sys/module/overlay/parameters/{parameter}");
    std::fs::read(path).is_ok_and(|value| value.starts_with(b"N"))
}

fn follows_metacopy(option: &[u8]) -> bool {
    match option {
        b"on" => true,
        b"off" => false,
        _ => !is_off("metacopy"),
    }
}

fn follows_redirects(option: &[u8]) -> bool {
    match option {
        b"on" | b"follow" => true,
        b"nofollow" => false,
        b"off" => !is_off("redirect_always_follow"),
        _ => !(is_off("redirect_dir") && is_off("redirect_always_follow")),
    }
}

/// What is before and after the first `separator`.
fn split_once<'a>(text: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = text
        .windows(separator.len())
        .position(|part| part == separator)?;
    Some((text.get(..at)?, text.get(at + separator.len()..)?))
}

/// `a:b::data::more`: layers, then data-only layers. The kernel repeats what the mounter wrote, in which a backslash takes the
/// next character for itself, and escapes that in octal.
fn split_lowers(value: &[u8]) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let value = unescape(value);
    let (mut layers, mut data) = (Vec::new(), Vec::new());
    let mut is_data = false;
    let mut layer = Vec::new();
    let mut rest = value.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        match byte {
            b'\\' => layer.extend(rest.next()),
            b':' => {
                let found = path(&std::mem::take(&mut layer));
                if is_data { &mut data } else { &mut layers }.push(found);
                is_data |= rest.next_if_eq(&b':').is_some();
            }
            byte => layer.push(byte),
        }
    }
    if is_data { &mut data } else { &mut layers }.push(path(&layer));
    (layers, data)
}

fn unescape(mut rest: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
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
        let mount = mount_for_upper(text.as_bytes(), Path::new("/up per"));
        let lowers = mount.map(|mount| mount.lowers);
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
    fn data_only_layers_are_told() {
        let data = |lowerdir: &str| {
            let line = format!("1 2 0:3 / /m rw - overlay o rw,{lowerdir},upperdir=/u,workdir=/w");
            let mount = mount_for_upper(line.as_bytes(), Path::new("/u")).unwrap();
            mount.data
        };
        assert!(data("lowerdir=/a:/b").is_empty());
        assert_eq!(
            data("lowerdir=/a:/b::/d1::/d2"),
            ["/d1", "/d2"].map(PathBuf::from)
        );
        assert_eq!(data(r"lowerdir+=/a,datadir+=/d:1"), [PathBuf::from("/d:1")]);
    }

    #[test]
    fn the_attribute_prefix_is_told() {
        let line =
            r"1 2 0:3 / /m\040n rw - overlay o rw,lowerdir=/l,upperdir=/u,workdir=/w,userxattr";
        let mount = mount_for_upper(line.as_bytes(), Path::new("/u")).unwrap();
        assert_eq!(mount.xattrs, OverlayXattrs::User);
        assert_eq!(mount.mount_point, Path::new("/m n"));
        assert_eq!(mount_for_upper(b"no mountinfo", Path::new("/u")), None);
        let trusted = |redirects, metacopy| OverlayXattrs::Trusted {
            redirects,
            metacopy,
        };
        for (option, xattrs) in [
            ("redirect_dir=on,metacopy=on", trusted(true, true)),
            ("redirect_dir=follow,metacopy=off", trusted(true, false)),
            ("redirect_dir=nofollow,metacopy=off", trusted(false, false)),
            ("redirect_dir=nofollow,userxattr", OverlayXattrs::User),
        ] {
            let line = format!("1 2 0:3 / /m rw - overlay o rw,upperdir=/u,{option},lowerdir=/l");
            let mount = mount_for_upper(line.as_bytes(), Path::new("/u")).unwrap();
            assert_eq!(mount.xattrs, xattrs, "{option}");
        }
    }

    #[test]
    fn names_are_bytes_and_relative_layers_are_told() {
        let text = b"1 2 0:3 / /\xff rw - tmpfs t rw\n\
                     2 2 0:4 / /m rw - overlay o rw,lowerdir=low:/l\xe9,upperdir=/u,workdir=/w\n\
                     3 2 0:5 / / rw - overlay o rw,lowerdir=/l,upperdir=/u,workdir=/w";
        let mounts: Vec<_> = mounts_for_upper(text, Path::new("/u")).collect();
        assert_eq!(mounts.len(), 2);
        assert!(!mounts[0].has_absolute_layers());
        assert_eq!(mounts[0].lowers, [path(b"low"), path(b"/l\xe9")]);
        assert!(mounts[1].has_absolute_layers());
        assert_eq!(mounts[1].mount_point, Path::new("/"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>, options: Vec<u8>) {
            let line = [
                b"1 2 0:3 / /m rw - overlay o rw,upperdir=/u,".as_slice(),
                &options,
                b"\n",
                &bytes,
            ];
            let _any = mounts_for_upper(&line.concat(), Path::new("/u")).count();
        }
    }
}
