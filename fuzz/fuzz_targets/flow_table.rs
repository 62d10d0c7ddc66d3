//! `sandtrace_wire::fuzzing::flow_table` on any bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sandtrace_wire::fuzzing;

fuzz_target!(|bytes: &[u8]| fuzzing::flow_table(bytes));
