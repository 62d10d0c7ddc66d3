//! The worked example of docs/trail-format.md is a trail that this code
//! writes. SANDTRACE_BLESS=1 writes it into the document again.

use crate::attacks::outcome;
use crate::sample::{dns, end, identity, judged, start, verdict};
use sandtrace_audit_chain::{Outcome, TrailWriter};
use sandtrace_event::VerdictResult;
use std::{env, fs};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/trail-format.md");
const BEGIN: &str = "<!-- example: written by a test of crates/audit-chain -->\n```json\n";
const END: &str = "```\n<!-- end of example -->\n";

#[test]
fn the_worked_example_is_real() {
    let example = example();
    let document = fs::read_to_string(DOCUMENT).unwrap();
    let (before, rest) = document.split_once(BEGIN).unwrap();
    let (shown, after) = rest.split_once(END).unwrap();
    if env::var_os("SANDTRACE_BLESS").is_some() {
        fs::write(DOCUMENT, [before, BEGIN, &example, END, after].concat()).unwrap();
        return;
    }
    assert_eq!(shown, example, "SANDTRACE_BLESS=1 writes it again");
    assert_eq!(outcome(shown.as_bytes()), Outcome::Intact { sealed: true });
}

fn example() -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace.jsonl");
    let mut writer = TrailWriter::create(&path, identity("trace-001")).unwrap();
    let deny = verdict(VerdictResult::Deny, None, "no rule allows this name");
    writer.append(&judged(10, start(), None), 0).unwrap();
    writer
        .append(&judged(2_500_000, dns(), Some(deny)), 0)
        .unwrap();
    let end = end(&writer);
    writer.append(&judged(3_000_000, end, None), 0).unwrap();
    writer.commit().unwrap();
    fs::read_to_string(path).unwrap()
}
