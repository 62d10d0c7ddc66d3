//! Signed notes against the vectors of C2SP and of Go, and their signatures
//! against those of Wycheproof and of CCTV.

use crate::corpora::corpus;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use proptest::prelude::*;
use sandtrace_audit_chain::note::{Algorithm, Note, SigningKey, VerifierKey, VerifyError};
use serde_json::Value;
use std::fs;
use std::path::Path;

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let byte = |at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(byte).collect();
    bytes?.try_into().ok()
}

/// The verified signatures that a vector lists, as (name, id).
fn listed(value: &Value) -> Vec<(String, String)> {
    let one = |line: &Value| (text(&line["name"]).into(), text(&line["key_id"]).into());
    list(value).iter().map(one).collect()
}

#[track_caller]
fn check_open(vector: &Value) {
    let keys = list(&vector["verifier_keys"]).iter();
    let keys: Vec<VerifierKey> = keys.map(|key| text(key).parse().unwrap()).collect();
    let bytes = BASE64_STANDARD
        .decode(text(&vector["note_base64"]))
        .unwrap();
    let note = Note::parse(&bytes);
    let verified = note.as_ref().map(|note| note.verify(&keys));
    let found = match &verified {
        Err(_) => "malformed",
        Ok(Ok(_)) => "ok",
        Ok(Err(VerifyError::Unverified)) => "unverified",
        Ok(Err(VerifyError::Invalid { .. })) => "invalid",
        Ok(Err(VerifyError::Ambiguous { .. })) => "ambiguous",
    };
    assert_eq!(found, text(&vector["result"]), "{}", vector["name"]);
    let Ok(note) = &note else { return };
    assert_eq!(note.to_string().as_bytes(), bytes);
    if let Ok(Ok(verified)) = verified {
        assert_eq!(note.text(), text(&vector["text"]));
        let found = verified.iter().map(|found| {
            assert_eq!(found.time, None);
            (found.key.name().to_owned(), found.key.id().to_string())
        });
        assert_eq!(found.collect::<Vec<_>>(), listed(&vector["verified"]));
    }
}

#[test]
fn c2sp_notes() {
    let Some(folder) = corpus("c2sp_notes", "merkle/c2sp") else {
        return;
    };
    list(&json(&folder.join("signed-note.json"))["vectors"])
        .iter()
        .for_each(check_open);
}

#[test]
fn go_notes() {
    let Some(folder) = corpus("go_notes", "merkle/golang-note") else {
        return;
    };
    let vectors = json(&folder.join("note.json"));
    list(&vectors["open"]).iter().for_each(check_open);
    for key in list(&vectors["verifier_keys"]["valid"]) {
        let vkey: VerifierKey = text(&key["vkey"]).parse().unwrap();
        assert_eq!(vkey.to_string(), text(&key["vkey"]));
        assert_eq!(vkey.name(), text(&key["name"]));
        assert_eq!(vkey.id().to_string(), text(&key["key_id"]));
        let bytes = hex(text(&key["public_key_hex"])).unwrap();
        let same = VerifierKey::new(vkey.name(), Algorithm::Ed25519, &bytes);
        assert_eq!(same, Ok(vkey));
    }
    for key in list(&vectors["verifier_keys"]["invalid"]) {
        assert!(text(key).parse::<VerifierKey>().is_err(), "{key}");
    }
    let sign = &vectors["sign"];
    let key = SigningKey::parse(text(&sign["signing_key"])).unwrap();
    assert_eq!(*key.to_secret_text(), text(&sign["signing_key"]));
    let mut note = Note::unsigned(text(&sign["text"])).unwrap();
    // The second signature replaces the first.
    note.sign(&key, 0);
    note.sign(&key, 0);
    assert_eq!(note.to_string(), text(&sign["signed_note"]));
    assert!(Note::unsigned("abc").is_err());
}

#[test]
fn tessera_checkpoints() {
    let Some(folder) = corpus("tessera_checkpoints", "merkle/tessera-log") else {
        return;
    };
    let vkey = fs::read_to_string(folder.join("vkey.txt")).unwrap();
    let keys = [vkey.trim().parse().unwrap()];
    for size in 0..16 {
        let note = fs::read(folder.join(format!("checkpoint.{size}"))).unwrap();
        let verified = Note::parse(&note).unwrap().verify(&keys).unwrap().len();
        assert_eq!(verified, 1);
    }
}

#[test]
fn wycheproof_signatures() {
    let Some(folder) = corpus("wycheproof_signatures", "ed25519/wycheproof") else {
        return;
    };
    let mut valid = 0;
    for group in list(&json(&folder.join("ed25519_test.json"))["testGroups"]) {
        let bytes = hex(text(&group["publicKey"]["pk"])).unwrap();
        let key = VerifierKey::new("wycheproof", Algorithm::Ed25519, &bytes).unwrap();
        for test in list(&group["tests"]) {
            let message = text(&test["msg"]);
            let message: Vec<u8> = (0..message.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&message[at..at + 2], 16).unwrap())
                .collect();
            let signature = hex(text(&test["sig"]));
            let is_valid = signature.is_some_and(|signature| key.verify(&message, &signature));
            assert_eq!(is_valid, test["result"] == "valid", "{test}");
            valid += i32::from(is_valid);
        }
    }
    assert!(valid > 80, "only {valid} are valid");
}

