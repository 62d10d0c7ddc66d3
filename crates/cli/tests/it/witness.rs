//! A witness over loopback: the protocol's answers, and a restart.

use crate::support::{Dir, Running, eventually, sandtrace};
use rustix::process::Signal;
use sandtrace_audit_chain::checkpoint::{Checkpoint, certify};
use sandtrace_audit_chain::merkle::{CompactRange, Growth, leaf_hash};
use sandtrace_audit_chain::note::{Algorithm, Note, SigningKey, VerifierKey};
use sandtrace_audit_chain::witness::{AddCheckpoint, cosignatures};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

const TRAIL: &str = "sandtrace/host-7/trace-001";

fn key(name: &str, seed: u8) -> SigningKey {
    SigningKey::new(name, Algorithm::Ed25519, &[seed; 32]).unwrap()
}

/// A witness of one host's trails, and where it listens.
fn serve(folder: &Dir) -> (Running, String) {
    let host = key("sandtrace/host-7", 7).verifier().to_string();
    let state = folder.text("state");
    let running = Running::start(sandtrace(&[
        "witness",
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--state",
        &state,
        "--host-key",
        &host,
        "--name",
        "w.example/1",
    ]));
    let address = eventually("the witness listens", || {
        let said = running.stderr();
        let rest = said.split(" on http://").nth(1)?;
        Some(rest.split(',').next()?.to_owned())
    });
    (running, address)
}

/// Status and body of what is answered to these bytes.
fn exchange(address: &str, bytes: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

fn post(address: &str, path: &str, body: &str) -> (u16, String) {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: w\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    exchange(address, format!("{head}{body}").as_bytes())
}

fn request(key: &SigningKey, salt: u8, old: u64, size: u64) -> String {
    let tree = |range: std::ops::Range<u64>| {
        let mut tree = CompactRange::starting_at(range.start);
        range.for_each(|leaf| {
            tree.push_leaf(leaf_hash(&[&[salt][..], &leaf.to_be_bytes()].concat()));
        });
        tree
    };
    let mut growth = Growth::since(tree(0..old.min(size)));
    growth.append(&tree(old.min(size)..size)).unwrap();
    let root = tree(0..size).root().unwrap();
    let checkpoint = Checkpoint::new(TRAIL, size, root).unwrap();
    let note = checkpoint.sign(key).unwrap();
    let proof = growth.proof().unwrap_or_default();
    AddCheckpoint { old, proof, note }.to_string()
}

#[track_caller]
fn check(address: &str, body: &str, status: u16, answer: &str) {
    let found = post(address, "/add-checkpoint", body);
    assert_eq!(found.0, status, "{found:?}");
    assert!(found.1.starts_with(answer), "{found:?}");
}

#[test]
fn the_protocol_and_a_restart() {
    let folder = Dir::new();
    let (running, address) = serve(&folder);
    let (host, trail) = (key("sandtrace/host-7", 7), key(TRAIL, 11));
    let first = request(&trail, 0, 0, 5);
    check(&address, &first, 404, "unknown log");
    let stranger = certify(trail.verifier(), &key("sandtrace/host-7", 8)).unwrap();
    assert_eq!(post(&address, "/add-log", &stranger.to_string()).0, 403);
    let certificate = certify(trail.verifier(), &host).unwrap();
    assert_eq!(
        post(&address, "/add-log", &certificate.to_string()),
        (200, String::new())
    );
    check(&address, &request(&key(TRAIL, 12), 0, 0, 5), 403, "");
    check(&address, &request(&trail, 0, 3, 5), 409, "0\n");
    check(&address, "old 5\n", 400, "malformed");
    let (status, line) = post(&address, "/add-checkpoint", &first);
    assert_eq!(status, 200);
    let mut note: Note = AddCheckpoint::parse(first.as_bytes()).unwrap().note;
    let lines = cosignatures(&note, line.as_bytes()).unwrap();
    lines.into_iter().for_each(|line| note.attach(line));
    let vkey: VerifierKey = running.stdout().trim().parse().unwrap();
    assert!(note.verify(&[vkey]).is_ok());
    check(&address, &request(&trail, 1, 5, 9), 422, "");
    check(&address, &request(&trail, 1, 5, 5), 409, "5\n");
    check(&address, &request(&trail, 0, 9, 5), 400, "");
    running.signal(Signal::TERM);
    running.wait().expect(0);
    let (again, address) = serve(&folder);
    check(&address, &first, 409, "5\n");
    check(
        &address,
        &request(&trail, 0, 5, 9),
        200,
        "\u{2014} w.example/1 ",
    );
    let newest = exchange(
        &address,
        format!("GET /checkpoint/{TRAIL} HTTP/1.1\r\n\r\n").as_bytes(),
    );
    assert!(newest.1.starts_with(&format!("{TRAIL}\n9\n")), "{newest:?}");
    again.signal(Signal::INT);
    again.wait().expect(0);
}
