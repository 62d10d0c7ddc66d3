//! What a client calls its peer.

use crate::names::NameSource;
use crate::packet::Moment;
use crate::text::MAX_HOST;
use std::sync::Arc;

/// The client's own word for its peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) name: Arc<str>,
    pub(crate) source: NameSource,
    pub(crate) at: Moment,
}

/// Every name that the client of one flow used for its peer, once and in
/// their order.
#[derive(Debug, Default)]
pub(crate) struct Claims(Vec<Claim>);

/// Names that are kept: an honest client has one, behind a proxy two.
const MAX_CLAIMS: usize = 8;
/// Those among them that are longer than names are, and so match no rule: a record
/// has to have room for all.
const MAX_LONG: usize = 2;

impl Claims {
    /// Notes a name, unless it is known.
    pub(crate) fn add(&mut self, name: &str, source: NameSource, at: Moment) {
        let is_long = |name: &str| name.len() > MAX_HOST;
        let long = self.0.iter().filter(|known| is_long(&known.name)).count();
        let is_known = self.0.iter().any(|known| &*known.name == name);
        let has_room = self.0.len() < MAX_CLAIMS && !(is_long(name) && long >= MAX_LONG);
        if has_room && !is_known {
            self.0.push(Claim {
                name: Arc::from(name),
                source,
                at,
            });
        }
    }

    /// The names so far; none is ever taken back.
    pub(crate) fn as_slice(&self) -> &[Claim] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_kept_once_and_the_first_ones_stay() {
        let mut claims = Claims::default();
        for name in ["a", "b", "a"] {
            claims.add(name, NameSource::HttpHost, Moment::default());
        }
        for number in 0..100 {
            claims.add(&format!("n{number}"), NameSource::TlsSni, Moment::default());
        }
        let names: Vec<_> = claims.as_slice().iter().map(|it| &*it.name).collect();
        assert_eq!(names, ["a", "b", "n0", "n1", "n2", "n3", "n4", "n5"]);
    }
}
