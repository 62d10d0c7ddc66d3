//! Joins DNS questions and answers as they go by.

use crate::dns::{Asked, Message, Sent};
use crate::findings::Finding;
use crate::flow::carried::Carried;
use crate::flow::dns_kind::DNS_PORT;
use crate::flow::table::{FlowSink, FlowTable};
use crate::key::FlowKey;
use crate::names::Voice;
use crate::packet::{Direction, Moment};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;
use std::sync::Arc;

impl FlowTable {
    /// Takes in one DNS message, whole or cut.
    pub(super) fn dns(
        &mut self,
        bytes: &[u8],
        is_cut: bool,
        key: &FlowKey,
        slot: u32,
        carried: &Carried,
        sink: &mut dyn FlowSink,
    ) {
        let Carried { at, direction, .. } = *carried;
        let (sandbox, peer) = (key.sandbox(), key.peer());
        let (Some(client), Some(client_port), Some(resolver), Some(resolver_port)) =
            (sandbox.ip, sandbox.port, peer.ip, peer.port)
        else {
            return;
        };
        let asked = Asked {
            client,
            client_port,
            resolver,
            resolver_port,
            // Within a tunnel an address says nothing of who answers, and at
            // another port somebody else may.
            accepted: key.within() == 0
                && resolver_port == DNS_PORT
                && self.config.accepted_resolvers.contains(&resolver),
        };
        let message = Message::parse(bytes)
            .filter(|message| message.is_response == (direction == Direction::ToSandbox));
        let Some(message) = message else {
            return self.note(slot, Finding::DnsMalformed);
        };
        if direction == Direction::FromSandbox {
            let name = &message.question.name;
            let tunnelling = self.tunnelling.ask(name, at.mono_us);
            if tunnelling {
                self.note(slot, Finding::DnsTunnelling);
            }
            let max = self.config.max_dns_pending;
            if message.is_more_than_a_question && !is_cut {
                self.note(slot, Finding::DnsMalformed);
            }
            let question = Sent {
                message,
                digest: digest(bytes),
                tunnelling,
            };
            if let Some(displaced) = self.questions.ask(at, asked, question, max) {
                self.report_question(at, &displaced, sink);
            }
            return;
        }
        let reply = self.questions.reply(at, asked, message);
        match &reply.message {
            Some(message) if key.within() == 0 => {
                self.learn(message, &reply.addresses, asked, at);
            }
            Some(_) => {}
            None => self.note(slot, Finding::DnsUnmatchedAnswer),
        }
        if asked.accepted {
            for (name, address) in &reply.contradicted {
                self.names.discount(*address, name, asked.resolver, at);
            }
        }
        for part in reply.transaction.parts() {
            self.report_question(at, &part, sink);
        }
    }

    fn learn(&mut self, message: &Message, addresses: &[IpAddr], asked: Asked, at: Moment) {
        if message.rcode != 0 {
            return;
        }
        let name = Arc::from(message.question.name.as_str());
        let voice = Voice {
            resolver: asked.resolver,
            accepted: asked.accepted,
            discounted: asked.resolver_port != DNS_PORT,
        };
        for address in addresses {
            self.names.learn(*address, &name, voice, at);
        }
        for target in message.dangling() {
            self.names.learn_alias(target, &name, asked.accepted, at);
        }
    }
}

/// Tells what was sent from what is sent again.
fn digest(message: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    message.hash(&mut hasher);
    hasher.finish()
}
