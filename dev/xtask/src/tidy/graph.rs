//! Which crate may depend on which (ARCHITECTURE.md), and from where.

use super::Finding;
use serde_json::Value;

/// What a package of the workspace may depend on.
enum May {
    Only(&'static [&'static str]),
    Anything,
}

/// The allowed edges; a package that is not listed may depend on none of ours.
const EDGES: &[(&str, May)] = &[
    ("sandtrace-event", May::Only(&[])),
    ("sandtrace-wire", May::Only(&[])),
    ("sandtrace-sys", May::Only(&[])),
    (
        "sandtrace-capture",
        May::Only(&["sandtrace-sys", "sandtrace-wire", "sandtrace-event"]),
    ),
    ("sandtrace-policy", May::Only(&["sandtrace-event"])),
    ("sandtrace-audit-chain", May::Only(&["sandtrace-event"])),
    ("sandtrace-output", May::Only(&["sandtrace-event"])),
    (
        "sandtrace-provider",
        May::Only(&["sandtrace-sys", "sandtrace-event"]),
    ),
    ("sandtrace", May::Anything),
    (
        "sandtrace-lab",
        May::Only(&["sandtrace-guest", "sandtrace-sys", "sandtrace-event"]),
    ),
    ("sandtrace-guest", May::Only(&["sandtrace-sys"])),
    ("sandtrace-bench", May::Anything),
    ("sandtrace-fuzz", May::Anything),
    ("xtask", May::Only(&[])),
];

/// Edges between packages of the workspace, of every kind: what a test of a
/// crate needs is as much a coupling as what the crate needs.
pub(super) fn check(metadata: &Value) -> Vec<Finding> {
    let ours: Vec<&Value> = packages(metadata)
        .filter(|p| p["source"].is_null())
        .collect();
    let is_ours = |name: &str| ours.iter().any(|package| package["name"] == name);
    let mut findings = Vec::new();
    for package in &ours {
        let name = text(&package["name"]);
        let Some((_, may)) = EDGES.iter().find(|(listed, _)| *listed == name) else {
            findings.push(Finding::of(
                name,
                "not in the table of dev/xtask/src/tidy/graph.rs: say what it may depend on",
            ));
            continue;
        };
        let May::Only(allowed) = may else { continue };
        for dependency in array(&package["dependencies"]) {
            let dependency = text(&dependency["name"]);
            if is_ours(dependency) && !allowed.contains(&dependency) {
                findings.push(Finding::of(
                    name,
                    format!("must not depend on {dependency} (see ARCHITECTURE.md)"),
                ));
            }
        }
    }
    findings
}

/// Everything comes from the workspace or from crates.io.
pub(super) fn check_sources(metadata: &Value) -> Vec<Finding> {
    const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
    packages(metadata)
        .filter(|package| !package["source"].is_null() && package["source"] != REGISTRY)
        .map(|package| {
            let source = text(&package["source"]);
            Finding::of(
                text(&package["name"]),
                format!("comes from {source}, not from crates.io"),
            )
        })
        .collect()
}

/// How many packages are checked.
pub(super) fn count(metadata: &Value) -> usize {
    packages(metadata).count()
}

/// The packages of `cargo metadata`.
pub(super) fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    array(&metadata["packages"])
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A text, or nothing where it is null.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn package(name: &str, needs: &[&str]) -> Value {
        let needs: Vec<_> = needs.iter().map(|name| json!({ "name": name })).collect();
        json!({ "name": name, "source": null, "dependencies": needs })
    }

    #[track_caller]
    fn check_edge(from: &str, to: &str, expected: usize) {
        let metadata = json!({ "packages": [package(from, &[to, "serde"]), package(to, &[])] });
        assert_eq!(check(&metadata).len(), expected, "{from} -> {to}");
    }

    #[test]
    fn the_direction_of_dependencies() {
        check_edge("sandtrace-capture", "sandtrace-wire", 0);
        check_edge("sandtrace", "sandtrace-lab", 0);
        check_edge("sandtrace-provider", "sandtrace-capture", 1);
        check_edge("sandtrace-output", "sandtrace-audit-chain", 1);
        check_edge("sandtrace-policy", "sandtrace-audit-chain", 1);
        check_edge("sandtrace-event", "sandtrace-sys", 1);
        check_edge("xtask", "sandtrace-lab", 1);
    }

    #[test]
    fn a_package_outside_the_table_is_found() {
        let metadata = json!({ "packages": [package("sandtrace-novel", &[])] });
        assert_eq!(check(&metadata).len(), 1);
    }

    #[test]
    fn a_git_dependency_is_found() {
        let metadata = json!({ "packages": [
            { "name": "a", "source": "registry+https://github.com/rust-lang/crates.io-index" },
            { "name": "b", "source": "git+https://example.org/b" },
            { "name": "c", "source": null },
        ] });
        let found = check_sources(&metadata);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].place, "b");
    }
}
