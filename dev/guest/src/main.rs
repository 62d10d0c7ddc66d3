//! The program that plays an agent inside a lab sandbox.

fn main() {}
