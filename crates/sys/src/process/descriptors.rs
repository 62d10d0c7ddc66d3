//! What a process has open.

use super::{Process, read};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat, readlinkat, statat};
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Most descriptors of one process that are looked at.
const MAX_DESCRIPTORS: usize = 65_536;

/// Which file it is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    /// Major and minor number of the file system that holds it.
    pub device: (u32, u32),
    /// Its inode there.
    pub inode: u64,
}

impl FileId {
    /// Looks up what `path` names, following links.
    ///
    /// # Errors
    /// When it cannot be looked up.
    pub fn of(path: &Path) -> io::Result<Self> {
        Self::at(rustix::fs::CWD, path)
    }

    pub(super) fn at(base: impl AsFd, path: impl rustix::path::Arg) -> io::Result<Self> {
        Ok(Self::from_stat(&statat(base, path, AtFlags::empty())?))
    }

    pub(super) fn from_stat(stat: &Stat) -> Self {
        Self {
            device: (
                rustix::fs::major(stat.st_dev),
                rustix::fs::minor(stat.st_dev),
            ),
            inode: stat.st_ino,
        }
    }

    /// The device as `major:minor`.
    #[must_use]
    pub fn device_text(&self) -> String {
        format!("{}:{}", self.device.0, self.device.1)
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{} inode {}",
            self.device.0, self.device.1, self.inode
        )
    }
}

/// One open descriptor of another process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Its number there.
    pub number: u32,
    /// What its link in `/proc/PID/fd` says: usually a path as that process
    /// sees it. Only for people; never to be opened.
    pub name: PathBuf,
    /// What it refers to.
    pub kind: DescriptorKind,
}

/// What a descriptor refers to, as far as a sandbox is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DescriptorKind {
    /// A queue of a tap device.
    Tap {
        /// The interface, in whichever namespace that is.
        interface: String,
    },
    /// A regular file on some file system (not memory).
    File {
        /// Which.
        id: FileId,
        /// How it was opened.
        access: Access,
    },
    /// A block device.
    Block {
        /// Which.
        id: FileId,
        /// How it was opened.
        access: Access,
    },
}

/// How a file was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// For reading.
    Read,
    /// For writing.
    Write,
    /// For both.
    ReadWrite,
}

/// The descriptors of a process that can matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Descriptors {
    /// In ascending order of their numbers.
    pub open: Vec<Descriptor>,
    /// There were more than anybody looks at.
    pub truncated: bool,
}

impl Process {
    /// Taps, files and block devices that the process has open. A descriptor
    /// that is closed meanwhile is left out.
    ///
    /// # Errors
    /// When the process is gone, or may not be looked into (`CAP_SYS_PTRACE`).
    pub fn descriptors(&self) -> io::Result<Descriptors> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(&self.dir, "fd", flags, Mode::empty())?;
        let mut numbers = Vec::new();
        let mut truncated = false;
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            let name = entry.file_name().to_str().ok();
            let Some(number) = name.and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            if numbers.len() == MAX_DESCRIPTORS {
                truncated = true;
                break;
            }
            numbers.push(number);
        }
        numbers.sort_unstable();
        let open = numbers.into_iter();
        let open = open.filter_map(|number| self.descriptor(&dir, number));
        Ok(Descriptors {
            open: open.collect(),
            truncated,
        })
    }

    fn descriptor(&self, dir: impl AsFd, number: u32) -> Option<Descriptor> {
        let link = readlinkat(&dir, number.to_string(), Vec::new()).ok()?;
        let name = PathBuf::from(OsString::from_vec(link.into_bytes()));
        // Sockets, pipes and anonymous memory are none of what is looked
        // for; the kernel's names for them do not begin with a slash, save
        // that of memfd_create(2).
        if !name.is_absolute() || name.as_os_str().as_encoded_bytes().starts_with(b"/memfd:") {
            return None;
        }
        let stat = statat(&dir, number.to_string(), AtFlags::empty()).ok()?;
        let info = read(&self.dir, &format!("fdinfo/{number}"), 4096).ok()?;
        let info = String::from_utf8_lossy(&info);
        let id = FileId::from_stat(&stat);
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => DescriptorKind::File {
                id,
                access: access(&info)?,
            },
            FileType::BlockDevice => DescriptorKind::Block {
                id,
                access: access(&info)?,
            },
            FileType::CharacterDevice => DescriptorKind::Tap {
                interface: tap(&info)?,
            },
            _ => return None,
        };
        Some(Descriptor { number, name, kind })
    }
}

/// `flags:` in `/proc/PID/fdinfo/N`: the octal flags of open(2).
pub(super) fn access(info: &str) -> Option<Access> {
    const O_PATH: u32 = 0o10_000_000;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
    let flags = u32::from_str_radix(flags.trim(), 8).ok()?;
    match flags & 3 {
        _ if flags & O_PATH != 0 => None,
        0 => Some(Access::Read),
        1 => Some(Access::Write),
        2 => Some(Access::ReadWrite),
        _ => None,
    }
}

/// `iff:` in the fdinfo of an attached `/dev/net/tun`
/// (`tun_chr_show_fdinfo` in drivers/net/tun.c). No other driver has it.
pub(super) fn tap(info: &str) -> Option<String> {
    let name = info.lines().find_map(|line| line.strip_prefix("iff:\t"))?;
    (!name.is_empty() && name.len() < 16).then(|| name.to_owned())
}
