//! `sandtrace_wire::fuzzing::quic` on any bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sandtrace_wire::fuzzing;

fuzz_target!(|bytes: &[u8]| fuzzing::quic(bytes));
