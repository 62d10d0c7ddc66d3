//! Counts of what a scan may still do, and of what it could not.

use super::secrets::Findings;

/// Things of one kind that went unseen, with the first of them in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) count: u64,
    pub(crate) first: String,
}

impl Tally {
    fn add(&mut self, detail: impl FnOnce() -> String) {
        if self.count == 0 {
            self.first = detail();
        }
        self.count += 1;
    }
}

/// What one scan could not see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Problems {
    /// Directories, entries and images that could not be read.
    pub(crate) unreadable: Tally,
    /// What lies beyond a bound of the configuration.
    pub(crate) bounded: Tally,
    /// Records that one scan may not emit.
    pub(crate) unreported: Tally,
}

impl Problems {
    pub(crate) fn unreadable(&mut self, detail: impl FnOnce() -> String) {
        self.unreadable.add(detail);
    }

    /// Adds to what is said of what could not be read.
    pub(crate) fn note(&mut self, text: &str) {
        let first = &mut self.unreadable.first;
        *first = format!("{first}; {text}");
    }

    /// Files whose content or attributes nobody looked at.
    pub(crate) fn count_unread(&mut self, budget: &mut Budget) {
        let attributes = std::mem::take(&mut budget.unread_attributes);
        if attributes.count > 0 {
            self.unreadable(|| attributes.first);
            self.unreadable.count += attributes.count - 1;
        }
        let unhashed = std::mem::take(&mut budget.unhashed);
        if unhashed > 0 {
            self.bounded(|| "bound on hashing reached".to_owned());
            self.bounded.count += unhashed - 1;
        }
    }

    pub(crate) fn bounded(&mut self, detail: impl FnOnce() -> String) {
        self.bounded.add(detail);
    }

    pub(crate) fn unreported(&mut self, detail: impl FnOnce() -> String) {
        self.unreported.add(detail);
    }
}

/// Bytes of attributes that one scan reads: what four million files have.
const MOST_ATTRIBUTE_BYTES: u64 = 4 << 30;
/// Bytes of attributes that an index keeps for each path it may hold, on average.
const MEAN_ATTRIBUTES: u64 = 64;

/// Beyond what a disk has, this many bytes of holes are hashed, so that a small
/// disk cannot cost much time.
const HOLES: u64 = 1 << 30;

/// What one file system of a disk may not spend of a budget.
#[derive(Debug)]
pub(crate) struct HeldBack {
    hash_bytes: u64,
    attribute_bytes: u64,
}

/// What one scan of a disk may still spend.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    /// Most bytes of one file.
    pub(crate) hash_bound: u64,
    /// Bytes left to hash.
    pub(crate) hash_bytes: u64,
    /// Bytes hashed so far.
    pub(crate) hashed: u64,
    /// Files that were not hashed for lack of bytes left.
    pub(crate) unhashed: u64,
    /// Most paths in the index.
    pub(crate) max_paths: usize,
    /// Bytes of attributes left to read, each counted with what it takes to
    /// handle it.
    pub(crate) attribute_bytes: u64,
    /// Bytes of attributes that the index may still keep one by one.
    pub(crate) attribute_room: u64,
    /// Files whose attributes could not be read.
    pub(crate) unread_attributes: Tally,
    /// What looks like secrets in what was hashed; `None`: it is not looked for.
    pub(crate) secrets: Option<Findings>,
}

impl Budget {
    pub(crate) fn new(config: &super::FsConfig) -> Self {
        Self {
            hash_bound: config.hash_bound,
            hash_bytes: config.hash_budget,
            hashed: 0,
            unhashed: 0,
            max_paths: config.max_paths,
            attribute_bytes: MOST_ATTRIBUTE_BYTES,
            attribute_room: MEAN_ATTRIBUTES.saturating_mul(config.max_paths as u64),
            unread_attributes: Tally::default(),
            secrets: None,
        }
    }

    /// Looks for secrets in what is hashed from now on, if the configuration
    /// asks for that.
    pub(crate) fn look_for_secrets(mut self, config: &super::FsConfig) -> Self {
        self.secrets = config.scan_secrets.then(Findings::default);
        self
    }

    /// Leaves no more than reading `size` bytes can take, twice over and with
    /// some holes: files cannot hold more than their disk.
    pub(crate) fn hold_back(&mut self, size: u64) -> HeldBack {
        let most = size.saturating_mul(2).saturating_add(HOLES);
        let held = HeldBack {
            hash_bytes: self.hash_bytes.saturating_sub(most),
            attribute_bytes: self.attribute_bytes.saturating_sub(most),
        };
        self.hash_bytes -= held.hash_bytes;
        self.attribute_bytes -= held.attribute_bytes;
        held
    }

    /// Makes the rest available again.
    pub(crate) fn give_back(&mut self, held: &HeldBack) {
        self.hash_bytes += held.hash_bytes;
        self.attribute_bytes += held.attribute_bytes;
    }

    /// Takes an index's paths from what others may hold.
    pub(crate) fn take_paths(&mut self, count: usize) {
        self.max_paths = self.max_paths.saturating_sub(count);
    }

    /// Takes an attribute's bytes from what is left to read of attributes;
    /// false if that is less.
    pub(crate) fn spend_on_attribute(&mut self, bytes: usize) -> bool {
        let left = self.attribute_bytes.checked_sub(bytes as u64);
        self.attribute_bytes = left.unwrap_or_default();
        left.is_some()
    }

    /// Notes that a file's attributes could not be read.
    pub(crate) fn attributes_unread(&mut self, detail: impl FnOnce() -> String) {
        self.unread_attributes.add(detail);
    }

    /// Takes `bytes` from what is left to hash; false, and nothing taken, if
    /// that is less.
    pub(crate) fn spend(&mut self, bytes: u64) -> bool {
        match self.hash_bytes.checked_sub(bytes) {
            Some(left) => {
                self.hash_bytes = left;
                self.hashed = self.hashed.saturating_add(bytes);
                true
            }
            None => {
                self.unhashed += 1;
                false
            }
        }
    }
}
