//! Address ranges.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// `10.0.0.0/8`, `2001:db8::/32`. No bit beyond the prefix is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Cidr {
    network: IpAddr,
    prefix: u8,
}

/// Why a text is not an address range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CidrError {
    /// No `/`, or what is before it is no address, or after it no length.
    Form,
    /// A single address without a prefix length.
    NoPrefix(Cidr),
    /// Longer than the address.
    Length(u8),
    /// Bits beyond the prefix are set; this is the range without them.
    HostBits(Cidr),
}

impl Cidr {
    /// The range that holds this address alone.
    pub(crate) fn single(address: IpAddr) -> Self {
        let network = address.to_canonical();
        Self {
            network,
            prefix: bits(network),
        }
    }

    /// Whether the range is one address, which somebody wrote on purpose.
    pub(crate) fn is_single(self) -> bool {
        self.prefix == bits(self.network)
    }

    pub(crate) fn contains(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.network.is_ipv4() && masked(address, self.prefix) == self.network
    }

    pub(crate) fn covers(self, other: Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.network)
    }

    pub(crate) fn network(self) -> IpAddr {
        self.network
    }

    pub(crate) fn prefix(self) -> u8 {
        self.prefix
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address with all bits beyond the prefix cleared.
pub(crate) fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let host = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & !host).into()
        }
        IpAddr::V6(v6) => {
            let host = u128::MAX.checked_shr(prefix.into()).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & !host).into()
        }
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let Some((address, length)) = text.split_once('/') else {
            let address = text.parse().map_err(|_| CidrError::Form)?;
            return Err(CidrError::NoPrefix(Self::single(address)));
        };
        let address: IpAddr = address.parse().map_err(|_| CidrError::Form)?;
        let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
        let prefix: u8 = match length.parse() {
            Ok(prefix) if digits => prefix,
            _ => return Err(CidrError::Form),
        };
        if prefix > bits(address) {
            return Err(CidrError::Length(bits(address)));
        }
        let range = Self {
            network: masked(address, prefix),
            prefix,
        };
        if range.network == address {
            Ok(range)
        } else {
            Err(CidrError::HostBits(range))
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_hold_their_addresses() {
        let table = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("10.0.0.0/8", "::a00:1", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "2001:db8::1", true),
            ("2001:db8::/32", "2001:db8:ffff::", true),
            ("192.0.2.1/32", "192.0.2.1", true),
            ("192.0.2.1/32", "192.0.2.2", false),
        ];
        for (range, address, expected) in table {
            assert_eq!(
                cidr(range).contains(address.parse().unwrap()),
                expected,
                "{range} {address}"
            );
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        assert_eq!(
            "10.0.0.1/8".parse::<Cidr>(),
            Err(CidrError::HostBits(cidr("10.0.0.0/8")))
        );
        assert_eq!("10.0.0.0/33".parse::<Cidr>(), Err(CidrError::Length(32)));
        assert_eq!(
            "::1".parse::<Cidr>(),
            Err(CidrError::NoPrefix(cidr("::1/128")))
        );
        for text in [
            "",
            "/",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0/8",
            "a/8",
            "10.0.0.0/8/8",
            "::/999",
        ] {
            assert_eq!(text.parse::<Cidr>(), Err(CidrError::Form), "{text}");
        }
    }

    #[test]
    fn wider_ranges_cover_narrower_ones() {
        assert!(cidr("10.0.0.0/8").covers(cidr("10.1.0.0/16")));
        assert!(!cidr("10.1.0.0/16").covers(cidr("10.0.0.0/8")));
        assert!(!cidr("0.0.0.0/0").covers(cidr("::/0")));
    }
}
