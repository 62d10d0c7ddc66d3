//! The header of an E2B snapshot.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sandtrace_capture::filesystem::fuzzing::e2b_header(bytes));
