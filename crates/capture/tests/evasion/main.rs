//! What a guest does that does not want to be seen: real frames written into a
//! real tap, as its VMM would, and what the records say of them.

#![expect(clippy::cast_possible_truncation, reason = "test data is small")]

#[cfg(test)]
mod alike;
#[cfg(test)]
mod before;
#[cfg(test)]
mod bulk;
#[cfg(test)]
mod fits;
#[cfg(test)]
mod frames;
#[cfg(test)]
mod marks;
#[cfg(test)]
mod names;
#[cfg(test)]
mod offloads;
#[cfg(test)]
#[path = "../../src/published.rs"]
mod published;
#[cfg(test)]
mod quic;
#[cfg(test)]
mod shapes;
mod streams;
#[cfg(test)]
mod tap;
#[cfg(test)]
mod traffic;
