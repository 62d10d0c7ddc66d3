//! The one list of allowed licences: deny.toml, which cargo-deny reads too.

use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::Path;

/// The `allow` list of deny.toml's `[licenses]` table.
pub(crate) fn allowed_licences(root: &Path) -> Result<Vec<String>> {
    let path = root.join("deny.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let allowed = parse(&text);
    if allowed.is_empty() {
        bail!("{}: no `allow` list in [licenses]", path.display());
    }
    Ok(allowed)
}

/// Reads `allow = [` and then one quoted name on each line up to `]`, which is
/// how the file is written.
fn parse(text: &str) -> Vec<String> {
    text.lines()
        .map(str::trim)
        .skip_while(|line| *line != "[licenses]")
        .skip_while(|line| *line != "allow = [")
        .skip(1)
        .take_while(|line| *line != "]")
        .filter_map(|line| line.strip_prefix('"')?.split_once('"'))
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allow_list_of_the_licences() {
        let text = "[bans]\nallow = [\n  \"no\",\n]\n[licenses]\nversion = 2\nallow = [\n    \
                    \"MIT\",\n    # with an exception\n    \"Apache-2.0 WITH LLVM-exception\",\n]\n";
        assert_eq!(parse(text), ["MIT", "Apache-2.0 WITH LLVM-exception"]);
        assert!(parse("[licenses]\n").is_empty());
    }
}
