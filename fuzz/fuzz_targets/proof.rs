//! Files of proofs.
#![no_main]

use sandtrace_audit_chain::proof::{Proof, Texts};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut texts = Texts::new(bytes);
    while let Ok(Some(text)) = texts.next_text() {
        if let Ok(proof) = Proof::parse(&text) {
            let _ = proof.check(&[], None);
        }
    }
});
