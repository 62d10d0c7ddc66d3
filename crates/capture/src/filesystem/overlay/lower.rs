//! What an overlay's lower layers alone show, for the differ.

use super::super::bounds::Budget;
use super::super::content::Content;
use super::super::diff::{Base, Traces};
use super::super::layers::{Failed, Layers, Stack};
use super::super::secrets::Findings;
use super::super::tree::{Entry, PathBytes, parent};
use super::Overlay;
use super::read::Reader;
use std::collections::HashMap;

impl Overlay {
    /// The lower layers' view, for the differ. `is_foreign`: the index before
    /// is of other directories, whose times tell nothing of these.
    pub(crate) fn base<'a>(&'a self, is_foreign: bool, budget: &'a mut Budget) -> LowerView<'a> {
        LowerView {
            is_foreign,
            layers: &self.layers,
            reader: Reader::new(&self.layers, None),
            stacks: HashMap::new(),
            budget,
        }
    }
}

/// What the lower layers alone show.
pub(crate) struct LowerView<'a> {
    is_foreign: bool,
    layers: &'a Layers,
    reader: Reader<'a>,
    /// Merged directories that were looked up, `None` where there is none.
    stacks: HashMap<PathBytes, Option<Stack>>,
    budget: &'a mut Budget,
}

impl LowerView<'_> {
    fn stack(&mut self, dir: &[u8]) -> Result<Option<Stack>, Failed> {
        if dir == b"/" {
            return Ok(Some(self.layers.roots_below(0)));
        }
        if let Some(stack) = self.stacks.get(dir) {
            return Ok(stack.clone());
        }
        let mut stack = Some(self.layers.roots_below(0));
        for name in dir.split(|byte| *byte == b'/').skip(1) {
            let Some(parent) = &stack else { break };
            let found = self.layers.child(parent, name)?;
            stack = found.and_then(|found| found.dir);
        }
        // Paths come in order: a few directories suffice.
        if self.stacks.len() >= 1024 {
            self.stacks.clear();
        }
        self.stacks.insert(dir.into(), stack.clone());
        Ok(stack)
    }
}

impl Base for LowerView<'_> {
    fn lookup(&mut self, path: &[u8]) -> Result<Option<Entry>, Failed> {
        let Some(dir) = parent(path) else {
            return self.reader.root(self.budget);
        };
        let name = path.rsplit(|byte| *byte == b'/').next();
        let name = name.unwrap_or_default();
        let Some(stack) = self.stack(dir)? else {
            return Ok(None);
        };
        let found = self.layers.child(&stack, name)?;
        let read = |found| self.reader.lower_entry(&found, &stack, self.budget);
        found.map(read).transpose()
    }

    fn content(&mut self, of: &Content) -> Content {
        match of {
            Content::Lower(at) => self.reader.hash(at, self.budget),
            _ => Content::Unreadable("there is no copy of the disk".into()),
        }
    }

    fn traces(&self) -> Traces {
        if self.is_foreign {
            Traces::Times
        } else {
            Traces::Marks
        }
    }

    fn secrets(&self) -> Option<&Findings> {
        self.budget.secrets.as_ref()
    }
}
