//! Discovery on real processes, real sockets and recorded answers.

// `cfg(test)` always holds here; it tells clippy that helpers are test code.
#[cfg(test)]
mod by_hand;
#[cfg(test)]
mod cloud_hypervisor;
#[cfg(test)]
mod docker;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod firecracker;
#[cfg(test)]
mod qemu;
