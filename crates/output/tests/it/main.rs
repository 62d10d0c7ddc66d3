//! Sinks and renderings, driven by whole lines of trails.

// `cfg(test)` always holds here; it tells clippy that helpers are test code.
#[cfg(test)]
mod events;
#[cfg(test)]
mod filters;
#[cfg(test)]
mod sinks;
#[cfg(test)]
mod terminal;
