//! Checkpoints, the certificates of their keys, and the files of these.

use crate::corpora::corpus;
use proptest::prelude::*;
use sandtrace_audit_chain::checkpoint::{
    CertificateError, Checkpoint, CheckpointError, OpenError, certified_key, certify,
};
use sandtrace_audit_chain::key_file::{self, KeyFileError};
use sandtrace_audit_chain::merkle::empty_root;
use sandtrace_audit_chain::note::{Algorithm, Note, SigningKey, VerifyError};
use sandtrace_event::Digest;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};

const ORIGIN: &str = "sandtrace/host-7/trace-001";

fn key(name: &str, seed: u8) -> SigningKey {
    SigningKey::new(name, Algorithm::Ed25519, &[seed; 32]).unwrap()
}

#[test]
fn checkpoints_of_a_tessera_log() {
    let Some(folder) = corpus("checkpoints_of_a_tessera_log", "merkle/tessera-log") else {
        return;
    };
    let vkey = fs::read_to_string(folder.join("vkey.txt")).unwrap();
    let key = vkey.trim().parse().unwrap();
    for size in 0..16 {
        let bytes = fs::read(folder.join(format!("checkpoint.{size}"))).unwrap();
        let note = Note::parse(&bytes).unwrap();
        let checkpoint = Checkpoint::open(&note, &key).unwrap();
        assert_eq!(checkpoint.size(), size);
        assert_eq!(checkpoint.origin(), "example.com/log/testdata");
        assert_eq!(checkpoint.to_string(), note.text());
        assert_eq!(size == 0, checkpoint.root() == empty_root());
    }
}

#[track_caller]
fn check_text(text: &str, expected: Result<u64, CheckpointError>) {
    let read: Result<Checkpoint, _> = text.parse();
    assert_eq!(
        read.as_ref().map(Checkpoint::size),
        expected.as_ref().map(|size| *size)
    );
    if let Ok(checkpoint) = read {
        assert_eq!(checkpoint.to_string(), text);
    }
}

#[test]
fn only_canonical_texts_are_checkpoints() {
    use CheckpointError::{Lines, Root, Size};
    let root = "rKbDipCvhuX1GZ7g5BBe8sA6BbJ7ja/1nk427v383cs=";
    let text = |size: &str| format!("log\n{size}\n{root}\n");
    check_text(&text("0"), Ok(0));
    check_text(&text("18446744073709551615"), Ok(u64::MAX));
    check_text(&format!("{}more\nlines\n", text("7")), Ok(7));
    for size in ["01", "+1", "-1", "1 ", "1.0", "x", "18446744073709551616"] {
        check_text(&text(size), Err(Size));
    }
    check_text(&text(""), Err(Lines));
    check_text(text("1").trim_end(), Err(Lines));
    check_text(&format!("{}\n", text("1")), Err(Lines));
    check_text(&format!("{}\nx\n", text("1")), Err(Lines));
    check_text(&format!("\n1\n{root}\n"), Err(Lines));
    check_text("log\n1\n", Err(Lines));
    check_text("", Err(Lines));
    for bad in [
        &root[4..],
        &root[..43],
        "AAAA",
        "?",
        &root.replace('/', "_"),
    ] {
        check_text(&format!("log\n1\n{bad}\n"), Err(Root));
    }
}

#[test]
fn a_checkpoint_is_one_of_its_own_log_only() {
    let own = key(ORIGIN, 1);
    let other = key("sandtrace/host-7/trace-002", 1);
    let forger = key(ORIGIN, 2);
    let checkpoint = Checkpoint::new(ORIGIN, 42, Digest([7; 32])).unwrap();
    let note = checkpoint.sign(&own).unwrap();
    assert_eq!(
        Checkpoint::open(&note, own.verifier()),
        Ok(checkpoint.clone())
    );
    let unverified = |key: &SigningKey| OpenError::Signature {
        key: key.verifier().name().to_owned(),
        source: VerifyError::Unverified,
    };
    for key in [&other, &forger] {
        let opened = Checkpoint::open(&note, key.verifier());
        assert_eq!(opened, Err(unverified(key)));
    }
    // Signed by the other log's key, but with this log's text.
    let foreign = checkpoint.sign(&other).unwrap();
    let opened = Checkpoint::open(&foreign, other.verifier());
    assert!(
        matches!(opened, Err(OpenError::Origin { .. })),
        "{opened:?}"
    );
    assert!(Checkpoint::new("", 0, empty_root()).is_err());
    assert!(Checkpoint::new("a\n5", 0, empty_root()).is_err());
}

