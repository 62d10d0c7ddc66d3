//! From one request to the next, past the bodies between them.

use super::head::{Body, Head, Line, is_blank, line, may_be_request};

/// Walks the requests in a client's stream, each byte once. Positions are those
/// of the stream, of which only a part need be at hand.
#[derive(Debug)]
pub(crate) struct Requests {
    /// Where what is to be read next begins. All before it is known.
    at: u64,
    step: Step,
    /// Bytes from there on in which no end was found.
    searched: usize,
    /// It begins with the line of a request.
    begun: bool,
    /// Heads so far.
    heads: u32,
    /// Those among them that came since the server spoke.
    unanswered: u32,
    /// The last one asks that another protocol follows.
    switches: bool,
    drift: Option<Drift>,
}

/// Requests since the end of a body was lost, that one's included, and the answers.
/// More answers are those to requests that nobody saw.
#[derive(Clone, Copy, Debug)]
struct Drift {
    requests: u32,
    answers: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Head,
    /// A body, which a server that does not look for one takes for the next request.
    Either(Body),
    /// The line before a chunk (RFC 9112 section 7.1).
    Chunk,
    /// The lines after the last chunk.
    Trailer,
    /// A body whose end was not captured. The server's answer tells that it is there.
    Adrift,
    /// Nobody knows where the next head begins.
    Lost,
}

/// What was found next.
#[derive(Debug)]
pub(crate) enum Progress {
    /// More bytes are needed.
    More,
    /// The head of a request; there may be more.
    Head(Box<Head>),
    /// What follows is no request.
    Other,
    /// As the last request asked, another protocol follows here.
    Switched(u64),
    /// There is a request, or may be one, that cannot be read.
    Unreadable,
}

impl Requests {
    /// The first one begins here.
    pub(crate) const fn new(at: u64) -> Self {
        Self {
            at,
            step: Step::Head,
            searched: 0,
            begun: false,
            heads: 0,
            unanswered: 0,
            switches: false,
            drift: None,
        }
    }

    /// Whether a head was read.
    pub(crate) const fn is_named(&self) -> bool {
        self.heads > 0
    }

    /// Whether the line of a request was read.
    pub(crate) const fn has_begun(&self) -> bool {
        self.begun || self.heads > 0
    }

    /// What stands before this was read or passed over.
    pub(crate) const fn at(&self) -> u64 {
        self.at
    }

    /// What stands before this needs not be read.
    pub(crate) const fn covers(&self) -> u64 {
        match self.step {
            Step::Either(Body::Bytes(len)) => self.at.saturating_add(len),
            Step::Adrift => u64::MAX,
            _ => self.at,
        }
    }

    /// Bytes were not captured. Whether they can have been those of a body in chunks.
    pub(crate) fn lose(&mut self) -> bool {
        let is_body = match self.step {
            Step::Chunk | Step::Trailer | Step::Either(Body::Chunked) => true,
            // What followed an answer may still be the body.
            Step::Head => self.has_drifted() && !self.begun,
            _ => false,
        };
        // Of several requests at once the answers may come at once.
        let is_one = self.unanswered <= 1;
        if is_body && is_one {
            self.step = Step::Adrift;
            self.drift.get_or_insert(Drift {
                requests: 1,
                answers: 0,
            });
        }
        is_body && is_one
    }

    /// Whether bytes of a body were lost, now or before.
    pub(crate) const fn has_drifted(&self) -> bool {
        self.drift.is_some()
    }

    /// What is at hand is not the request that might have followed.
    pub(crate) const fn drift_on(&mut self) {
        self.step = Step::Adrift;
    }

    pub(crate) fn is_adrift(&self) -> bool {
        self.step == Step::Adrift
    }

    /// After an answer the client goes on here.
    pub(crate) fn resume(&mut self, at: u64) {
        self.at = at;
        self.step = Step::Head;
        self.searched = 0;
        self.begun = false;
    }

    /// Takes in what the server sent. Whether there were requests that nobody saw.
    pub(crate) fn answered(&mut self, bytes: &[u8]) -> bool {
        self.unanswered = 0;
        let Some(drift) = &mut self.drift else {
            return false;
        };
        let is_answer = |bytes: &&[u8]| {
            matches!(
                bytes,
                [
                    b'H',
                    b'T',
                    b'T',
                    b'P',
                    b'/',
                    b'1',
                    b'.',
                    _,
                    b' ',
                    b'2'..=b'5'
                ]
            )
        };
        let answers = bytes.windows(10).filter(is_answer).count();
        let answers = u32::try_from(answers).unwrap_or(u32::MAX);
        drift.answers = drift.answers.saturating_add(answers);
        drift.answers > drift.requests
    }

    /// Reads on in a stream that is at hand from `base` on.
    pub(crate) fn next(&mut self, base: u64, data: &[u8]) -> Progress {
        if let Step::Either(body) = self.step
            && base > self.at
        {
            self.enter(body);
        }
        loop {
            let rest = rest(self.at, base, data);
            if rest.is_empty() {
                return Progress::More;
            }
            let progress = match self.step {
                Step::Head => self.head(rest),
                Step::Either(body) => self.either(rest, body),
                Step::Chunk => self.chunk(rest),
                Step::Trailer => self.trailer(rest),
                Step::Adrift => Some(Progress::More),
                Step::Lost => Some(Progress::Unreadable),
            };
            if let Some(progress) = progress {
                return progress;
            }
        }
    }

