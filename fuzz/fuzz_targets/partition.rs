//! A disk with a partition table, and what it leads to.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sandtrace_capture::filesystem::fuzzing::partition(bytes));
