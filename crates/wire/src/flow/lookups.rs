//! Joins DNS questions and answers as they go by.

use crate::dns::{Asked, Message};
use crate::findings::Finding;
use crate::flow::carried::Carried;
use crate::flow::table::{FlowSink, FlowTable};
use crate::key::FlowKey;
use crate::packet::{Direction, Moment};
use std::sync::Arc;

impl FlowTable {
    /// Takes in one DNS message, whole or cut.
    pub(super) fn dns(
        &mut self,
        message: &[u8],
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
            // Within a tunnel an address says nothing of who answers.
            accepted: key.within() == 0 && self.config.accepted_resolvers.contains(&resolver),
        };
        let message = Message::parse(message)
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
            if let Some(displaced) = self.questions.ask(at, asked, message, tunnelling, max) {
                sink.dns(at, &displaced);
            }
            return;
        }
        let reply = self.questions.reply(at, asked, message);
        match &reply.message {
            Some(message) if key.within() == 0 => self.learn(message, asked, at),
            Some(_) => {}
            None => self.note(slot, Finding::DnsUnmatchedAnswer),
        }
        for part in reply.transaction.parts() {
            sink.dns(at, &part);
        }
    }

    fn learn(&mut self, message: &Message, asked: Asked, at: Moment) {
        if message.rcode != 0 {
            return;
        }
        let name = Arc::from(message.question.name.as_str());
        for address in message.addresses() {
            self.names
                .learn(address, &name, asked.resolver, asked.accepted, at);
        }
        for target in message.dangling() {
            self.names.learn_alias(target, &name, asked.accepted, at);
        }
    }
}
