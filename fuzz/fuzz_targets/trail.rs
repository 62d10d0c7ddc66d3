//! Trails: canonical lines, their envelopes and all that verify makes of them.
#![no_main]

use sandtrace_audit_chain::{VerifyOptions, verify};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = verify(bytes, &VerifyOptions::default());
});
