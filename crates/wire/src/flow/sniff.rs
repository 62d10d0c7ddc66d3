//! Reads the start of a TCP connection: who the client thinks it talks to,
//! and where its calls begin.

use crate::dns::starts_with_question;
use crate::findings::{Finding, Findings};
use crate::http::{HeadReader, HttpFacts, Reading, head_len};
use crate::reassembly::Assembler;
use crate::socks::{Socks, socks};
use crate::starttls::{StartTls, starttls};
use crate::tls::{
    CertificateFacts, ClientWalk, Negotiated, TlsFacts, certificate, server_hello, starts_like_tls,
};
use std::net::IpAddr;

/// What the start of a connection said; it outlives the reading.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) is_tls: bool,
    pub(crate) tls: Option<TlsFacts>,
    pub(crate) http: Option<HttpFacts>,
    /// The server's certificate, where it was sent in the clear.
    pub(crate) certificate: Option<Box<CertificateFacts>>,
}

/// The reading of one connection's start.
#[derive(Debug)]
pub(crate) struct Sniff {
    client: Assembler,
    /// Bytes of the client's stream that the walk has seen.
    walked: usize,
    server: Assembler,
    negotiated: Option<Negotiated>,
    /// The server's certificate was read.
    certified: bool,
    sni_changed: bool,
    /// The hello inside a tunnel names another host than the proxy was asked for.
    sni_differs: bool,
    /// The capture cut the start short where a name may have stood.
    truncated: bool,
    /// The reading ended where a name may still have come.
    unread: bool,
    /// Urgent bytes may stand in what was read.
    urgent: bool,
    /// The client's stream begins with a question of DNS.
    asks: bool,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Undecided,
    Tls(Box<ClientWalk>),
    Http(HeadReader),
    /// Lines of text, one of which may ask for TLS.
    Lines,
    /// What a proxy was asked to pass on, or what follows lines that ask for TLS,
    /// from this byte of the stream.
    Tunnel(usize, Box<ClientWalk>),
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

/// How a PostgreSQL client asks for TLS (SSLRequest): length 8 and a code. The
/// server's answer is one byte, and TLS follows on the same connection.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// Bytes of the server that are read: its hello and first certificate are in them.
const SERVER_LIMIT: usize = 16 * 1024;

impl Sniff {
    /// Nothing read yet; at most `limit` bytes of the client will be.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            client: Assembler::new(limit),
            walked: 0,
            server: Assembler::new(SERVER_LIMIT),
            negotiated: None,
            certified: false,
            sni_changed: false,
            sni_differs: false,
            truncated: false,
            unread: false,
            urgent: false,
            asks: false,
            kind: Kind::Undecided,
        }
    }

    /// Takes in client payload. Answers how many of its bytes turned out to
    /// belong to a handshake. What was read is still compared with what is sent
    /// again: the server may get that and never have had the first.
    pub(crate) fn client(&mut self, piece: Piece<'_>, facts: &mut Facts) -> u64 {
        if self.is_over() {
            self.client.check(piece.offset, piece.bytes);
            return 0;
        }
        // Lines of text have a use for them: Telnet, FTP, remote shells.
        self.urgent |= piece.may_be_urgent && !matches!(self.kind, Kind::Lines);
        self.client.insert(piece.offset, piece.bytes, piece.len);
        let handshake = self.read(facts);
        if self.client.is_inconsistent() || self.client.is_over() {
            self.give_up(facts);
        }
        if self.is_over() {
            self.client.stop();
            self.server.forget();
        }
        handshake
    }

    /// Takes in server payload.
    pub(crate) fn server(&mut self, piece: Piece<'_>, facts: &mut Facts) {
        // TLS 1.3 encrypts all that follows the hello.
        let known = self.negotiated.is_some_and(|it| it.tls13 || self.certified);
        if !matches!(self.kind, Kind::Tls(_)) || known || self.server.is_over() {
            return;
        }
        self.server.insert(piece.offset, piece.bytes, piece.len);
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
        let seen = u64::try_from(self.client.data().len()).unwrap_or(u64::MAX);
        if offset > seen.saturating_add(1) && !self.is_over() {
            self.client.lose_rest();
            self.give_up(facts);
        }
        if self.is_over() && offset >= seen {
            self.client.forget();
        }
    }

    /// Stops reading; what is unsettled is call bytes.
    pub(crate) fn give_up(&mut self, facts: &mut Facts) {
        let (awaits_name, partial) = (self.awaits_name(), self.client.is_partial());
        match &mut self.kind {
            Kind::Tls(walk) => walk.abandon(),
            Kind::Http(_) => facts.http = HeadReader::give_up(self.client.data()),
            Kind::Undecided | Kind::Lines | Kind::Tunnel(..) | Kind::Over => {}
        }
        self.kind = Kind::Over;
        let named = facts.http.as_ref().is_some_and(|http| http.host.is_some());
        if awaits_name && !named {
            self.truncated |= self.client.is_cut();
            self.unread |= partial && !self.client.is_cut();
        }
    }

    /// Whether what comes next may name a host.
    fn awaits_name(&self) -> bool {
        !self.is_settled() || matches!(self.kind, Kind::Tunnel(..))
    }

    /// Whether client bytes are not to be counted as calls yet.
    pub(crate) fn holds_calls(&self) -> bool {
        match &self.kind {
            // More than this shows whether it is TLS; if it may be another thing
            // its bytes count.
            Kind::Undecided => self.client.data().len().saturating_sub(self.walked) < 3,
            Kind::Tls(_) => true,
            Kind::Http(_) | Kind::Lines | Kind::Tunnel(..) | Kind::Over => false,
        }
    }

    /// Whether the client's claim is known, or that it makes none.
    pub(crate) fn is_settled(&self) -> bool {
        match &self.kind {
            Kind::Undecided | Kind::Http(_) => false,
            Kind::Tls(walk) => walk.is_named(),
            Kind::Lines | Kind::Tunnel(..) | Kind::Over => true,
        }
    }

    /// The client's stream so far, where it begins with a question of DNS.
    pub(crate) fn question(&self) -> Option<&[u8]> {
        self.asks.then(|| self.client.data())
    }

    /// Whether there is nothing left to read or to compare.
    pub(crate) fn is_spent(&self) -> bool {
        self.is_over() && (self.client.data().is_empty() || self.client.is_inconsistent())
    }

    fn is_over(&self) -> bool {
        matches!(self.kind, Kind::Over)
    }

    /// What the reading found odd.
    pub(crate) fn findings(&self) -> Findings {
        let inconsistent = self.client.is_inconsistent() || self.server.is_inconsistent();
        [
            (self.sni_changed, Finding::SniChanged),
            (self.sni_differs, Finding::SniDiffersFromHost),
            (self.truncated, Finding::TruncatedStart),
            (self.unread, Finding::StartUnread),
            (self.urgent, Finding::TcpUrgent),
            (inconsistent, Finding::InconsistentReassembly),
        ]
        .into_iter()
        .filter_map(|(is, finding)| is.then_some(finding))
        .collect()
    }

    /// Bytes of memory in use.
    pub(crate) fn footprint(&self) -> usize {
        let hello = match &self.kind {
            Kind::Tls(walk) | Kind::Tunnel(_, walk) => walk.footprint(),
            _ => 0,
        };
        size_of::<Self>() + self.client.footprint() + self.server.footprint() + hello
    }

    fn read(&mut self, facts: &mut Facts) -> u64 {
        if matches!(self.kind, Kind::Undecided) {
            if self.client.data().starts_with(&SSL_REQUEST) && self.walked == 0 {
                self.walked = SSL_REQUEST.len();
            }
            if self.walked == 0 {
                match starts_with_question(self.client.data()) {
                    Some(true) => {
                        self.asks = true;
                        self.kind = Kind::Over;
                        return 0;
                    }
                    Some(false) => {}
                    None => return 0,
                }
                match socks(self.client.data()) {
                    Socks::Tunnel(start) => {
                        self.walked = start;
                        self.kind = Kind::Tunnel(start, Box::default());
                        self.read_tunnel(facts);
                        return 0;
                    }
                    Socks::Incomplete => return 0,
                    Socks::Other => {}
                }
            }
            match starts_like_tls(self.client.data().get(self.walked..).unwrap_or_default()) {
                Some(true) => {
                    facts.is_tls = true;
                    self.kind = Kind::Tls(Box::default());
                }
                Some(false) => self.kind = Kind::Http(HeadReader::default()),
                None => return 0,
            }
        }
        match &mut self.kind {
            Kind::Tls(walk) => {
                let fresh = self.client.data().get(self.walked..).unwrap_or_default();
                self.walked += fresh.len();
                let handshake = walk.feed(fresh, self.negotiated);
                if facts.tls.is_none() {
                    facts.tls = walk.hello().cloned();
                }
                note_version(facts, self.negotiated);
                self.sni_changed |= walk.sni_changed();
                if walk.is_done() {
                    self.kind = Kind::Over;
                }
                handshake
            }
            Kind::Http(reader) => {
                match reader.read(self.client.data()) {
                    Reading::Incomplete => {}
                    Reading::Other => self.read_lines(facts),
                    Reading::Request(request) => {
                        self.kind = match head_len(self.client.data()) {
                            Some(start) if request.method == "CONNECT" => {
                                self.walked = start;
                                Kind::Tunnel(start, Box::default())
                            }
                            _ => Kind::Over,
                        };
                        facts.http = Some(request);
                        self.read_tunnel(facts);
                    }
                }
                0
            }
            Kind::Lines => {
                self.read_lines(facts);
                0
            }
            Kind::Tunnel(..) => {
                self.read_tunnel(facts);
                0
            }
            Kind::Undecided | Kind::Over => 0,
        }
    }

    fn read_lines(&mut self, facts: &mut Facts) {
        self.kind = match starttls(self.client.data()) {
            StartTls::NotYet => Kind::Lines,
            StartTls::No => Kind::Over,
            StartTls::At(start) => {
                self.walked = start;
                Kind::Tunnel(start, Box::default())
            }
        };
        self.read_tunnel(facts);
    }

    /// Reads up to the hello of a TLS connection inside a tunnel. All its bytes
    /// are call bytes: the proxy gets them as such.
    fn read_tunnel(&mut self, facts: &mut Facts) {
        let Kind::Tunnel(start, walk) = &mut self.kind else {
            return;
        };
        let stream = self.client.data();
        match starts_like_tls(stream.get(*start..).unwrap_or_default()) {
            Some(true) => {}
            Some(false) => {
                self.kind = Kind::Over;
                return;
            }
            None => return,
        }
        let fresh = stream.get(self.walked..).unwrap_or_default();
        self.walked += fresh.len();
        walk.feed(fresh, None);
        if !walk.is_named() {
            return;
        }
        facts.tls = walk.hello().cloned();
        let asked = facts.http.as_ref().and_then(|http| http.host.as_deref());
        let named = facts.tls.as_ref().and_then(|tls| tls.sni.as_deref());
        if let (Some(asked), Some(named)) = (asked, named) {
            // Who asks for an address still names the host to it.
            self.sni_differs = asked != named && asked.parse::<IpAddr>().is_err();
        }
        self.kind = Kind::Over;
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
