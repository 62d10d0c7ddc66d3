//! Captures that others published, read as `sandtrace replay` reads them, with what
//! they expect of them.

#[cfg(test)]
mod community_id;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod ja4;
#[cfg(test)]
#[path = "../../src/published.rs"]
mod published;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod server_names;
#[cfg(test)]
mod support;
