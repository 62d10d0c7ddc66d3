//! Reads the start of a TCP connection: who the client thinks it talks to,
//! and where its calls begin.

mod claimed;
mod flight;

use crate::dns::starts_with_question;
use crate::findings::{Finding, Findings};
use crate::http::{HttpFacts, Progress, Requests};
use crate::names::NameSource;
use crate::preamble::{Preamble, preamble};
use crate::reassembly::Assembler;
use crate::socks::{Socks, socks};
use crate::starttls::{StartTls, starttls};
use crate::tls::{
    CertificateFacts, ClientWalk, Negotiated, TlsFacts, certificate, server_hello, starts_like_tls,
};

/// What the start of a connection said; it outlives the reading.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) is_tls: bool,
    pub(crate) tls: Option<TlsFacts>,
    pub(crate) http: Option<HttpFacts>,
    /// The server's certificate, where it was sent in the clear.
    pub(crate) certificate: Option<Box<CertificateFacts>>,
    /// Names that the client used and nobody took note of yet.
    pub(crate) named: Vec<(String, NameSource)>,
}

/// The reading of one connection's start.
#[derive(Debug)]
pub(crate) struct Sniff {
    /// Where in the client's stream what is kept of it begins. All before it was
    /// read, or is the body of a request, and the server has it.
    base: u64,
    client: Assembler,
    limit: usize,
    /// Kept bytes that are done with.
    walked: usize,
    /// Where the client's stream ends so far, as sent and as the server has it.
    sent: u64,
    acked: u64,
    /// Where the server's stream ends so far.
    heard: u64,
    /// The server spoke since the client did.
    answered: bool,
    server: Assembler,
    negotiated: Option<Negotiated>,
    /// The server's certificate was read.
    certified: bool,
    /// Where in the server's stream its TLS begins.
    server_from: u64,
    /// The server spoke first.
    greeted: bool,
    /// Where the client's lines that ask for TLS end.
    asked_at: Option<u64>,
    findings: Findings,
    /// The client's stream begins with a question of DNS.
    asks: bool,
    /// What is read goes through a proxy, or follows words in the clear.
    is_inner: bool,
    /// The host that was named last.
    host: Option<String>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Undecided,
    Tls(Box<ClientWalk>),
    Http(Requests),
    /// Lines of text, one of which may ask for TLS.
    Lines,
    /// TLS that a proxy passes on, or that was asked for in the clear.
    Inner(Box<ClientWalk>),
    /// Something else, in which TLS may begin when the server has answered.
    Unknown,
    Over,
}

/// A segment as it stands in its stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'a> {
    pub(crate) offset: u64,
    pub(crate) bytes: &'a [u8],
    /// Its length on the wire.
    pub(crate) len: u32,
    /// The client called bytes urgent, here or before.
    pub(crate) may_be_urgent: bool,
}

/// Bytes of the server that are read: its hello and first certificate are in them.
const SERVER_LIMIT: usize = 16 * 1024;

impl Piece<'_> {
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.len.into())
    }

    /// What of it stands behind this, which it is then told from.
    fn from(self, base: u64) -> Option<Self> {
        let Some(before) = base.checked_sub(self.offset).filter(|it| *it > 0) else {
            return Some(Self {
                offset: self.offset - base,
                ..self
            });
        };
        let len = u64::from(self.len).checked_sub(before)?;
        let from = usize::try_from(before).unwrap_or(usize::MAX);
        Some(Self {
            offset: 0,
            bytes: self.bytes.get(from..).unwrap_or_default(),
            len: u32::try_from(len).ok().filter(|len| *len > 0)?,
            ..self
        })
    }
}

impl Sniff {
    /// Nothing read yet; at most `limit` bytes of the client will be at once.
    pub(crate) fn new(limit: usize, greeted: bool) -> Self {
        Self {
            base: 0,
            client: Assembler::new(limit),
            limit,
            walked: 0,
            sent: 0,
            acked: 0,
            heard: 0,
            answered: false,
            server: Assembler::new(SERVER_LIMIT),
            negotiated: None,
            certified: false,
            server_from: 0,
            greeted,
            asked_at: None,
            findings: Findings::default(),
            asks: false,
            is_inner: false,
            host: None,
            kind: Kind::Undecided,
        }
    }