#[test]
fn cctv_signatures() {
    let Some(folder) = corpus("cctv_signatures", "ed25519/cctv") else {
        return;
    };
    let vectors = json(&folder.join("ed25519vectors.json"));
    for vector in list(&vectors) {
        // Strict verification lets through what is of mixed order, no more.
        let flags = vector["flags"].as_array().map_or(&[][..], Vec::as_slice);
        let expected = flags
            .iter()
            .all(|flag| flag == "low_order_component_A" || flag == "low_order_component_R");
        let key = hex(text(&vector["key"])).unwrap();
        let key = VerifierKey::new("cctv", Algorithm::Ed25519, &key).ok();
        let signature = hex(text(&vector["sig"])).unwrap();
        let message = text(&vector["msg"]).as_bytes();
        let is_valid = key.is_some_and(|key| key.verify(message, &signature));
        assert_eq!(is_valid, expected, "{vector}");
    }
}

#[test]
fn a_cosignature_states_its_time() {
    let witness =
        SigningKey::new("witness.example/w1", Algorithm::CosignatureV1, &[7; 32]).unwrap();
    let log = SigningKey::new("sandtrace/h/t", Algorithm::Ed25519, &[8; 32]).unwrap();
    let mut note = Note::unsigned("sandtrace/h/t\n0\n\n").unwrap();
    note.sign(&log, 0);
    note.sign(&witness, 1_711_368_000);
    let note = Note::parse(note.to_string().as_bytes()).unwrap();
    let keys = [witness.verifier().clone(), log.verifier().clone()];
    let verified = note.verify(&keys).unwrap();
    let times: Vec<_> = verified.iter().map(|found| found.time).collect();
    assert_eq!(times, [None, Some(1_711_368_000)]);
    // The first eight bytes are the time, which is signed too.
    let blob = &note.signatures()[1].blob;
    assert_eq!(blob.len(), 8 + 64);
    let mut later = note.to_string();
    let old = BASE64_STANDARD.encode([&note.signatures()[1].id.0[..], blob].concat());
    let mut blob = blob.clone();
    blob[7] ^= 1;
    let new = BASE64_STANDARD.encode([&note.signatures()[1].id.0[..], &blob].concat());
    later = later.replace(&old, &new);
    let verified = Note::parse(later.as_bytes())
        .unwrap()
        .verify(&keys)
        .map(|_| ());
    let name = "witness.example/w1".to_owned();
    assert_eq!(verified, Err(VerifyError::Invalid { name }));
}

#[test]
fn a_key_tells_its_secret_only_when_asked() {
    let key = SigningKey::new("k", Algorithm::Ed25519, &[0x5a; 32]).unwrap();
    let shown = format!("{key:?}");
    assert!(
        !shown.contains("90, 90") && !shown.contains("5a5a"),
        "{shown}"
    );
    for bad in ["", "a b", "a+b", "a\u{a0}b", "a\n"] {
        assert!(SigningKey::new(bad, Algorithm::Ed25519, &[1; 32]).is_err());
    }
    let public = key.verifier().to_string();
    assert!(SigningKey::parse(&public).is_err());
    assert!(key.to_secret_text().parse::<VerifierKey>().is_err());
}

proptest! {
    #[test]
    fn notes_round_trip(text in "([ -~é\u{2014}\n]{0,40}\n)", seed: [u8; 32], time: u64, cut: prop::sample::Index, bit in 0_u32..8) {
        let keys = [Algorithm::Ed25519, Algorithm::CosignatureV1]
            .map(|algorithm| SigningKey::new("name", algorithm, &seed).unwrap());
        let mut note = Note::unsigned(text).unwrap();
        keys.iter().for_each(|key| note.sign(key, time));
        let bytes = note.to_string().into_bytes();
        let parsed = Note::parse(&bytes);
        prop_assert_eq!(parsed.as_ref(), Ok(&note));
        let keys = keys.map(|key| key.verifier().clone());
        prop_assert_eq!(note.verify(&keys).unwrap().len(), 2);
        // No changed bit leaves both signatures standing over another text.
        let mut changed = bytes.clone();
        changed[cut.index(bytes.len())] ^= 1 << bit;
        if let Ok(changed) = Note::parse(&changed) {
            let verified = changed.verify(&keys);
            prop_assert!(verified.is_err() || verified.unwrap().len() < 2);
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>, text in "\\PC{0,80}") {
        let _ = Note::parse(&bytes);
        let _ = text.parse::<VerifierKey>();
        let _ = Note::parse(format!("x\n\n\u{2014} {text}\n").as_bytes());
    }
}
