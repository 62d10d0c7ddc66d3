//! The worked example of docs/trail-format.md is a trail that this code
//! writes. SANDTRACE_BLESS=1 writes it into the document again.

use crate::sample::{dns, end, identity, judged, lines, start, verdict};
use sandtrace_audit_chain::forge::{self, Reseal, Signer};
use sandtrace_audit_chain::{Outcome, TrailWriter, VerifyOptions, verify};
use sandtrace_event::{Checkpoint, Payload, VerdictResult};
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
    let host = KEY.lines().next().unwrap_or_default();
    assert!(before.contains(KEY) && host == host_key().host.verifier().to_string());
    let options = VerifyOptions {
        pins: vec![host.parse().unwrap()],
        ..VerifyOptions::default()
    };
    let report = verify(shown.as_bytes(), &options).unwrap();
    assert_eq!(report.outcome, Outcome::Intact { sealed: true });
    assert!(report.signatures.unwrap().all_pinned);
}

/// The host's key, as the document shows it.
const KEY: &str = "sandtrace/host-7+b7eafb74+AQTD8/V3OkFSQJQwsLVKZF6Y9ekQGjMPu8muhyUWUDAq\n";

fn host_key() -> Signer {
    Signer::from_seed("sandtrace/host-7", [7; 32]).unwrap()
}

fn example() -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace.jsonl");
    let mut writer = TrailWriter::create(&path, identity("trace-001")).unwrap();
    let deny = verdict(VerdictResult::Deny, None, "no rule allows this name");
    writer.append(judged(10, start(), None), 0).unwrap();
    writer
        .append(judged(2_500_000, dns(), Some(deny)), 0)
        .unwrap();
    let end = end(&writer);
    writer.append(judged(3_000_000, end, None), 0).unwrap();
    writer.commit().unwrap();
    sign(&fs::read(path).unwrap())
}

/// The same trail by a host whose keys are known, so that it is always the same.
fn sign(unsigned: &[u8]) -> String {
    assert_eq!(lines(unsigned).len(), 3);
    let mut events = forge::events(unsigned).unwrap();
    if let Payload::TrailStart(start) = &mut events[0].payload {
        start.key = Some(forge::unmade_key());
    }
    let mut seal = forge::like(
        &events[2],
        Checkpoint {
            note: String::new(),
        },
    );
    seal.event_id =
        sandtrace_event::EventId::new(seal.wall_time.as_millis(), identity("trace-001").nonce, 4);
    events.push(seal);
    let how = Reseal {
        signer: Some(&host_key()),
        ..Reseal::default()
    };
    let lines = forge::reseal(&mut events, how).unwrap();
    String::from_utf8(lines.concat()).unwrap()
}
