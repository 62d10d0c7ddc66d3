//! A witness by its protocol: what it signs, what it refuses, and what it
//! never forgets.

use crate::corpora::corpus;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use proptest::prelude::*;
use sandtrace_audit_chain::checkpoint::{Checkpoint, certify};
use sandtrace_audit_chain::merkle::{CompactRange, Growth, consistency_plan, leaf_hash};
use sandtrace_audit_chain::note::{Algorithm, Note, SigningKey, VerifierKey};
use sandtrace_audit_chain::witness::{
    AddCheckpoint, MAX_PROOF, Refusal, Store, Witness, WitnessConfig, cosignatures,
};
use sandtrace_event::Digest;
use std::fs;
use std::path::Path;

const HOST: &str = "sandtrace/host-7";
const TRAIL: &str = "sandtrace/host-7/trace-001";
const LOG: &str = "example.com/log";

fn key(name: &str, seed: u8) -> SigningKey {
    SigningKey::new(name, Algorithm::Ed25519, &[seed; 32]).unwrap()
}

fn open(state: &Path, max_logs: usize) -> Witness {
    let key_of = |name, seed| key(name, seed).verifier().clone();
    let config = WitnessConfig {
        key: SigningKey::new("witness.example/w1", Algorithm::CosignatureV1, &[1; 32]).unwrap(),
        hosts: vec![key_of(HOST, 7), key_of("sandtrace/host-8", 8)],
        logs: vec![key_of(LOG, 9)],
        max_logs,
    };
    Witness::new(config, Store::open(state).unwrap()).unwrap()
}

/// A log of numbered leaves, or another one by another salt.
struct Log {
    key: SigningKey,
    salt: u8,
}

impl Log {
    fn new(name: &str, seed: u8) -> Self {
        let key = key(name, seed);
        Self { key, salt: 0 }
    }

    fn leaf(&self, index: u64) -> Digest {
        leaf_hash(&[&[self.salt][..], &index.to_be_bytes()].concat())
    }

    fn tree(&self, size: u64) -> CompactRange {
        let mut tree = CompactRange::default();
        (0..size).for_each(|index| tree.push_leaf(self.leaf(index)));
        tree
    }

    fn note(&self, size: u64) -> Note {
        let root = self.tree(size).root().unwrap();
        let checkpoint = Checkpoint::new(self.key.verifier().name(), size, root);
        checkpoint.unwrap().sign(&self.key).unwrap()
    }

    fn request(&self, old: u64, size: u64) -> AddCheckpoint {
        let mut proof = Vec::new();
        if let Some(mut plan) = consistency_plan(old, size) {
            (0..size).for_each(|index| plan.push_leaf(self.leaf(index)));
            proof = plan.finish().unwrap();
        }
        let note = self.note(size);
        AddCheckpoint { old, proof, note }
    }

    fn body(&self, old: u64, size: u64) -> Vec<u8> {
        self.request(old, size).to_string().into_bytes()
    }
}

/// The status, and the size that a conflict states.
fn status(answer: &Result<String, Refusal>) -> (u16, Option<u64>) {
    let Err(refusal) = answer else {
        return (200, None);
    };
    let size = match refusal.body() {
        ("text/x.tlog.size", body) => Some(body.trim_end().parse().unwrap()),
        _ => None,
    };
    (refusal.status(), size)
}

#[track_caller]
fn check(witness: &Witness, body: &[u8], expected: u16, size: Option<u64>) {
    let answer = witness.add_checkpoint(body, 1_700_000_000);
    assert_eq!(status(&answer), (expected, size), "{answer:?}");
}

