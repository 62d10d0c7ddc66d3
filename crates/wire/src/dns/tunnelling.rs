//! Questions that look like data on its way out: names of long or random
//! labels, many different ones below the same domain in a short time.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// Counts suspicious names by domain, bounded.
#[derive(Debug, Default)]
pub(crate) struct Tunnelling {
    domains: HashMap<u64, Recent>,
    volumes: Volumes,
}

/// What all different names of a window carry, suspicious or not.
#[derive(Debug, Default)]
struct Volumes {
    since_us: u64,
    seen: HashSet<u64>,
    by_domain: HashMap<u64, Volume>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Volume {
    /// Names with much below the domain.
    large: u32,
    /// Bytes of all names below the domain.
    bytes: usize,
}

/// Suspicious names of one domain.
#[derive(Debug)]
struct Recent {
    since_us: u64,
    names: u32,
    last_name: u64,
}

/// So many within the window are no accident.
const MANY: u32 = 10;
const WINDOW_US: u64 = 60_000_000;
const MAX_DOMAINS: usize = 1024;
/// Longest label and name that people and content networks use.
const LONG_LABEL: usize = 40;
const LONG_NAME: usize = 120;
/// A label this long with so many different characters and digits is random.
const RANDOM_LABEL: usize = 24;
const RANDOM_CHARACTERS: u32 = 14;
const RANDOM_DIGITS: usize = 4;
/// Bytes below a domain that few names have, and how many different ones with that
/// many are no accident.
const LARGE: usize = 50;
const MANY_LARGE: u32 = 30;
/// So many bytes in different names below one domain are no accident either.
const MUCH: usize = 16 * 1024;
/// Names and domains that a window has room for.
const MAX_SEEN: usize = 32 * 1024;
/// What nobody outside can have answered: names of the network that the sandbox is
/// in, and of addresses, which are long by nature.
const INSIDE: [&str; 3] = [".arpa", ".internal", ".local"];

impl Tunnelling {
    /// A question for `name`; whether it is one too many.
    pub(crate) fn ask(&mut self, name: &str, now_us: u64) -> bool {
        let much = self.volumes.ask(name, now_us);
        self.ask_suspicious(name, now_us) || much
    }

    fn ask_suspicious(&mut self, name: &str, now_us: u64) -> bool {
        if !is_suspicious(name) {
            return false;
        }
        let (hash, domain) = (hash(name), hash(domain(name)));
        if self.domains.len() >= MAX_DOMAINS && !self.domains.contains_key(&domain) {
            let is_recent = |recent: &Recent| recent.since_us.saturating_add(WINDOW_US) > now_us;
            self.domains.retain(|_, recent| is_recent(recent));
            if self.domains.len() >= MAX_DOMAINS {
                // So many domains with random names at once are suspicious themselves.
                return true;
            }
        }
        let recent = self.domains.entry(domain).or_insert(Recent {
            since_us: now_us,
            names: 0,
            last_name: 0,
        });
        if recent.since_us.saturating_add(WINDOW_US) <= now_us {
            (recent.since_us, recent.names) = (now_us, 0);
        }
        // The same name for A and AAAA is one.
        if recent.last_name != hash {
            recent.names = recent.names.saturating_add(1);
            recent.last_name = hash;
        }
        recent.names >= MANY
    }
}

impl Volumes {
    /// Whether there is too much below the domain of a name.
    fn ask(&mut self, name: &str, now_us: u64) -> bool {
        if INSIDE.iter().any(|end| name.ends_with(end)) {
            return false;
        }
        let over = self.since_us.saturating_add(WINDOW_US) <= now_us;
        if over || self.seen.len().max(self.by_domain.len()) >= MAX_SEEN {
            self.since_us = now_us;
            self.seen.clear();
            self.by_domain.clear();
        }
        let domain = domain(name);
        let below = name.len() - domain.len();
        let volume = self.by_domain.entry(hash(domain)).or_default();
        if below > 0 && self.seen.insert(hash(name)) {
            volume.large += u32::from(below >= LARGE);
            volume.bytes += below;
        }
        volume.large >= MANY_LARGE || volume.bytes >= MUCH
    }
}

fn is_suspicious(name: &str) -> bool {
    name.len() >= LONG_NAME
        || name
            .split('.')
            .any(|label| label.len() >= LONG_LABEL || is_random(label.as_bytes()))
}

fn is_random(label: &[u8]) -> bool {
    let different = label
        .iter()
        .fold(0_u128, |seen, byte| {
            seen | 1_u128.checked_shl(u32::from(*byte)).unwrap_or(1)
        })
        .count_ones();
    label.len() >= RANDOM_LABEL
        && different >= RANDOM_CHARACTERS
        && label.iter().filter(|byte| byte.is_ascii_digit()).count() >= RANDOM_DIGITS
}

/// The last two labels.
fn domain(name: &str) -> &str {
    let dots = || name.rmatch_indices('.');
    dots()
        .nth(1)
        .and_then(|(at, _)| name.get(at + 1..))
        .unwrap_or(name)
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(names: impl Iterator<Item = String>, step_us: u64, expected: bool) {
        let mut tunnelling = Tunnelling::default();
        let mut now_us = 0;
        let mut found = false;
        for name in names {
            now_us += step_us;
            found |= tunnelling.ask(&name, now_us);
        }
        assert_eq!(found, expected);
    }

    #[test]
    fn many_random_names_of_one_domain_are_a_tunnel() {
        let exfil = |n: u32| {
            format!(
                "{:0>40x}k3jd9f.t.evil.example",
                u128::from(n) << 90 | 0x1f2e3d
            )
        };
        check((0..20).map(exfil), 1000, true);
        check((0..20).map(exfil), 10_000_000, false);
        check((0..9).map(exfil), 1000, false);
        check((0..20).map(|_| exfil(1)), 1000, false);
        check((0..50).map(|n| format!("host{n}.example.com")), 1000, false);
        let content = |n| format!("d{n}11111abcdef8.cloudfront.net");
        check((0..50).map(content), 1000, false);
    }

    #[test]
    fn much_below_one_domain_is_a_tunnel_whatever_its_letters() {
        // Letters alone, each label shorter than long ones are.
        let letters = |n: u32, labels: usize| {
            let mixed = n.wrapping_mul(2_654_435_761);
            let letter = |at| char::from(b'a' + (mixed.rotate_left(at) % 26) as u8);
            let label: String = (0..20).map(letter).collect();
            format!("{}t.evil.example", format!("{label}.").repeat(labels))
        };
        check((0..40).map(|n| letters(n, 3)), 1000, true);
        check((0..25).map(|n| letters(n, 3)), 1000, false);
        check((0..40).map(|n| letters(n, 3)), 3_000_000, false);
        check((0..500).map(|n| letters(n % 20, 3)), 1000, false);
        check((0..1000).map(|n| letters(n, 1)), 1000, true);
        // What a busy sandbox asks for.
        let shops = |n| format!("www.shop-{n}.co.uk");
        check((0..800).map(shops), 1000, false);
        let buckets = |n| format!("some-bucket-name-{n}.s3.eu-central-1.amazonaws.com");
        check((0..200).map(buckets), 1000, false);
        let reverse = |n| format!("{}{n}.ip6.arpa", "0.".repeat(30));
        check((0..200).map(reverse), 1000, false);
        let cluster =
            |n| format!("bucket-name-{n}.s3.eu-central-1.amazonaws.com.default.svc.cluster.local");
        check((0..200).map(cluster), 1000, false);
    }
}
