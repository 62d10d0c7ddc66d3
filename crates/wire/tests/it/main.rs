//! The flow table from without.

#[cfg(test)]
mod rate;
