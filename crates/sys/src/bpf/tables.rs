//! Entries of the tables that syscalls.bpf.c keeps.

/// `struct thread` there.
pub(super) const THREAD_BYTES: usize = 40;
/// `struct key` there.
pub(super) const KEY_BYTES: usize = 8;
/// `struct tally` there.
pub(super) const TALLY_BYTES: usize = 32;

/// A thread of a process that is or was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BpfThread {
    /// Its id.
    pub tid: u32,
    /// Its process.
    pub pid: u32,
    /// It makes no more calls.
    pub ended: bool,
    /// Its name when it was first seen, or when it ended.
    pub name: Vec<u8>,
}

impl BpfThread {
    pub(super) fn parse(key: &[u8], value: &[u8]) -> Option<Self> {
        Some(Self {
            tid: word(key, 0)?,
            pid: word(value, 0)?,
            ended: *value.get(19)? != 0,
            name: name(value.get(20..36)?),
        })
    }
}

/// What the calls of one kind of one thread added up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BpfTally {
    /// The thread.
    pub tid: u32,
    /// Number of the call.
    pub number: u32,
    /// Its table: 0 native, 1 i386, 2 x32.
    pub abi: u32,
    /// Calls that returned.
    pub count: u64,
    /// Of those, errors.
    pub errors: u64,
    /// Of those, interrupted and left to be restarted.
    pub interrupted: u64,
    /// Nanoseconds between entry and return.
    pub time_ns: u64,
}

impl BpfTally {
    /// Sums over CPUs: a thread may have run on several.
    pub(super) fn parse(key: &[u8], value: &[u8]) -> Option<Self> {
        let call = word(key, 4)?;
        let mut sums = [0_u64; 4];
        for part in value.chunks_exact(TALLY_BYTES) {
            for (sum, bytes) in sums.iter_mut().zip(part.chunks_exact(8)) {
                let own = bytes.try_into().map(u64::from_ne_bytes).unwrap_or_default();
                *sum = sum.saturating_add(own);
            }
        }
        let [count, errors, interrupted, time_ns] = sums;
        Some(Self {
            tid: word(key, 0)?,
            number: call & 0x3fff_ffff,
            abi: call >> 30,
            count,
            errors,
            interrupted,
            time_ns,
        })
    }

    pub(super) fn key(&self) -> [u8; KEY_BYTES] {
        let [a, b, c, d] = self.tid.to_ne_bytes();
        let [e, f, g, h] = (self.number | (self.abi << 30)).to_ne_bytes();
        [a, b, c, d, e, f, g, h]
    }
}

pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

/// A name up to its NUL.
pub(super) fn name(bytes: &[u8]) -> Vec<u8> {
    bytes
        .iter()
        .copied()
        .take_while(|&byte| byte != 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_is_the_sum_over_cpus_and_gives_its_key_back() {
        let mut key = 7_u32.to_ne_bytes().to_vec();
        key.extend((257_u32 | (1 << 30)).to_ne_bytes());
        let parts: Vec<u8> = [1_u64, 2, 3, 4, 10, 20, 30, 40]
            .iter()
            .flat_map(|part| part.to_ne_bytes())
            .collect();
        let tally = BpfTally::parse(&key, &parts).unwrap();
        let expected = BpfTally {
            tid: 7,
            number: 257,
            abi: 1,
            count: 11,
            errors: 22,
            interrupted: 33,
            time_ns: 44,
        };
        assert_eq!(tally, expected);
        assert_eq!(tally.key().as_slice(), key);
        assert_eq!(BpfTally::parse(&[], &[]), None);
        assert_eq!(BpfThread::parse(&key, &[0; 10]), None);
    }
}