#[test]
fn a_host_certifies_a_trails_key() {
    let (host, trail) = (key("sandtrace/host-7", 3), key(ORIGIN, 4));
    let hosts = [key("sandtrace/host-8", 9), key("sandtrace/host-7", 3)];
    let hosts = hosts.map(|host| host.verifier().clone());
    let certificate = certify(trail.verifier(), &host).unwrap();
    let certificate = Note::parse(certificate.to_string().as_bytes()).unwrap();
    let certified = certified_key(&certificate, &hosts, ORIGIN);
    assert_eq!(certified, Ok((trail.verifier().clone(), &hosts[1])));
    let text = certificate.text();
    assert!(text.parse::<Checkpoint>().is_err(), "{text}");

    // Another trail's certificate, another host's, and other signed texts.
    let other = certified_key(&certificate, &hosts, "sandtrace/host-7/trace-002");
    assert!(matches!(other, Err(CertificateError::Origin { .. })));
    let unknown = certified_key(&certificate, &hosts[..1], ORIGIN);
    assert!(matches!(unknown, Err(CertificateError::Signature { .. })));
    let checkpoint = Checkpoint::new("sandtrace/host-7", 1, empty_root()).unwrap();
    let signed = checkpoint.sign(&host).unwrap();
    let found = certified_key(&signed, &hosts, ORIGIN);
    assert_eq!(found, Err(CertificateError::Text));
    let witness = SigningKey::new(ORIGIN, Algorithm::CosignatureV1, &[4; 32]).unwrap();
    let certificate = certify(witness.verifier(), &host).unwrap();
    let found = certified_key(&certificate, &hosts, ORIGIN);
    assert!(matches!(found, Err(CertificateError::Origin { .. })));
}

#[test]
fn a_key_file_is_its_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("host.key");
    assert!(matches!(
        key_file::load(&path),
        Err(KeyFileError::Missing { .. })
    ));
    let host = key("sandtrace/host-7", 5);
    key_file::create(&path, &host).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let loaded = key_file::load(&path).unwrap();
    assert_eq!(loaded.verifier(), host.verifier());
    let again = key_file::create(&path, &key("x", 6));
    assert!(matches!(again, Err(KeyFileError::Exists { .. })));

    for mode in [0o640, 0o604, 0o620, 0o660] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let error = key_file::load(&path).unwrap_err();
        assert!(matches!(error, KeyFileError::Exposed { .. }), "{error}");
    }
    fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
    assert!(key_file::load(&path).is_ok());
    let link = folder.path().join("link.key");
    symlink(&path, &link).unwrap();
    assert!(matches!(
        key_file::load(&link),
        Err(KeyFileError::Io { .. })
    ));

    let text = host.to_secret_text();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    for bad in [
        "",
        "\n",
        &text[..40],
        &format!("{}\n\n", *text),
        &"x".repeat(10_000),
    ] {
        fs::write(&path, bad).unwrap();
        let error = key_file::load(&path).unwrap_err();
        assert!(matches!(error, KeyFileError::Key { .. }), "{error}");
        // An error never tells the secret.
        assert!(!format!("{error:?}").contains(&text[40..60]));
    }
}

proptest! {
    #[test]
    fn checkpoints_round_trip(origin in "[a-z/.]{1,20}", size: u64, root: [u8; 32]) {
        let checkpoint = Checkpoint::new(&origin, size, Digest(root)).unwrap();
        prop_assert_eq!(checkpoint.to_string().parse(), Ok(checkpoint));
    }

    #[test]
    fn any_text_is_read_without_a_panic(text in "[0-9A-Za-z=+/\n]{0,90}") {
        if let Ok(checkpoint) = text.parse::<Checkpoint>() {
            prop_assert_eq!(checkpoint.to_string(), text);
        }
    }
}
