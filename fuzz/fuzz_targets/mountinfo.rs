//! The mounts of a process, as the kernel tells them, of which a sandbox may have made some.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sandtrace_capture::filesystem::fuzzing::mountinfo(bytes));