    /// Makes the best of a head that does not end.
    pub(crate) fn give_up(&mut self, base: u64, data: &[u8]) -> Option<Box<Head>> {
        let is_head = self.step == Step::Head && self.begun;
        let head = is_head.then(|| Head::read(rest(self.at, base, data)))??;
        self.heads = self.heads.saturating_add(1);
        Some(Box::new(head))
    }

    /// `None` where there is something to read after it.
    fn head(&mut self, rest: &[u8]) -> Option<Progress> {
        if !self.begun {
            // Servers pass over empty lines (RFC 9112 section 2.2), some over blanks.
            let is_empty = |byte: &u8| matches!(byte, b'\r' | b'\n') || is_blank(*byte);
            let blank = rest.iter().take_while(|byte| is_empty(byte)).count();
            if blank > 0 {
                self.pass(blank, 0);
                return None;
            }
            if !may_be_request(rest) {
                return Some(self.other());
            }
            let Some(end) = self.line_end(rest) else {
                return Some(Progress::More);
            };
            match line(rest.get(..end).unwrap_or_default()) {
                Line::Request { .. } => self.begun = true,
                Line::Odd => return Some(Progress::Unreadable),
                Line::Other => return Some(self.other()),
            }
            self.searched = end - 1;
        }
        let Some(end) = self.head_end(rest) else {
            return Some(Progress::More);
        };
        let Some(head) = Head::read(rest.get(..end).unwrap_or_default()) else {
            return Some(Progress::Unreadable);
        };
        self.begun = false;
        self.heads = self.heads.saturating_add(1);
        self.unanswered = self.unanswered.saturating_add(1);
        if let Some(drift) = &mut self.drift {
            drift.requests = drift.requests.saturating_add(1);
        }
        self.switches = head.switches;
        self.pass(end, 0);
        match head.body {
            Body::Bytes(0) => self.step = Step::Head,
            Body::Unclear => self.step = Step::Lost,
            body => self.step = Step::Either(body),
        }
        Some(Progress::Head(Box::new(head)))
    }

    fn either(&mut self, rest: &[u8], body: Body) -> Option<Progress> {
        let end = self.line_end(rest);
        if end.is_none() && may_be_request(rest) {
            return Some(Progress::More);
        }
        self.pass(0, 0);
        match line(rest.get(..end.unwrap_or(0)).unwrap_or_default()) {
            Line::Request { .. } | Line::Odd => self.step = Step::Head,
            Line::Other => self.enter(body),
        }
        None
    }

    /// A body begins here.
    fn enter(&mut self, body: Body) {
        let (step, len) = match body {
            Body::Bytes(len) => (Step::Head, len),
            Body::Chunked => (Step::Chunk, 0),
            Body::Unclear => (Step::Lost, 0),
        };
        self.step = step;
        self.pass(0, len);
    }

    fn other(&self) -> Progress {
        match self.switches {
            true => Progress::Switched(self.at),
            false => Progress::Other,
        }
    }

    fn chunk(&mut self, rest: &[u8]) -> Option<Progress> {
        let Some(end) = self.line_end(rest) else {
            return Some(Progress::More);
        };
        let size = rest.get(..end).unwrap_or_default().trim_ascii();
        if size.is_empty() {
            // The end of the chunk before.
            self.pass(end, 0);
            return None;
        }
        let Some(size) = chunk_size(size) else {
            return Some(Progress::Unreadable);
        };
        if size == 0 {
            self.step = Step::Trailer;
        }
        self.pass(end, size);
        None
    }

    fn trailer(&mut self, rest: &[u8]) -> Option<Progress> {
        let Some(end) = self.line_end(rest) else {
            return Some(Progress::More);
        };
        if rest
            .get(..end)
            .is_some_and(|line| line.trim_ascii().is_empty())
        {
            self.step = Step::Head;
        }
        self.pass(end, 0);
        None
    }

    /// Goes on behind what was read and this much more.
    fn pass(&mut self, read: usize, more: u64) {
        let read = u64::try_from(read).unwrap_or(u64::MAX);
        self.at = self.at.saturating_add(read).saturating_add(more);
        self.searched = 0;
    }

    /// Where the first line ends.
    fn line_end(&mut self, rest: &[u8]) -> Option<usize> {
        let unseen = rest.get(self.searched..).unwrap_or_default();
        let end = unseen.iter().position(|byte| *byte == b'\n');
        let end = end.map(|end| self.searched + end + 1);
        self.searched = rest.len();
        end
    }

    /// Where the empty line after the head ends.
    fn head_end(&mut self, rest: &[u8]) -> Option<usize> {
        let from = self.searched.saturating_sub(2);
        let unseen = rest.get(from..).unwrap_or_default();
        let mut lines = (1..).zip(unseen).filter(|(_, byte)| **byte == b'\n');
        let end = lines.find_map(|(end, _)| match unseen.get(end..)? {
            [b'\n', ..] => Some(end + 1),
            [b'\r', b'\n', ..] => Some(end + 2),
            _ => None,
        });
        self.searched = rest.len();
        Some(from + end?)
    }
}

/// What is at hand from a position on.
fn rest(at: u64, base: u64, data: &[u8]) -> &[u8] {
    let from = at.checked_sub(base).map(usize::try_from);
    let Some(Ok(from)) = from else { return &[] };
    data.get(from..).unwrap_or_default()
}

/// Extensions after the size are of no interest.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let is_digit = |byte: &u8| byte.is_ascii_hexdigit();
    let digits = line.iter().take_while(|byte| is_digit(byte)).count();
    let (digits, after) = line.split_at_checked(digits)?;
    matches!(after.first(), None | Some(b';' | b' ' | b'\t')).then_some(())?;
    u64::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests;
