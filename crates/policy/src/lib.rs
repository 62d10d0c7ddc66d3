//! The policy manifest: parse, compile, evaluate.
