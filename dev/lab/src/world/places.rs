//! Who lives where: names and addresses, all in TEST-NET-3 (RFC 5737), which is never routed.

use std::net::{Ipv4Addr, SocketAddrV4};

use sandtrace_guest::agent::hosts;

/// The payment service.
pub const API_ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// Its file host.
pub const FILES_ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 11);
/// A plain HTTP server.
pub const UPDATES_ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 20);
/// A UDP echo (RFC 862).
pub const ECHO: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 30), 7);
/// The DNS resolver.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 53);
/// Where stolen data goes.
pub const DROP_ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);

/// The resolver's zone.
pub(super) const ZONE: [(&str, Ipv4Addr); 4] = [
    (hosts::API, API_ADDRESS),
    (hosts::FILES, FILES_ADDRESS),
    (hosts::UPDATES, UPDATES_ADDRESS),
    (hosts::DROP, DROP_ADDRESS),
];

/// Every address that a server of the world listens on.
pub(super) fn addresses() -> impl Iterator<Item = Ipv4Addr> {
    ZONE.into_iter()
        .map(|(_, address)| address)
        .chain([*ECHO.ip(), RESOLVER])
}
