//! Vectors that others published.

use crate::naive::only_safe_integers;
use sandtrace_audit_chain::jcs::{Error, check, to_vec};
use serde_json::Value;
use std::path::PathBuf;
use std::{env, fs};

/// A folder of the corpora; `None` where they are not there, which only a
/// machine that is no CI may say.
pub(crate) fn corpus(test: &str, name: &str) -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/corpora");
    let root = env::var_os("SANDTRACE_CORPORA").map_or_else(|| beside.into(), PathBuf::from);
    let folder = root.join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(
        env::var_os("CI").is_none(),
        "{} is missing",
        folder.display()
    );
    println!("skipped: {test}: no corpora");
    None
}

#[test]
fn rfc8785_vectors() {
    let Some(folder) = corpus("rfc8785_vectors", "jcs") else {
        return;
    };
    for (name, has_floats) in [
        ("arrays", false),
        ("french", false),
        ("structures", true), // 56.0
        ("unicode", false),
        ("values", true), // 1E30, 4.50, …
        ("weird", false),
    ] {
        let read = |part: &str| fs::read(folder.join(part).join(format!("{name}.json"))).unwrap();
        let value: Value = serde_json::from_slice(&read("input")).unwrap();
        let output = read("output");
        if has_floats {
            assert_eq!(to_vec(&value), Err(Error::Float), "{name}");
        } else {
            assert_eq!(to_vec(&value).as_ref(), Ok(&output), "{name}");
        }
        // 56.0 is 56 in canonical form; the others stay fractions.
        assert_eq!(check(&output).is_ok(), name != "values", "{name}");
        assert!(check(&read("input")).is_err(), "{name}");
    }
}

#[test]
fn json_test_suite() {
    let Some(folder) = corpus("json_test_suite", "json-suite/test_parsing") else {
        return;
    };
    let mut accepted = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let bytes = fs::read(&path).unwrap();
        let is_accepted = check(&bytes).is_ok();
        if name.starts_with("n_") {
            assert!(!is_accepted, "{name}");
        }
        let value: Option<Value> = serde_json::from_slice(&bytes).ok();
        let is_canonical = value.as_ref().is_some_and(|value| {
            serde_json::to_vec(value).unwrap() == bytes && only_safe_integers(value, 1)
        });
        assert_eq!(is_accepted, is_canonical, "{name}");
        accepted += usize::from(is_accepted);
    }
    assert!(accepted > 20, "only {accepted} files are canonical");
}
