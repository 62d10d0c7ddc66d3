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

    /// Files whose content nobody looked at.
    pub(crate) fn count_unhashed(&mut self, budget: &Budget) {
        if budget.unhashed > 0 {
            self.bounded(|| "bound on hashing reached".to_owned());
            self.bounded.count += budget.unhashed - 1;
        }
    }

    pub(crate) fn bounded(&mut self, detail: impl FnOnce() -> String) {
        self.bounded.add(detail);
    }

    pub(crate) fn unreported(&mut self, detail: impl FnOnce() -> String) {
        self.unreported.add(detail);
    }
}

/// What one scan may still spend.
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
            secrets: None,
        }
    }

    /// Looks for secrets in what is hashed from now on, if the configuration
    /// asks for that.
    pub(crate) fn look_for_secrets(mut self, config: &super::FsConfig) -> Self {
        self.secrets = config.scan_secrets.then(Findings::default);
        self
    }

    /// Leaves at most `bytes` to hash.
    pub(crate) fn cap(&mut self, bytes: u64) {
        self.hash_bytes = self.hash_bytes.min(bytes);
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
