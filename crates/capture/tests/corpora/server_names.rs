//! Server names that two other tools found in the same captures.

use crate::published::{corpus, files};
use crate::support::{frames, run, zeek_logs};
use sandtrace_wire::FlowConfig;
use std::collections::BTreeSet;
use std::path::Path;

fn found(path: &Path) -> BTreeSet<String> {
    let (closed, _) = run(&frames(path), FlowConfig::default());
    closed.into_iter().filter_map(|flow| flow.sni).collect()
}

#[test]
fn names_of_the_ja4_corpus_are_found() {
    let Some(folder) = corpus("names_of_the_ja4_corpus_are_found", "ja4") else {
        return;
    };
    let mut names = 0;
    for path in files(&folder.join("expected/rust")) {
        let capture = folder.join("pcap").join(path.file_stem().unwrap());
        let expected = stream_names(&std::fs::read_to_string(&path).unwrap());
        names += expected.len();
        let found = found(&capture);
        let missing: Vec<_> = expected.difference(&found).collect();
        assert!(missing.is_empty(), "{}: {missing:?}", capture.display());
    }
    assert!(names > 30, "{names}");
}

/// `tls_server_name` of all streams.
fn stream_names(snapshot: &str) -> BTreeSet<String> {
    snapshot
        .split("- stream:")
        .filter_map(|stream| {
            let (_, rest) = stream.split_once("tls_server_name: ")?;
            Some(rest.lines().next()?.to_ascii_lowercase())
        })
        .collect()
}

#[test]
fn names_of_the_zeek_corpus_are_found() {
    let Some(folder) = corpus("names_of_the_zeek_corpus_are_found", "zeek") else {
        return;
    };
    let mut names = 0;
    for (capture, log) in zeek_logs(&folder, "ssl.log") {
        let expected = logged_names(&std::fs::read_to_string(&log).unwrap());
        names += expected.len();
        let found = found(&capture);
        let missing: Vec<_> = expected.difference(&found).collect();
        assert!(missing.is_empty(), "{}: {missing:?}", capture.display());
    }
    assert!(names > 5, "{names}");
}

/// `server_name` of connections without QUIC, in which Zeek saw the hello.
fn logged_names(log: &str) -> BTreeSet<String> {
    let Some(fields) = log.lines().find_map(|line| line.strip_prefix("#fields\t")) else {
        return BTreeSet::new();
    };
    let column = fields.split('\t').position(|name| name == "server_name");
    log.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split('\t').nth(column?))
        .filter(|name| *name != "-")
        .map(str::to_ascii_lowercase)
        .collect()
}
