//! `sandtrace_wire::fuzzing::frame` on any bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sandtrace_wire::fuzzing;

fuzz_target!(|bytes: &[u8]| fuzzing::frame(bytes));
