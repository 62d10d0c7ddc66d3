//! Trust policies.
#![no_main]

use sandtrace_audit_chain::witness::WitnessPolicy;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(policy) = WitnessPolicy::parse(bytes) {
        let _ = policy.satisfied_by(&policy.witness_keys());
    }
});
