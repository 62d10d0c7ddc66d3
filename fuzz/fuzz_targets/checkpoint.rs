//! Checkpoints: what is read is written again as it was.
#![no_main]

use sandtrace_audit_chain::checkpoint::Checkpoint;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(checkpoint) = text.parse::<Checkpoint>() {
        assert_eq!(checkpoint.to_string(), text);
    }
});
