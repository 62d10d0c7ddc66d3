//! Plain work on disk and network, whose result is the same in every run.

use std::fmt;

use super::{Agent, AgentError, hosts};

/// Files that are written and read back, and bytes of each.
const FILES: u32 = 24;
const FILE_BYTES: usize = 48 * 1024;
/// Requests on one connection, and bytes of each one's body.
const REQUESTS: u32 = 24;
const REQUEST_BYTES: usize = 8 * 1024;

/// Where the sum of everything is left behind.
pub const DIGEST: &str = "/home/agent/work/digest";

/// Writes files through to the disk, reads them back, sends requests, and
/// sums up what came back from both.
pub(super) fn work(agent: &mut Agent<'_>) -> Result<(), AgentError> {
    let mut sum = Sum::NOTHING;
    for number in 0..FILES {
        let path = format!("/home/agent/work/{number:02}.txt");
        agent.root.write(&path, &text(number, FILE_BYTES))?;
        sum.add(agent.root.read(&path)?.as_bytes());
    }
    let mut server = agent.connect_tls(hosts::DROP)?;
    for number in 0..REQUESTS {
        let body = text(number, REQUEST_BYTES);
        let answer = agent.post(&mut server, "/api/create", &body)?;
        sum.add(&answer.body);
    }
    drop(server);
    agent.write(DIGEST, &sum.to_string())?;
    agent.tell("digest", sum.to_string());
    Ok(())
}

/// Letters that no two numbers have in the same order (a linear congruential
/// generator's upper bits).
fn text(seed: u32, length: usize) -> String {
    let mut state = seed;
    let mut letter = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b'a' + u8::try_from(state >> 28).unwrap_or_default())
    };
    (0..length).map(|_| letter()).collect()
}

/// FNV-1a of 64 bits.
#[derive(Clone, Copy)]
struct Sum(u64);

impl Sum {
    const NOTHING: Self = Self(0xcbf2_9ce4_8422_2325);

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_fnv() {
        let mut sum = Sum::NOTHING;
        sum.add(b"foobar");
        assert_eq!(sum.to_string(), "85944171f73967e8");
        assert_ne!(text(1, 100), text(2, 100));
        assert_eq!(text(1, 100).len(), 100);
    }
}
