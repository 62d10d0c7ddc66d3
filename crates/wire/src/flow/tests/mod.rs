//! The table from outside: frames in, reports out.

mod calls;
mod claims;
mod dns;
mod life;
mod names;
mod pieces;
mod scans;
mod starts;
mod totals;
mod tunnels;
