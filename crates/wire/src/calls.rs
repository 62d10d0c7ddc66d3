//! Calls: how much a client sends at a time.
//!
//! TLS hides requests, so a call is a run of client payload that is ended by
//! server payload, by the end of the connection or by a pause.

/// The calls of one flow.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Calls {
    /// Calls before the current one.
    past: u64,
    largest_past: Largest,
    past_bytes: u64,
    current: Option<Call>,
}

#[derive(Clone, Copy, Debug)]
struct Call {
    bytes: u64,
    last_us: u64,
    ended: bool,
    /// It looks like a TLS alert so far: the goodbye of a connection, if nothing follows.
    goodbye: bool,
    reported: bool,
}

/// Which call is the largest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Largest {
    /// Its number, from 1; 0 where there is none.
    pub(crate) number: u64,
    pub(crate) bytes: u64,
}

impl Calls {
    /// Client payload arrived. `goodbye` says that it may be a TLS alert.
    pub(crate) fn client(&mut self, bytes: u64, at_us: u64, pause_us: Option<u64>, goodbye: bool) {
        if bytes == 0 {
            return;
        }
        let paused =
            |call: &Call| pause_us.is_some_and(|pause| at_us.saturating_sub(call.last_us) >= pause);
        if self.current.is_some_and(|call| call.ended || paused(&call)) {
            self.settle();
        }
        match &mut self.current {
            Some(call) => {
                call.bytes += bytes;
                call.last_us = at_us;
                call.goodbye = false;
            }
            None => {
                self.current = Some(Call {
                    bytes,
                    last_us: at_us,
                    ended: false,
                    goodbye,
                    reported: false,
                });
            }
        }
    }

    /// Server payload arrived that answers everything the client sent.
    pub(crate) fn server(&mut self) {
        if let Some(call) = &mut self.current {
            call.ended = true;
        }
    }

    /// The client ended the connection: if its last words were a TLS alert,
    /// they are no call. Answers their bytes.
    pub(crate) fn goodbye(&mut self) -> u64 {
        match self.current.take_if(|call| call.goodbye) {
            Some(call) => call.bytes,
            None => 0,
        }
    }

    /// Calls so far, the current one included.
    pub(crate) fn count(&self) -> u64 {
        self.past + u64::from(self.current.is_some())
    }

    /// The largest call so far, the current one included.
    pub(crate) fn largest(&self) -> Largest {
        match self.current {
            Some(call) if call.bytes > self.largest_past.bytes => Largest {
                number: self.past + 1,
                bytes: call.bytes,
            },
            _ => self.largest_past,
        }
    }

    /// Bytes of all calls.
    pub(crate) fn bytes(&self) -> u64 {
        self.past_bytes + self.current.map_or(0, |call| call.bytes)
    }

    /// Whether the current call exceeds the bound and no report has said so yet.
    pub(crate) fn exceeds(&self, bound: u64) -> bool {
        self.current
            .is_some_and(|call| call.bytes > bound && !call.reported)
    }

    /// A report has said what the calls are.
    pub(crate) fn reported(&mut self, bound: Option<u64>) {
        if let Some(call) = &mut self.current {
            call.reported = bound.is_some_and(|bound| call.bytes > bound);
        }
    }

    fn settle(&mut self) {
        self.largest_past = self.largest();
        if let Some(call) = self.current.take() {
            self.past += 1;
            self.past_bytes += call.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `+n` client bytes, `-` server payload, `~n` the same as `+n` after a
    /// pause, `!n` client bytes that look like an alert, `.` the client's end.
    #[track_caller]
    fn check(story: &str, count: u64, number: u64, bytes: u64) {
        let mut calls = Calls::default();
        let mut at_us = 0;
        for step in story.split_whitespace() {
            let (kind, size) = step.split_at(1);
            let size = size.parse().unwrap_or(0);
            at_us += 10;
            match kind {
                "+" => calls.client(size, at_us, Some(1000), false),
                "!" => calls.client(size, at_us, Some(1000), true),
                "~" => {
                    at_us += 5000;
                    calls.client(size, at_us, Some(1000), false);
                }
                "-" => calls.server(),
                "." => drop(calls.goodbye()),
                other => panic!("no step {other}"),
            }
        }
        assert_eq!(calls.count(), count, "{story}");
        assert_eq!(calls.largest(), Largest { number, bytes }, "{story}");
    }

    #[test]
    fn a_call_ends_at_the_answer_or_a_pause() {
        check("", 0, 0, 0);
        check("- - +0", 0, 0, 0);
        check("+316 - +5012 -", 2, 2, 5012);
        check("+100 +200 - +300", 2, 1, 300);
        check("+100 ~200 - +50", 3, 2, 200);
    }

    #[test]
    fn an_alert_is_no_call_only_as_the_last_words() {
        check("+316 - !24 .", 1, 1, 316);
        check("+316 - !24 - .", 1, 1, 316);
        check("+316 - !24", 2, 1, 316);
        check("+316 - !24 - +10 .", 3, 1, 316);
        check("+316 - !24 +10 .", 2, 1, 316);
    }

    #[test]
    fn a_crossing_is_reported_once_per_call() {
        let mut calls = Calls::default();
        calls.client(4000, 0, None, false);
        assert!(!calls.exceeds(4096));
        calls.client(97, 1, None, false);
        assert!(calls.exceeds(4096));
        calls.reported(Some(4096));
        calls.client(5000, 2, None, false);
        assert!(!calls.exceeds(4096));
        calls.server();
        calls.client(5000, 3, None, false);
        assert!(calls.exceeds(4096));
    }
}
