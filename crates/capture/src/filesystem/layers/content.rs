//! Files of which a layer has the attributes alone (metacopy).

use super::{Failed, Layers, Located, Target, failed, kind, parse_redirect};
use rustix::fd::OwnedFd;
use rustix::fs::FileType;

impl Layers {
    /// Where the content of a file is that `at` holds only the attributes of;
    /// `None` if `at` holds it itself. `below`: the layers under it, where its
    /// parent is.
    pub(crate) fn content_of(
        &self,
        at: &Located,
        fd: &OwnedFd,
        below: &[Located],
    ) -> Result<Option<Located>, Failed> {
        if self.mark_of(fd, at, "metacopy")?.is_none() {
            return Ok(None);
        }
        if let Some(at) = self.in_data_layers_alone(at, fd)? {
            return Ok(Some(at));
        }
        if !self.xattrs.follows_metacopy() {
            let why = "its content is elsewhere, where the overlay does not look (metacopy=off)";
            return Err(failed("look up", at, why));
        }
        let name = at.path.rsplit(|byte| *byte == b'/').next();
        let mut target = Target::Name(name.unwrap_or_default().into());
        let mut stack = below.to_vec();
        if let Some(redirect) = self.redirect_of(fd, at)? {
            target = redirect;
            if matches!(target, Target::Absolute(_)) {
                stack = self.roots_below(at.layer);
            }
        }
        let missing = || "the lower file that holds its content was not found".to_owned();
        let found = match self.find(stack.clone(), target.clone())? {
            Some(found) => found,
            None => return Ok(Some(self.in_data_layers(&target)?.ok_or_else(missing)?)),
        };
        if kind(&found.stat) != FileType::RegularFile || found.at.layer <= at.layer {
            return Err(missing());
        }
        let fd = self
            .open_path(&found.at)
            .map_err(|errno| failed("open", &found.at, errno))?;
        stack.retain(|parent| parent.layer > found.at.layer);
        let deeper = self.content_of(&found.at, &fd, &stack)?;
        Ok(Some(deeper.unwrap_or(found.at)))
    }

    /// What the lowest layer of the merge names in data-only layers is found by any
    /// overlay (since Linux 6.16), whatever else it follows.
    fn in_data_layers_alone(&self, at: &Located, fd: &OwnedFd) -> Result<Option<Located>, Failed> {
        let is_lowest = at.layer > 0 && at.layer + 1 == self.merged;
        if !is_lowest || self.merged == self.roots.len() {
            return Ok(None);
        }
        match self.mark_of(fd, at, "redirect")? {
            Some(value) => self.in_data_layers(&parse_redirect(&value)?),
            None => Ok(None),
        }
    }

    /// The file that an absolute redirect names in the topmost data-only layer
    /// that has it. There are no marks in such a layer, and nothing is merged.
    fn in_data_layers(&self, target: &Target) -> Result<Option<Located>, Failed> {
        let Target::Absolute(path) = target else {
            return Ok(None);
        };
        for layer in self.merged..self.roots.len() {
            let path = path.clone();
            let at = Located { layer, path };
            if let Some((_, stat)) = self.stat(&at)? {
                return Ok((kind(&stat) == FileType::RegularFile).then_some(at));
            }
        }
        Ok(None)
    }
}
