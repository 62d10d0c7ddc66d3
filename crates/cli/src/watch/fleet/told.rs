//! What went wrong while looking for sandboxes, told once while it lasts.

use crate::show::{escaped, tell};
use sandtrace_provider::Problem;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What was away for so long is told again.
const AWAY: Duration = Duration::from_secs(60);

/// Most of what is remembered.
const MAX_TOPICS: usize = 4096;

/// Topics of problems, and when each was last met.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<String, Instant>);

impl Told {
    pub(super) fn tell(&mut self, problems: &[Problem]) {
        for problem in self.news(problems, Instant::now()) {
            tell(&format!("problem: {}", escaped(&problem.to_string())));
        }
    }

    fn news<'a>(&mut self, problems: &'a [Problem], now: Instant) -> Vec<&'a Problem> {
        self.0.retain(|_, met| now.duration_since(*met) < AWAY);
        let mut news = Vec::new();
        for problem in problems {
            let topic = problem.topic();
            let is_full = self.0.len() >= MAX_TOPICS;
            match self.0.get_mut(&topic) {
                Some(met) => *met = now,
                None if is_full => {}
                None => {
                    self.0.insert(topic, now);
                    news.push(problem);
                }
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandtrace_provider::DockerError;

    fn problem(left: usize) -> Problem {
        Problem::Docker {
            socket: "/var/run/docker.sock".into(),
            source: DockerError::Unfinished(left),
        }
    }

    #[test]
    fn once_while_it_lasts() {
        let mut told = Told::default();
        let start = Instant::now();
        let mut news = |left, seconds| {
            let problems = [problem(left), problem(left)];
            told.news(&problems, start + Duration::from_secs(seconds))
                .len()
        };
        assert_eq!(news(7, 0), 1);
        assert_eq!(news(6, 50), 0);
        assert_eq!(news(6, 100), 0);
        assert_eq!(news(6, 160), 1);
    }
}
