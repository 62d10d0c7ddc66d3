//! A qcow2 image, its tables forged.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sandtrace_capture::filesystem::fuzzing::qcow2(bytes));
