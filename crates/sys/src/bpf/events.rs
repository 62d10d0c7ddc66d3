//! Events that syscalls.bpf.c puts into its ring.

use super::tables::{long, name, word};
use crate::syscall::ForbiddenCall;

/// Arguments of a list that are kept, and bytes of each.
const ARGV: usize = 6;
const ARGUMENT: usize = 128;

/// Where the texts of `struct event` begin.
const PATH: usize = 128;
const PATH_BYTES: usize = 256;
const ADDRESS: usize = 384;
const TEXTS: usize = 512;

/// What one event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BpfEvent {
    /// Nanoseconds of `CLOCK_BOOTTIME`.
    pub at_ns: u64,
    /// The thread.
    pub tid: u32,
    /// Its process.
    pub pid: u32,
    /// Whose process that is.
    pub owner: u32,
    /// Name of the thread.
    pub name: Vec<u8>,
    /// What happened.
    pub kind: BpfEventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BpfEventKind {
    /// A rare call.
    Call {
        /// Its number.
        number: u32,
        /// Its table: 0 native, 1 i386, 2 x32.
        abi: u32,
        /// Its arguments.
        arguments: [u64; 6],
        /// The path and whether it was cut; `None` where it could not be read.
        path: Option<(Vec<u8>, bool)>,
        /// The socket address; `None` where it could not be read.
        address: Option<Vec<u8>>,
        /// The list of strings as far as it was read, each with whether it was cut.
        argv: Vec<(Vec<u8>, bool)>,
        /// Two other texts, of a call that has no list; `None` where one could
        /// not be read.
        texts: [Option<(Vec<u8>, bool)>; 2],
    },
    /// A seccomp filter met a call: which, where that is known.
    Sigsys(Option<ForbiddenCall>),
}

impl BpfEvent {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let kind = match word(bytes, 8)? {
            1 => call(bytes)?,
            2 => {
                let number = word(bytes, 20)?;
                let arch = u32::try_from(long(bytes, 24)?).unwrap_or_default();
                let known = number != u32::MAX;
                BpfEventKind::Sigsys(known.then(|| ForbiddenCall::of(arch, number)))
            }
            _ => return None,
        };
        Some(Self {
            at_ns: long(bytes, 0)?,
            tid: word(bytes, 12)?,
            pid: word(bytes, 16)?,
            owner: word(bytes, 124)?,
            name: name(bytes.get(72..88)?),
            kind,
        })
    }
}

fn call(bytes: &[u8]) -> Option<BpfEventKind> {
    let mut arguments = [0; 6];
    for (at, argument) in arguments.iter_mut().enumerate() {
        *argument = long(bytes, 24 + 8 * at)?;
    }
    let mut argv = Vec::new();
    let own = |at: usize| text(bytes, 100 + 4 * at, TEXTS + at * ARGUMENT, ARGUMENT);
    for at in 0..ARGV {
        match own(at) {
            Some((text, cut)) if !text.is_empty() || length(bytes, 100 + 4 * at)? > 0 => {
                argv.push((text, cut));
            }
            _ => break,
        }
    }
    let address_length = usize::try_from(length(bytes, 96)?).ok();
    let address =
        address_length.and_then(|length| bytes.get(ADDRESS..ADDRESS.checked_add(length)?));
    Some(BpfEventKind::Call {
        number: word(bytes, 20)?,
        abi: word(bytes, 88)?,
        arguments,
        path: text(bytes, 92, PATH, PATH_BYTES),
        address: address.map(<[u8]>::to_vec),
        argv,
        texts: [own(0), own(1)],
    })
}

/// A text whose length, NUL included, is in a word; negative where nothing
/// could be read.
fn text(bytes: &[u8], length_at: usize, begin: usize, most: usize) -> Option<(Vec<u8>, bool)> {
    let length = usize::try_from(length(bytes, length_at)?).ok()?.min(most);
    let text = bytes.get(begin..begin.checked_add(length)?)?;
    Some((name(text), length == most))
}

fn length(bytes: &[u8], at: usize) -> Option<i32> {
    word(bytes, at).map(u32::cast_signed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_whatever_its_bytes() {
        let mut bytes = vec![0xff_u8; 1280];
        assert_eq!(BpfEvent::parse(&bytes), None);
        bytes[8..12].copy_from_slice(&1_u32.to_ne_bytes());
        assert!(BpfEvent::parse(&bytes).is_some());
        for length in 0..bytes.len() {
            let _any = BpfEvent::parse(&bytes[..length]);
        }
    }

    #[test]
    fn paths_and_lists() {
        let mut bytes = vec![0_u8; 1280];
        bytes[8..12].copy_from_slice(&1_u32.to_ne_bytes());
        bytes[92..96].copy_from_slice(&3_i32.to_ne_bytes());
        bytes[128..131].copy_from_slice(b"/x\0");
        bytes[96..100].copy_from_slice(&(-1_i32).to_ne_bytes());
        bytes[100..104].copy_from_slice(&2_i32.to_ne_bytes());
        bytes[512..514].copy_from_slice(b"a\0");
        let BpfEventKind::Call {
            path,
            address,
            argv,
            ..
        } = BpfEvent::parse(&bytes).unwrap().kind
        else {
            unreachable!()
        };
        assert_eq!(path, Some((b"/x".to_vec(), false)));
        assert_eq!(address, None);
        assert_eq!(argv, [(b"a".to_vec(), false)]);
    }
}