#[test]
fn a_log_is_cosigned_as_it_grows_and_never_otherwise() {
    let state = tempfile::tempdir().unwrap();
    let witness = open(state.path(), 10);
    let (log, mut fork) = (Log::new(LOG, 9), Log::new(LOG, 9));
    fork.salt = 1;
    check(&witness, &log.body(5, 9), 409, Some(0));
    let line = witness
        .add_checkpoint(&log.body(0, 5), 1_700_000_000)
        .unwrap();
    let mut note = log.note(5);
    let signed = cosignatures(&note, line.as_bytes()).unwrap();
    signed.into_iter().for_each(|line| note.attach(line));
    let keys = [log.key.verifier().clone(), witness.key().clone()];
    let times: Vec<_> = note
        .verify(&keys)
        .unwrap()
        .iter()
        .map(|one| one.time)
        .collect();
    assert_eq!(times, [None, Some(1_700_000_000)]);

    check(&witness, &log.body(0, 9), 409, Some(5));
    check(&witness, &log.body(4, 9), 409, Some(5));
    check(&witness, &log.body(9, 5), 400, None);
    check(&witness, &log.body(5, 5), 200, None);
    check(&witness, &fork.body(5, 5), 409, Some(5));
    check(&witness, &fork.body(5, 9), 422, None);
    let mut padded = log.request(5, 9);
    padded.proof.push(Digest([0; 32]));
    check(&witness, padded.to_string().as_bytes(), 422, None);
    let mut short = log.request(5, 9);
    short.proof.pop();
    check(&witness, short.to_string().as_bytes(), 422, None);
    check(&witness, &log.body(5, 9), 200, None);
    // Backwards never again, also not with an honest proof.
    check(&witness, &log.body(5, 9), 409, Some(9));
    check(&witness, &log.body(0, 5), 409, Some(9));
    drop(witness);
    let again = open(state.path(), 10);
    check(&again, &log.body(5, 9), 409, Some(9));
    check(&again, &fork.body(9, 12), 422, None);
    check(&again, &log.body(9, 12), 200, None);
    assert!(
        again
            .newest(LOG)
            .unwrap()
            .starts_with("example.com/log\n12\n")
    );
    assert_eq!(again.logs(), 1);
}

#[test]
fn only_known_logs_with_their_own_keys() {
    let state = tempfile::tempdir().unwrap();
    let witness = open(state.path(), 10);
    check(
        &witness,
        &Log::new("example.com/other", 9).body(0, 5),
        404,
        None,
    );
    check(&witness, &Log::new(TRAIL, 4).body(0, 5), 404, None);
    check(&witness, &Log::new(LOG, 8).body(0, 5), 403, None);
    let mut unsigned = Log::new(LOG, 9).request(0, 5);
    let text = unsigned.note.text().to_owned();
    unsigned.note = Note::unsigned(text).unwrap();
    unsigned.note.sign(&key(HOST, 7), 0);
    check(&witness, unsigned.to_string().as_bytes(), 403, None);
    let body = String::from_utf8(Log::new(LOG, 9).body(0, 5)).unwrap();
    check(
        &witness,
        body.replace("\n5\n", "\n6\n").as_bytes(),
        403,
        None,
    );
    let proved = Log::new(LOG, 9).request(3, 5);
    let from_nothing = AddCheckpoint { old: 0, ..proved };
    check(&witness, from_nothing.to_string().as_bytes(), 422, None);
    assert_eq!(witness.logs(), 0, "nothing was remembered");
    assert!(witness.newest(LOG).is_err());
}

#[test]
fn malformed_requests() {
    let state = tempfile::tempdir().unwrap();
    let witness = open(state.path(), 10);
    let body = String::from_utf8(Log::new(LOG, 9).body(0, 5)).unwrap();
    let hash = BASE64_STANDARD.encode([0; 32]);
    let hashes = |count| format!("old 0\n{}", format!("{hash}\n").repeat(count));
    for bad in [
        String::new(),
        "old 0\n".to_owned(),
        "old 0\n\n".to_owned(),
        body.replace("old 0\n", ""),
        body.replace("old 0\n", "old 00\n"),
        body.replace("old 0\n", "old -1\n"),
        body.replace("old 0\n", "old  0\n"),
        body.replace("old 0\n", "old 0\r\n"),
        body.replace("old 0\n", "old 18446744073709551616\n"),
        body.replace("old 0\n", "old 0\nAAAA\n"),
        body.replace("old 0\n", &format!("old 0\n{}\n", &hash[1..])),
        body.replace("\n5\n", "\n05\n"),
        body.replace("\n5\n", "\n\n"),
        body.trim_end().to_owned(),
        body.replace("old 0\n", &hashes(MAX_PROOF + 1)),
        format!("{body}{}", "x".repeat(60_000)),
    ] {
        check(&witness, bad.as_bytes(), 400, None);
    }
    check(&witness, &[0xff; 100], 400, None);
    check(
        &witness,
        body.replace("old 0\n", &hashes(MAX_PROOF)).as_bytes(),
        422,
        None,
    );
    check(&witness, body.as_bytes(), 200, None);
}

