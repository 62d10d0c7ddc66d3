//! `sandtrace_wire::fuzzing::tls_hello` on any bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sandtrace_wire::fuzzing;

fuzz_target!(|bytes: &[u8]| fuzzing::tls_hello(bytes));
