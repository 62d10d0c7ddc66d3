//! An ext4 file system of which the guest wrote every byte.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sandtrace_capture::filesystem::fuzzing::ext4(bytes));
