//! The host's key as its operator handles it. These need no root.

use crate::support::{Dir, run};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

fn keys(dir: &str, words: &[&str]) -> Vec<String> {
    let mut args = vec!["keys".to_owned()];
    args.extend(words.iter().map(|word| (*word).to_owned()));
    args.extend(["--state-dir".to_owned(), dir.to_owned()]);
    args
}

#[test]
fn a_key_is_made_shown_and_replaced() {
    let dir = Dir::new();
    let state = dir.text("state");
    run(&keys(&state, &["show"]))
        .expect(69)
        .one_line(&["does not exist", "sandtrace keys init"]);
    let first = run(&keys(&state, &["init"])).expect(0).quiet().stdout;
    assert!(first.starts_with("sandtrace/"), "{first}");
    let mode = fs::metadata(dir.path("state/host.key"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(
        run(&keys(&state, &["show"])).expect(0).quiet().stdout,
        first
    );
    run(&keys(&state, &["init"]))
        .expect(73)
        .one_line(&["exists"]);
    let secret = fs::read_to_string(dir.path("state/host.key")).unwrap();

    let second = run(&keys(&state, &["rotate"])).expect(0).stdout;
    assert_ne!(first, second);
    assert_eq!(run(&keys(&state, &["show"])).expect(0).stdout, second);
    let shown = run(&keys(&state, &["show", "--json"])).expect(0).stdout;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["vkey"], second.trim_end());
    assert_eq!(shown["earlier"][0]["vkey"], first.trim_end());
    let note = shown["earlier"][0]["hand_over"].as_str().unwrap();
    assert!(note.contains(second.trim_end()), "{note}");
    // Nothing of the old key is left, under any name.
    for entry in fs::read_dir(dir.path("state")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(!text.contains(secret.trim_end()));
    }
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let dir = Dir::new();
    let state = dir.text("state");
    run(&keys(&state, &["init"])).expect(0);
    let path = dir.path("state/host.key");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    run(&keys(&state, &["show"]))
        .expect(77)
        .one_line(&["mode 0640", "chmod 600"]);
}
