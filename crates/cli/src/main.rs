//! The `sandtrace` program.

fn main() {}
