//! Finds sandboxes on a host.
