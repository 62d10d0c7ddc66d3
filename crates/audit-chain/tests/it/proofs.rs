//! Proofs of single records of signed trails: made, checked, and broken.

use crate::sample::{dns, end, identity, judged, start, verdict};
use sandtrace_audit_chain::note::{Algorithm, SigningKey, VerifierKey};
use sandtrace_audit_chain::proof::make::{Chosen, MakeError};
use sandtrace_audit_chain::proof::{Proof, ProofFault, Shown, Texts};
use sandtrace_audit_chain::witness::WitnessPolicy;
use sandtrace_audit_chain::{TrailSigner, TrailWriter};
use sandtrace_event::{Cosignature, Payload, VerdictResult};
use std::path::PathBuf;

fn host() -> SigningKey {
    SigningKey::new("sandtrace/host-7", Algorithm::Ed25519, &[7; 32]).unwrap()
}

fn witness() -> SigningKey {
    SigningKey::new("w.example/1", Algorithm::CosignatureV1, &[8; 32]).unwrap()
}

/// A sealed trail of `count` questions, every third of them denied.
fn trail(count: u64, cosigned: bool) -> (tempfile::TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace.jsonl");
    let signer = TrailSigner::new(&start().origin, &host()).unwrap();
    let mut writer = TrailWriter::create_signed(&path, identity("trace-001"), signer).unwrap();
    writer.append(judged(10, start(), None), 0).unwrap();
    for number in 0..count {
        let deny = verdict(VerdictResult::Deny, None, "no");
        let verdict = number.is_multiple_of(3).then_some(deny);
        writer.append(judged(20, dns(), verdict), 0).unwrap();
    }
    let last = end(&writer);
    writer.append(judged(30, last, None), 0).unwrap();
    let sealed = writer.seal(crate::sample::at(40), 0).unwrap();
    if cosigned {
        let Payload::Checkpoint(checkpoint) = &sealed.iter().last().unwrap().event.payload else {
            panic!("the trail has no seal");
        };
        let mut note =
            sandtrace_audit_chain::note::Note::parse(checkpoint.note.as_bytes()).unwrap();
        note.sign(&witness(), 1_700_000_000);
        let cosignature = Cosignature {
            note: note.to_string(),
            witness: "http://w.example:80".to_owned(),
        };
        writer.append(judged(50, cosignature, None), 0).unwrap();
        writer.commit().unwrap();
    }
    (dir, vec![path])
}

fn proofs(files: &[PathBuf], wanted: impl Fn(u64) -> bool) -> Vec<Proof> {
    let chosen = Chosen::read(files, |seq, _| Ok(wanted(seq))).unwrap();
    let mut proofs = Vec::new();
    chosen
        .prove::<MakeError>(files, |proof| {
            proofs.push(proof);
            Ok(())
        })
        .unwrap();
    proofs
}

fn check(proof: &Proof, pins: &[VerifierKey]) -> Result<Shown, ProofFault> {
    let text = proof.to_text().unwrap();
    assert_eq!(Proof::parse(&text).as_ref(), Ok(proof));
    proof.check(pins, None)
}

#[test]
fn every_record_of_a_trail_is_proved_with_the_hosts_key_alone() {
    for count in [0, 1, 2, 6, 13] {
        let (_dir, files) = trail(count, false);
        let pins = [host().verifier().clone()];
        let made = proofs(&files, |seq| seq <= count + 2);
        assert_eq!(made.len() as u64, count + 2);
        for (proof, seq) in made.iter().zip(1..) {
            let shown = check(proof, &pins).unwrap();
            assert_eq!((shown.seq, shown.size), (seq, count + 2));
            assert_eq!(shown.origin, start().origin);
        }
        let other = SigningKey::new("sandtrace/host-7", Algorithm::Ed25519, &[9; 32]).unwrap();
        let refused = made[0].check(&[other.verifier().clone()], None);
        assert!(
            matches!(refused, Err(ProofFault::Untrusted(_))),
            "{refused:?}"
        );
        assert!(check(&made[0], &[]).is_ok());
    }
}

#[test]
fn a_quorum_of_witnesses_may_be_asked_for() {
    let pins = [host().verifier().clone()];
    let text = format!("witness w {}\nquorum w\n", witness().verifier());
    let policy = WitnessPolicy::parse(text).unwrap();
    for cosigned in [true, false] {
        let (_dir, files) = trail(5, cosigned);
        let made = proofs(&files, |seq| seq == 3);
        let checked = made[0].check(&pins, Some(&policy));
        match checked {
            Ok(shown) => assert_eq!(shown.witnesses, ["w.example/1"]),
            Err(ref fault) => assert!(matches!(fault, ProofFault::Untrusted(_)), "{fault}"),
        }
        assert_eq!(made[0].check(&pins, Some(&policy)).is_ok(), cosigned);
    }
}

#[test]
fn a_file_of_many_proofs_is_read_one_by_one() {
    let (_dir, files) = trail(9, false);
    let made = proofs(&files, |seq| seq % 2 == 0 && seq < 10);
    let file: String = made.iter().map(|proof| proof.to_text().unwrap()).collect();
    let mut texts = Texts::new(file.as_bytes());
    for proof in &made {
        let text = texts.next_text().unwrap().unwrap();
        assert_eq!(Proof::parse(&text).as_ref(), Ok(proof));
    }
    assert_eq!(texts.next_text().unwrap(), None);
}

/// Flips every bit of a proof: what is left is refused, or is the same proof
/// but for signatures that nobody looks at.
#[test]
fn no_bit_of_a_proof_can_be_changed() {
    let (_dir, files) = trail(5, false);
    let pins = [host().verifier().clone()];
    let made = proofs(&files, |seq| seq == 4);
    let text = made[0].to_text().unwrap().into_bytes();
    for at in 0..text.len() {
        for bit in 0..8 {
            let mut broken = text.clone();
            broken[at] ^= 1 << bit;
            let Ok(broken) = String::from_utf8(broken) else {
                continue;
            };
            let checked = Proof::parse(&broken).and_then(|proof| proof.check(&pins, None));
            // The host's key as claimed is not looked at where one is pinned.
            let only_claim = Proof::parse(&broken).is_ok_and(|proof| {
                let mut same = made[0].clone();
                same.extra.host.clone_from(&proof.extra.host);
                same == proof
            });
            assert!(checked.is_err() || only_claim, "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn what_is_not_signed_is_not_proved() {
    let (_dir, files) = trail(5, false);
    // The seal itself comes after what it signs.
    let chosen = Chosen::read(&files, |seq, _| Ok(seq == 8));
    let Err(MakeError::NotCovered { seq, size }) = chosen else {
        panic!("the seal is not signed");
    };
    assert_eq!((seq, size), (8, 7));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("unsigned.jsonl");
    crate::sample::write_trail(&path, "trace-001");
    let chosen = Chosen::read(&[path], |seq, _| Ok(seq == 1));
    assert!(matches!(chosen, Err(MakeError::Unsigned)));
    // A record that was exchanged, hash and all.
    let text = std::fs::read_to_string(&files[0]).unwrap();
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    let hash = |line: &str| line.split("\"record_hash\":\"").nth(1).unwrap()[..71].to_owned();
    lines[2] = lines[2].replace(&hash(&lines[2]), &hash(&lines[3]));
    std::fs::write(&files[0], lines.join("\n") + "\n").unwrap();
    let chosen = Chosen::read(&files, |seq, _| Ok(seq == 4)).unwrap();
    let proved = chosen.prove::<MakeError>(&files, |_| Ok(()));
    assert!(matches!(proved, Err(MakeError::Root)));
}