    /// Takes in client payload. Answers how many of its bytes turned out to
    /// belong to a handshake. What was read is still compared with what is sent
    /// again: the server may get that and never have had the first.
    pub(crate) fn client(&mut self, piece: Piece<'_>, facts: &mut Facts) -> u64 {
        self.look_for_flight(piece);
        self.sent = self.sent.max(piece.end());
        let Some(piece) = piece.from(self.base) else {
            return 0;
        };
        if !self.reads() {
            self.client.check(piece.offset, piece.bytes);
            self.note_inconsistency();
            return 0;
        }
        // Lines of text have a use for them: Telnet, FTP, remote shells.
        if piece.may_be_urgent && !matches!(self.kind, Kind::Lines) {
            self.findings.insert(Finding::TcpUrgent);
        }
        if self.client.is_over() {
            self.client.check(piece.offset, piece.bytes);
        } else {
            self.client.insert(piece.offset, piece.bytes, piece.len);
        }
        let handshake = self.read(facts);
        if self.note_inconsistency() {
            self.give_up(facts);
        } else if self.reads() && self.client.is_over() && self.known() < self.sent {
            self.lose(facts);
        }
        if !self.reads() {
            self.client.stop();
            self.server.forget();
        }
        handshake
    }

    /// Takes in server payload.
    pub(crate) fn server(&mut self, piece: Piece<'_>, facts: &mut Facts) {
        self.answered = true;
        let is_new = piece.offset >= self.heard;
        self.heard = self.heard.max(piece.end());
        if let Kind::Http(requests) = &mut self.kind {
            if is_new && requests.answered(piece.bytes) {
                self.end_early(facts);
            }
            return;
        }
        // TLS 1.3 encrypts all that follows the hello.
        let known = self.negotiated.is_some_and(|it| it.tls13 || self.certified);
        let is_tls = matches!(self.kind, Kind::Tls(_) | Kind::Inner(_));
        let Some(piece) = piece.from(self.server_from) else {
            return;
        };
        if !is_tls || known || self.server.is_over() {
            return;
        }
        self.server.insert(piece.offset, piece.bytes, piece.len);
        self.note_inconsistency();
        if self.negotiated.is_none() {
            self.negotiated = server_hello(self.server.data()).flatten();
        }
        if self.negotiated.is_some_and(|it| !it.tls13)
            && let Some(shown) = certificate(self.server.data(), asked(facts))
        {
            self.certified = true;
            facts.certificate = Some(Box::new(shown));
        }
        note_version(facts, self.negotiated);
    }

    /// The server acknowledged the client's stream up to here. If that is more
    /// than was seen, the rest was not captured and never will be. A start that
    /// the server has cannot be replaced any more.
    pub(crate) fn acknowledged(&mut self, offset: u64, facts: &mut Facts) {
        self.acked = self.acked.max(offset);
        if offset > self.known().saturating_add(1) {
            self.lose(facts);
        }
        if offset < self.kept() {
            return;
        }
        match &self.kind {
            Kind::Unknown if offset > self.bound() => self.kind = Kind::Over,
            Kind::Over | Kind::Unknown => self.client.forget(),
            Kind::Http(requests) if requests.is_adrift() => self.client.forget(),
            Kind::Http(requests) => {
                let (read, covered) = (requests.at(), requests.covers());
                let next = if self.client.is_over() { covered } else { read };
                if self.kept() <= next && self.sent <= offset.max(covered) {
                    self.keep_from(next);
                }
            }
            _ => {}
        }
    }

    /// The connection ended, or nobody looks at it any longer.
    pub(crate) fn end(&mut self, facts: &mut Facts) {
        if self.known() < self.sent {
            self.end_early(facts);
        }
        self.give_up(facts);
    }

    /// Stops reading; what is unsettled is call bytes.
    pub(crate) fn give_up(&mut self, facts: &mut Facts) {
        match &mut self.kind {
            Kind::Tls(walk) => walk.abandon(),
            Kind::Http(requests) => {
                if let Some(head) = requests.give_up(self.base, self.client.data()) {
                    self.claim_hosts(*head, facts);
                }
            }
            _ => {}
        }
        self.kind = Kind::Over;
    }

    /// A part of the client's stream was not captured, or is behind the bound.
    fn lose(&mut self, facts: &mut Facts) {
        if let Kind::Http(requests) = &mut self.kind
            && requests.lose()
        {
            self.client.stop();
        } else {
            self.end_early(facts);
        }
    }