#[track_caller]
fn check_log(witness: &Witness, note: &Note, expected: u16) {
    let answer = witness.add_log(note.to_string().as_bytes());
    let found = answer.as_ref().map_or_else(Refusal::status, |()| 200);
    assert_eq!(found, expected, "{answer:?}");
}

fn certificate(trail: &Log, by: &SigningKey) -> Note {
    certify(trail.key.verifier(), by).unwrap()
}

#[test]
fn trails_of_known_hosts_are_taken_on_with_their_keys() {
    let state = tempfile::tempdir().unwrap();
    let witness = open(state.path(), 10);
    let host = key(HOST, 7);
    let [first, second, third] = [11, 12, 13].map(|seed| Log::new(TRAIL, seed));
    check_log(&witness, &certificate(&first, &key(HOST, 99)), 403);
    check_log(
        &witness,
        &certificate(&first, &key("sandtrace/host-8", 8)),
        403,
    );
    check_log(&witness, &certificate(&Log::new(HOST, 11), &host), 403);
    check_log(
        &witness,
        &certificate(&Log::new("sandtrace/host-77/x", 11), &host),
        403,
    );
    check_log(&witness, &certificate(&second, &first.key), 403);
    check_log(&witness, &first.note(5), 403);
    check(&witness, &first.body(0, 5), 404, None);

    check_log(&witness, &certificate(&first, &host), 200);
    check_log(&witness, &certificate(&first, &host), 200);
    check(&witness, &second.body(0, 5), 403, None);
    check(&witness, &first.body(0, 5), 200, None);
    // The key hands over; its certificate is no way back.
    check_log(&witness, &certificate(&third, &second.key), 403);
    check_log(&witness, &certificate(&second, &first.key), 200);
    check(&witness, &first.body(5, 7), 403, None);
    check(&witness, &second.body(5, 7), 200, None);
    check_log(&witness, &certificate(&first, &host), 409);
    check_log(&witness, &certificate(&first, &second.key), 409);
    // After a crash the host names a new key, and the log still only grows.
    drop(witness);
    let witness = open(state.path(), 10);
    check_log(&witness, &certificate(&third, &host), 200);
    check_log(&witness, &certificate(&second, &first.key), 403);
    check(&witness, &third.body(0, 9), 409, Some(7));
    check(&witness, &third.body(7, 9), 200, None);
}

#[test]
fn there_are_no_more_logs_than_allowed() {
    let state = tempfile::tempdir().unwrap();
    let witness = open(state.path(), 2);
    let host = key(HOST, 7);
    for (number, expected) in [(1, 200), (2, 200), (3, 507)] {
        let trail = Log::new(&format!("{HOST}/{number}"), 11);
        check_log(&witness, &certificate(&trail, &host), expected);
    }
    check(&witness, &Log::new(LOG, 9).body(0, 5), 507, None);
    drop(witness);
    let witness = open(state.path(), 3);
    assert_eq!(witness.logs(), 2);
    check(&witness, &Log::new(LOG, 9).body(0, 5), 200, None);
}

