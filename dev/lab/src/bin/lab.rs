//! Prepares and checks what the lab needs from this machine.

fn main() {}