    /// Stops reading although there is more, in which a host may be named.
    fn end_early(&mut self, facts: &mut Facts) {
        let unsettled = !self.is_settled();
        let matters = match &self.kind {
            Kind::Undecided | Kind::Http(_) => true,
            Kind::Tls(walk) | Kind::Inner(walk) => !walk.is_named(),
            Kind::Lines | Kind::Unknown | Kind::Over => false,
        };
        self.give_up(facts);
        let finding = match (self.client.is_cut(), unsettled) {
            (true, true) => Finding::TruncatedStart,
            _ if matters => Finding::StartUnread,
            _ => return,
        };
        self.findings.insert(finding);
    }

    /// Whether client bytes are not to be counted as calls yet.
    pub(crate) fn holds_calls(&self) -> bool {
        match &self.kind {
            // More than this shows whether it is TLS; if it may be another thing
            // its bytes count.
            Kind::Undecided => !self.is_inner && self.fresh().len() < 3,
            Kind::Tls(_) => true,
            _ => false,
        }
    }

    /// Whether the client's claim is known, or that it makes none.
    pub(crate) fn is_settled(&self) -> bool {
        match &self.kind {
            Kind::Undecided => self.is_inner,
            Kind::Http(requests) => requests.is_named(),
            Kind::Tls(walk) => walk.is_named(),
            Kind::Lines | Kind::Inner(_) | Kind::Unknown | Kind::Over => true,
        }
    }

    /// The client's stream so far, where it begins with a question of DNS.
    pub(crate) fn question(&self) -> Option<&[u8]> {
        self.asks.then(|| self.client.data())
    }

    /// Whether there is nothing left to read or to compare.
    pub(crate) fn is_spent(&self) -> bool {
        matches!(self.kind, Kind::Over)
            && (self.client.data().is_empty() || self.client.is_inconsistent())
    }

    /// What the reading found odd.
    pub(crate) const fn findings(&self) -> Findings {
        self.findings
    }

    /// Bytes of memory in use.
    pub(crate) fn footprint(&self) -> usize {
        let hello = match &self.kind {
            Kind::Tls(walk) | Kind::Inner(walk) => walk.footprint(),
            _ => 0,
        };
        size_of::<Self>() + self.client.footprint() + self.server.footprint() + hello
    }

    /// Whether the client sent something again with other bytes.
    fn note_inconsistency(&mut self) -> bool {
        let by_client = self.client.is_inconsistent();
        if by_client || self.server.is_inconsistent() {
            self.findings.insert(Finding::InconsistentReassembly);
        }
        by_client
    }

    /// Whether what the client sends is taken in.
    const fn reads(&self) -> bool {
        !matches!(self.kind, Kind::Unknown | Kind::Over)
    }

    /// Where in the client's stream the reading of what names no host ends.
    fn bound(&self) -> u64 {
        u64::try_from(self.limit).unwrap_or(u64::MAX)
    }

    /// Where in the client's stream what is kept of it ends.
    fn kept(&self) -> u64 {
        let len = u64::try_from(self.client.data().len()).unwrap_or(u64::MAX);
        self.base.saturating_add(len)
    }

    /// Up to where the client's stream is known: read, or the body of a request.
    fn known(&self) -> u64 {
        match &self.kind {
            Kind::Http(requests) => self.kept().max(requests.covers()),
            Kind::Unknown | Kind::Over => self.sent,
            _ => self.kept(),
        }
    }

    /// Where in the client's stream what was not looked at begins.
    fn walked_to(&self) -> u64 {
        let walked = u64::try_from(self.walked).unwrap_or(u64::MAX);
        self.base.saturating_add(walked)
    }

    /// Kept bytes that were not looked at.
    fn fresh(&self) -> &[u8] {
        self.client.data().get(self.walked..).unwrap_or_default()
    }

    /// Lets go of what was kept.
    fn keep_from(&mut self, base: u64) {
        self.base = base;
        self.client = Assembler::new(self.limit);
        self.walked = 0;
    }

    fn read(&mut self, facts: &mut Facts) -> u64 {
        let mut handshake = 0;
        loop {
            let goes_on = match &mut self.kind {
                Kind::Undecided => self.decide(facts),
                Kind::Http(_) => self.read_requests(facts),
                Kind::Lines => self.read_lines(),
                Kind::Tls(_) => {
                    handshake = self.read_hello(facts);
                    false
                }
                Kind::Inner(_) => {
                    self.read_inner(facts);
                    false
                }
                Kind::Unknown | Kind::Over => false,
            };
            if !goes_on {
                return handshake;
            }
        }
    }

