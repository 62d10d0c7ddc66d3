//! No dependency may ask for a newer Rust than the workspace promises.

use super::Finding;
use super::graph::{packages, text};
use anyhow::{Context as _, Result};
use serde_json::Value;

/// Compares every `rust-version` with the workspace's.
pub(super) fn check(metadata: &Value) -> Result<Vec<Finding>> {
    let ours = packages(metadata)
        .filter(|package| package["source"].is_null())
        .filter_map(|package| parse(text(&package["rust_version"])))
        .min()
        .context("no package of the workspace says rust-version")?;
    Ok(packages(metadata)
        .filter(|package| !package["source"].is_null())
        .filter_map(|package| {
            let asked = text(&package["rust_version"]);
            (parse(asked)? > ours).then(|| {
                Finding::of(
                    text(&package["name"]),
                    format!(
                        "needs Rust {asked}, the workspace promises {}.{}",
                        ours.0, ours.1
                    ),
                )
            })
        })
        .collect())
}

fn parse(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.split('.').map(str::parse::<u32>);
    let major = parts.next()?.ok()?;
    let mut next = || parts.next().and_then(Result::ok).unwrap_or(0);
    Some((major, next(), next()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_dependency_that_is_too_new_is_found() {
        let from = |name: &str, version: Option<&str>, source: Option<&str>| json!({ "name": name, "rust_version": version, "source": source });
        let metadata = json!({ "packages": [
            from("sandtrace", Some("1.95"), None),
            from("old", Some("1.9.2"), Some("registry")),
            from("same", Some("1.95.0"), Some("registry")),
            from("silent", None, Some("registry")),
            from("new", Some("1.96"), Some("registry")),
        ] });
        let found = check(&metadata).unwrap();
        assert_eq!(
            found,
            [Finding::of(
                "new",
                "needs Rust 1.96, the workspace promises 1.95"
            )]
        );
    }
}
