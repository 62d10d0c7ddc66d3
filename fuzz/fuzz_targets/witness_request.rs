//! What a witness is asked.
#![no_main]

use sandtrace_audit_chain::witness::AddCheckpoint;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = AddCheckpoint::parse(bytes) {
        assert_eq!(request.to_string().as_bytes(), bytes);
    }
});
