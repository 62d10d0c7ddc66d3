//! SVCB and HTTPS records (RFC 9460): where a service is, and how to reach it.

use crate::reader::Reader;
use crate::text;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a record of type SVCB or HTTPS says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Service {
    priority: u16,
    /// `.` where it is the owner itself.
    pub(crate) target: String,
    alpn: Vec<String>,
    port: Option<u16>,
    /// Addresses that a client may use at once.
    pub(crate) hints: Vec<IpAddr>,
    ech: bool,
    /// Some values are left out.
    cut: bool,
}

const ALPN: u16 = 1;
const PORT: u16 = 3;
const IPV4_HINT: u16 = 4;
const ECH: u16 = 5;
const IPV6_HINT: u16 = 6;
/// Values kept of each list.
const MAX_VALUES: usize = 32;

impl Service {
    /// Reads what follows the target's name.
    pub(crate) fn parse(priority: u16, target: String, mut parameters: Reader<'_>) -> Option<Self> {
        let mut service = Self {
            priority,
            target,
            ..Self::default()
        };
        while !parameters.is_empty() {
            let key = parameters.u16()?;
            let mut value = parameters.vec16()?;
            match key {
                ALPN => {
                    while !value.is_empty() && service.alpn.len() < MAX_VALUES {
                        service.alpn.push(text::escaped(value.vec8()?.rest()));
                    }
                    service.cut |= !value.is_empty();
                }
                PORT => service.port = Some(value.u16()?),
                IPV4_HINT => service.hint(&mut value, |it| {
                    Some(Ipv4Addr::from(it.array::<4>()?).into())
                })?,
                IPV6_HINT => service.hint(&mut value, |it| {
                    Some(Ipv6Addr::from(it.array::<16>()?).into())
                })?,
                ECH => service.ech = true,
                _ => {}
            }
        }
        Some(service)
    }

    fn hint(
        &mut self,
        value: &mut Reader<'_>,
        read: impl Fn(&mut Reader<'_>) -> Option<IpAddr>,
    ) -> Option<()> {
        while !value.is_empty() && self.hints.len() < MAX_VALUES {
            self.hints.push(read(value)?);
        }
        self.cut |= !value.is_empty();
        Some(())
    }

    /// As a zone file would have it, as far as it is read.
    pub(crate) fn text(&self) -> String {
        let mut out = format!("{} {}", self.priority, self.target);
        let mut list = |name: &str, values: &[String]| {
            if !values.is_empty() {
                // Writing to a string cannot fail.
                let _ = write!(out, " {name}={}", values.join(","));
            }
        };
        list("alpn", &self.alpn);
        list(
            "port",
            &self
                .port
                .map(|port| port.to_string())
                .into_iter()
                .collect::<Vec<_>>(),
        );
        let of = |v4: bool| -> Vec<String> {
            let hints = self.hints.iter().filter(|ip| ip.is_ipv4() == v4);
            hints.map(ToString::to_string).collect()
        };
        list("ipv4hint", &of(true));
        list("ipv6hint", &of(false));
        if self.ech {
            out.push_str(" ech");
        }
        if self.cut {
            text::mark_cut(&mut out);
        }
        out
    }
}