#[test]
fn a_witness_that_cannot_remember_signs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("made/on/demand");
    let witness = open(&state, 10);
    let error = Store::open(&state).unwrap_err();
    assert!(error.to_string().contains("another witness"), "{error}");
    let log = Log::new(LOG, 9);
    check(&witness, &log.body(0, 5), 200, None);
    let files = || {
        fs::read_dir(&state)
            .unwrap()
            .map(|file| file.unwrap().path())
    };
    let file = files().find(|path| path.extension() == Some("log".as_ref()));
    let file = file.unwrap();
    let good = fs::read_to_string(&file).unwrap();
    for bad in [
        "",
        "\n",
        "x",
        &good[..good.len() - 1],
        &good[1..],
        &good.replace(LOG, "x"),
    ] {
        fs::write(&file, bad).unwrap();
        check(&witness, &log.body(5, 9), 500, None);
        let shown = witness
            .add_checkpoint(&log.body(5, 9), 0)
            .unwrap_err()
            .body()
            .1;
        assert!(!shown.contains("made/on"), "{shown}");
    }
    fs::write(&file, &good).unwrap();
    // Where the next state cannot be written there is no signature either.
    fs::create_dir(file.with_extension("new")).unwrap();
    check(&witness, &log.body(5, 9), 500, None);
    fs::remove_dir(file.with_extension("new")).unwrap();
    check(&witness, &log.body(5, 9), 200, None);
}

#[test]
fn requests_at_once_leave_one_history() {
    let state = tempfile::tempdir().unwrap();
    let witness = open(state.path(), 10);
    let log = Log::new(LOG, 9);
    check(&witness, &log.body(0, 1), 200, None);
    let signed: Vec<u64> = std::thread::scope(|scope| {
        let ask = |size| {
            let (witness, log) = (&witness, &log);
            scope.spawn(move || witness.add_checkpoint(&log.body(1, size), 0).map(|_| size))
        };
        let threads: Vec<_> = (2..20).map(ask).collect();
        let answers = threads.into_iter().map(|thread| thread.join().unwrap());
        answers.filter_map(Result::ok).collect()
    });
    assert_eq!(signed.len(), 1, "{signed:?}");
    check(&witness, &log.body(0, 30), 409, Some(signed[0]));
}

#[test]
fn a_tessera_log_is_witnessed() {
    let Some(folder) = corpus("a_tessera_log_is_witnessed", "merkle/tessera-log") else {
        return;
    };
    let vkey = fs::read_to_string(folder.join("vkey.txt")).unwrap();
    let vkey: VerifierKey = vkey.trim().parse().unwrap();
    let state = tempfile::tempdir().unwrap();
    let config = WitnessConfig {
        key: SigningKey::new("w", Algorithm::CosignatureV1, &[1; 32]).unwrap(),
        hosts: Vec::new(),
        logs: vec![vkey],
        max_logs: 1,
    };
    let witness = Witness::new(config, Store::open(state.path()).unwrap()).unwrap();
    let leaves = fs::read(folder.join("tile/0/000.p/15")).unwrap();
    let mut growth = Growth::since(CompactRange::default());
    for size in 0..16 {
        let note = fs::read(folder.join(format!("checkpoint.{size}"))).unwrap();
        let note = Note::parse(&note).unwrap();
        let (old, proof) = (growth.old().end(), growth.proof().unwrap_or_default());
        let request = AddCheckpoint { old, proof, note };
        check(&witness, request.to_string().as_bytes(), 200, None);
        growth = Growth::since(growth.tree());
        if let Some(leaf) = leaves.chunks(32).nth(size) {
            growth.push_leaf(Digest(leaf.try_into().unwrap()));
        }
    }
    assert_eq!(growth.size(), 15);
}

proptest! {
    #[test]
    fn requests_round_trip(old: u64, proof: Vec<[u8; 32]>, seed: u8) {
        let mut request = Log::new(LOG, seed).request(0, 3);
        request.old = old;
        request.proof = proof.into_iter().map(Digest).take(MAX_PROOF).collect();
        let read = AddCheckpoint::parse(request.to_string().as_bytes());
        prop_assert_eq!(read, Ok(request));
    }

    #[test]
    fn any_change_of_a_request_is_noticed(at: usize, bit in 0..8_u8) {
        let state = tempfile::tempdir().unwrap();
        let witness = open(state.path(), 10);
        let log = Log::new(LOG, 9);
        check(&witness, &log.body(0, 5), 200, None);
        let mut body = log.body(5, 9);
        let place = at % body.len();
        body[place] ^= 1 << bit;
        prop_assert!(witness.add_checkpoint(&body, 0).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        let _ = AddCheckpoint::parse(&bytes);
        let note = Log::new(LOG, 9).note(3);
        let _ = cosignatures(&note, &bytes);
    }
}
