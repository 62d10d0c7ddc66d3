//! A capture file, of which somebody wrote every byte.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sandtrace_capture::network::fuzzing::capture_file(bytes));
