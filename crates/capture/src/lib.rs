//! Collectors that turn kernel bytes into events: network, filesystem.
