//! Names of hard links that OverlayFS keeps together.

use super::{Failed, Layers, Located, failed};
use rustix::fs::Statx;

impl Layers {
    /// How many names a file of the upper dir has that are in the lower layers
    /// alone and show what was written to it all the same. With `index=on`
    /// OverlayFS keeps the names of a file together and notes how many more
    /// there are than links to the upper file or to the lower one (`ovl_get_nlink`
    /// in fs/overlayfs/inode.c). The index is itself a link to the upper file.
    /// Where the lower file is not found by `name`, one stands for all.
    pub(crate) fn names_below_alone(
        &self,
        at: &Located,
        stat: &Statx,
        (below, name): (&[Located], &[u8]),
    ) -> Result<u32, Failed> {
        if stat.stx_nlink < 2 {
            return Ok(0);
        }
        let fd = self
            .open_path(at)
            .map_err(|errno| failed("open", at, errno))?;
        let Some((of_upper, more)) = self.mark_of(&fd, at, "nlink")?.and_then(parse_links) else {
            return Ok(0);
        };
        let links = if of_upper {
            stat.stx_nlink
        } else if let Some(lower) = self.child(below, name)? {
            lower.stat.stx_nlink
        } else {
            return Ok(1);
        };
        let all = i64::from(links).saturating_add(more);
        let others = all - i64::from(stat.stx_nlink - 1);
        Ok(u32::try_from(others.max(0)).unwrap_or(u32::MAX))
    }
}

/// `U+1` or `L-2`: whether links of the upper file are meant, and how many more.
fn parse_links(value: Vec<u8>) -> Option<(bool, i64)> {
    let text = String::from_utf8(value).ok()?;
    let of_upper = match text.get(..1)? {
        "U" => true,
        "L" => false,
        _ => return None,
    };
    Some((of_upper, text.get(1..)?.parse().ok()?))
}
