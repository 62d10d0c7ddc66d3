//! Entries of the tables that syscalls.bpf.c keeps.

use super::BpfQuota;

/// `struct process` there.
pub(super) const PROCESS_BYTES: usize = 8;
/// `struct thread` there.
pub(super) const THREAD_BYTES: usize = 96;
/// `struct key` there.
pub(super) const KEY_BYTES: usize = 8;
/// `struct tally` there.
pub(super) const TALLY_BYTES: usize = 40;
/// `struct owner` there.
pub(super) const OWNER_BYTES: usize = 64;

/// A process of this owner.
pub(super) fn process(owner: u32) -> [u8; PROCESS_BYTES] {
    u64::from(owner).to_le_bytes()
}

/// An owner that has lost nothing and has one process.
pub(super) fn owner(quota: BpfQuota) -> [u8; OWNER_BYTES] {
    let mut value = [0; OWNER_BYTES];
    let words = [0, quota.events, 1, quota.processes];
    let places = value.iter_mut().skip(40);
    for (place, byte) in places.zip(words.into_iter().flat_map(u32::to_ne_bytes)) {
        *place = byte;
    }
    value
}

/// What the programs could not note down of one owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BpfLosses {
    /// Calls without an entry in the table of counts.
    pub calls: u64,
    /// Threads without an entry.
    pub threads: u64,
    /// Processes that could not be followed.
    pub processes: u64,
    /// Events that found the ring full, or the owner's share of it used up.
    pub events: u64,
}

impl BpfLosses {
    pub(super) fn parse(value: &[u8]) -> Self {
        Self {
            calls: long(value, 0).unwrap_or_default(),
            threads: long(value, 8).unwrap_or_default(),
            processes: long(value, 16).unwrap_or_default(),
            events: long(value, 24).unwrap_or_default(),
        }
    }
}

/// A thread of a process that is or was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BpfThread {
    /// Its id.
    pub tid: u32,
    /// Its process.
    pub pid: u32,
    /// Whose it is.
    pub owner: u32,
    /// Names it for good: no other thread has had or will have it.
    pub serial: u32,
    /// Its name.
    pub name: Vec<u8>,
    /// How often KVM left the guest on it.
    pub kvm_exits: u64,
    /// Where its registers are, which tells its place in the tables.
    pub(super) regs: u64,
}

impl BpfThread {
    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        Some(Self {
            regs: long(value, 0)?,
            kvm_exits: long(value, 32)?,
            pid: word(value, 40)?,
            owner: word(value, 44)?,
            serial: word(value, 48)?,
            name: name(value.get(56..72)?),
            tid: word(value, 76)?,
        })
    }
}

/// What the calls of one kind of one thread added up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BpfTally {
    /// The thread, by its serial.
    pub serial: u32,
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
    /// Nanoseconds between entry and return; of a thread that makes more than
    /// 16 calls within a tick of the kernel, an estimate from one call in eight.
    pub time_ns: u64,
    /// Whose it is: the same as the thread's.
    pub owner: u32,
}

impl BpfTally {
    pub(super) fn parse(key: &[u8], value: &[u8]) -> Option<Self> {
        let call = word(key, 0)?;
        Some(Self {
            serial: word(key, 4)?,
            number: call & 0x3fff_ffff,
            abi: call >> 30,
            count: long(value, 0)?,
            errors: long(value, 8)?,
            interrupted: long(value, 16)?,
            time_ns: long(value, 24)?,
            owner: word(value, 32)?,
        })
    }

    pub(super) fn key(&self) -> [u8; KEY_BYTES] {
        let [a, b, c, d] = self.call().to_ne_bytes();
        let [e, f, g, h] = self.serial.to_ne_bytes();
        [a, b, c, d, e, f, g, h]
    }

    /// Number and table in one word.
    pub(super) fn call(&self) -> u32 {
        self.number | (self.abi << 30)
    }
}

pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

pub(super) fn long(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(8)?)?;
    bytes.try_into().ok().map(u64::from_ne_bytes)
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
    fn a_tally_gives_its_key_back() {
        let mut key = (257_u32 | (1 << 30)).to_ne_bytes().to_vec();
        key.extend(7_u32.to_ne_bytes());
        let value: Vec<u8> = [1_u64, 2, 3, 4, 5]
            .into_iter()
            .flat_map(u64::to_ne_bytes)
            .collect();
        let tally = BpfTally::parse(&key, &value).unwrap();
        let expected = BpfTally {
            serial: 7,
            number: 257,
            abi: 1,
            count: 1,
            errors: 2,
            interrupted: 3,
            time_ns: 4,
            owner: 5,
        };
        assert_eq!(tally, expected);
        assert_eq!(tally.key().as_slice(), key);
        assert_eq!(BpfTally::parse(&[], &[]), None);
        assert_eq!(BpfThread::parse(&[0; 10]), None);
    }

    #[test]
    fn an_owner_begins_with_one_process_and_no_losses() {
        let quota = BpfQuota {
            events: 5,
            processes: 9,
        };
        let value = owner(quota);
        assert_eq!(BpfLosses::parse(&value), BpfLosses::default());
        let words = [40, 44, 48, 52].map(|at| word(&value, at).unwrap());
        assert_eq!(words, [0, 5, 1, 9]);
        assert_eq!(word(&process(77), 0), Some(77));
    }
}
