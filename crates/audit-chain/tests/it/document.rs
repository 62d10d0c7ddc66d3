//! The worked example of docs/trail-format.md is a trail that this code writes.
