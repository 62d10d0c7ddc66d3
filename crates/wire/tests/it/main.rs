//! Captures that others published, with what they expect of them.

#[cfg(test)]
mod community_id;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod ja4;
#[cfg(test)]
mod rate;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod server_names;
#[cfg(test)]
mod support;
