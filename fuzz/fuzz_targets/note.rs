//! Signed notes: what is read is written again as it was.
#![no_main]

use sandtrace_audit_chain::note::Note;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(note) = Note::parse(bytes) {
        assert_eq!(note.to_string().as_bytes(), bytes);
    }
});