    /// Whether it is known now how to read on.
    fn decide(&mut self, facts: &mut Facts) -> bool {
        if self.walked == 0 && self.base == 0 {
            match starts_with_question(self.client.data()) {
                Some(true) => {
                    self.asks = true;
                    self.kind = Kind::Over;
                    return true;
                }
                Some(false) => {}
                None => return false,
            }
            match socks(self.client.data()) {
                Socks::Tunnel(start, host) => {
                    let host = host.map(ToOwned::to_owned);
                    self.walked = start;
                    self.is_inner = true;
                    self.claim_target(host.as_deref(), facts);
                    return true;
                }
                Socks::Incomplete => return false,
                Socks::Other => {}
            }
        }
        match preamble(self.fresh()) {
            Preamble::Of(len) => {
                self.walked += len;
                return true;
            }
            Preamble::Incomplete => return false,
            Preamble::None => {}
        }
        self.kind = match starts_like_tls(self.fresh()) {
            Some(true) if self.is_inner => {
                self.check_asked();
                self.begin_inner()
            }
            Some(true) => {
                facts.is_tls = true;
                if self.walked > 0 {
                    self.server_from = self.heard;
                }
                Kind::Tls(Box::default())
            }
            Some(false) => Kind::Http(Requests::new(self.walked_to())),
            None => return false,
        };
        true
    }

    fn read_hello(&mut self, facts: &mut Facts) -> u64 {
        let Kind::Tls(walk) = &mut self.kind else {
            return 0;
        };
        let fresh = self.client.data().get(self.walked..).unwrap_or_default();
        self.walked += fresh.len();
        let handshake = walk.feed(fresh, self.negotiated);
        if facts.tls.is_none() {
            facts.tls = walk.hello().cloned();
        }
        note_version(facts, self.negotiated);
        self.findings = self.findings.union(walk.findings());
        for name in walk.take_names() {
            facts.named.push((name, NameSource::TlsSni));
        }
        if walk.is_done() {
            self.kind = Kind::Over;
        }
        handshake
    }

    fn read_requests(&mut self, facts: &mut Facts) -> bool {
        let Kind::Http(requests) = &mut self.kind else {
            return false;
        };
        match requests.next(self.base, self.client.data()) {
            Progress::More => return false,
            Progress::Head(head) => self.claim_hosts(*head, facts),
            Progress::Other if requests.has_drifted() => {
                requests.drift_on();
                self.client.stop();
                return false;
            }
            Progress::Other if requests.is_named() => self.kind = Kind::Over,
            Progress::Other if self.is_inner => self.kind = Kind::Unknown,
            Progress::Other => self.kind = Kind::Lines,
            Progress::Switched(at) => {
                let kept = at.saturating_sub(self.base);
                self.walked = usize::try_from(kept).unwrap_or(usize::MAX);
                self.is_inner = true;
                self.kind = Kind::Undecided;
            }
            Progress::Unreadable => {
                self.findings.insert(Finding::StartUnread);
                self.kind = Kind::Over;
            }
        }
        true
    }

    fn read_lines(&mut self) -> bool {
        self.kind = match starttls(self.client.data()) {
            StartTls::NotYet => return false,
            StartTls::No => Kind::Unknown,
            StartTls::At(start) => {
                self.walked = start;
                self.is_inner = true;
                self.asked_at = Some(self.walked_to());
                Kind::Undecided
            }
        };
        true
    }

    /// Reads the hellos of a TLS connection inside. All its bytes are call bytes:
    /// whoever passes them on gets them as such.
    fn read_inner(&mut self, facts: &mut Facts) {
        let Kind::Inner(walk) = &mut self.kind else {
            return;
        };
        let fresh = self.client.data().get(self.walked..).unwrap_or_default();
        self.walked += fresh.len();
        walk.feed(fresh, None);
        self.findings = self.findings.union(walk.findings());
        let (names, is_done, is_named) =
            (walk.take_names(), walk.is_done(), walk.hello().is_some());
        if facts.tls.is_none() {
            facts.tls = walk.hello().cloned();
        }
        note_version(facts, self.negotiated);
        if is_done {
            self.kind = match is_named {
                true => Kind::Over,
                false => Kind::Unknown,
            };
        }
        self.claim_inner(names, facts);
    }
}

/// The name that the client asked for.
fn asked(facts: &Facts) -> Option<&str> {
    facts.tls.as_ref()?.sni.as_deref()
}

/// Adds the version that the server chose.
fn note_version(facts: &mut Facts, negotiated: Option<Negotiated>) {
    if let (Some(tls), Some(negotiated)) = (&mut facts.tls, negotiated) {
        tls.version = negotiated.version();
    }
}
