//! Questions that wait for their answer.

use super::message::{Message, Question, rcode_name, type_name};
use crate::earliest::Earliest;
use crate::packet::Moment;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

/// One question of the sandbox and what came back, or many that are alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsTransaction {
    /// Name asked for, in lower case without a trailing dot; the root is `.`.
    pub name: String,
    /// Question type: `A`, `AAAA`, … or `TYPE` and its number.
    pub qtype: String,
    /// Address that was asked.
    pub resolver: IpAddr,
    /// Port that was asked.
    pub resolver_port: u16,
    /// Whether that resolver is an accepted one.
    pub resolver_accepted: bool,
    /// Answers as text: addresses and names as they are, other types as a zone
    /// file has them.
    pub answers: Vec<String>,
    /// Response code: `NOERROR`, `NXDOMAIN`, … or `RCODE` and its number;
    /// absent where no answer came.
    pub rcode: Option<String>,
    /// Microseconds from question to answer; absent where either is missing.
    pub latency_us: Option<u64>,
    /// Whether an answer to the sandbox matched a pending question.
    pub matched: bool,
    /// It is one of many that look like data on its way out.
    pub tunnelling: bool,
    /// Records of the answer that are not among `answers`: the message ends
    /// before them, or there are too many. In the last part alone.
    pub left_out: u16,
    /// It stands for so many questions, without their answers; absent where it is one.
    pub questions: Option<u64>,
}

/// Bytes of text of the answers in one report: a record has room for it, also
/// where each is a quote or a backslash, which takes two bytes.
const MAX_ANSWERS_TEXT: usize = 24 * 1024;

impl DnsTransaction {
    /// The same with its answers spread over as many as it takes, so that a
    /// record has room for each.
    pub(crate) fn parts(mut self) -> Vec<Self> {
        let mut lists = vec![Vec::new()];
        let mut text = 0;
        for answer in std::mem::take(&mut self.answers) {
            // Quotes and a comma.
            text += answer.len() + 3;
            if text > MAX_ANSWERS_TEXT {
                text = answer.len() + 3;
                lists.push(Vec::new());
            }
            if let Some(list) = lists.last_mut() {
                list.push(answer);
            }
        }
        let last = lists.len().saturating_sub(1);
        let part = |(number, answers)| Self {
            answers,
            left_out: if number == last { self.left_out } else { 0 },
            ..self.clone()
        };
        lists.into_iter().enumerate().map(part).collect()
    }
}

/// Who asked whom: the sandbox's end and the resolver's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Asked {
    pub(crate) client: IpAddr,
    pub(crate) client_port: u16,
    pub(crate) resolver: IpAddr,
    pub(crate) resolver_port: u16,
    pub(crate) accepted: bool,
}

/// Bounded set of questions in the order of their times.
#[derive(Debug, Default)]
pub(crate) struct PendingQuestions {
    by_key: HashMap<Key, Waiting>,
    by_age: Earliest<(u64, u64), Key>,
    asked_so_far: u64,
    /// The latest questions that were answered, and the addresses.
    answered: VecDeque<(Key, Vec<IpAddr>)>,
}

/// A question as it was sent.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) message: Message,
    /// Of all its bytes.
    pub(crate) digest: u64,
    pub(crate) tunnelling: bool,
}

/// Questions of which the answer is remembered, as another one may follow.
const MAX_ANSWERED: usize = 512;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    asked: Asked,
    id: u16,
    question: Question,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    since_us: u64,
    number: u64,
    digest: u64,
    tunnelling: bool,
}

/// A reply to a question.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) transaction: DnsTransaction,
    /// When it was the answer to a pending question.
    pub(crate) message: Option<Message>,
    /// Addresses that it gives to the name.
    pub(crate) addresses: Vec<IpAddr>,
    /// Else what it contradicts: names and addresses that only an answer before it
    /// has. Who answered first is not known to be the resolver.
    pub(crate) contradicted: Vec<(String, IpAddr)>,
}

impl PendingQuestions {
    /// A question went out. The same one again changes nothing, but if other bytes
    /// are with it, it is another one. Answers a question that had to make room.
    pub(crate) fn ask(
        &mut self,
        at: Moment,
        asked: Asked,
        Sent {
            message,
            digest,
            tunnelling,
        }: Sent,
        max: usize,
    ) -> Option<DnsTransaction> {
        let key = Key {
            asked,
            id: message.id,
            question: message.question,
        };
        let displaced = match self.by_key.get(&key) {
            Some(same) if same.digest == digest => return None,
            Some(other) => Some((other.since_us, other.number)),
            None if self.by_key.len() >= max.max(1) => self.by_age.first(),
            None => None,
        };
        let displaced = displaced.and_then(|age| self.remove(age));
        self.asked_so_far += 1;
        let waiting = Waiting {
            since_us: at.mono_us,
            number: self.asked_so_far,
            digest,
            tunnelling,
        };
        self.by_age
            .insert((waiting.since_us, waiting.number), key.clone());
        self.by_key.insert(key, waiting);
        displaced
    }

    /// A reply came in.
    pub(crate) fn reply(&mut self, at: Moment, asked: Asked, message: Message) -> Reply {
        let key = Key {
            asked,
            id: message.id,
            question: message.question.clone(),
        };
        let waiting = self.by_key.remove(&key);
        if let Some(waiting) = waiting {
            self.by_age.remove((waiting.since_us, waiting.number));
        }
        let addresses: Vec<IpAddr> = message.addresses().collect();
        let contradicted = match waiting {
            Some(_) => Vec::new(),
            None => self.contradicted(&key, &message, &addresses),
        };
        if waiting.is_some() && !addresses.is_empty() {
            self.answered.truncate(MAX_ANSWERED - 1);
            self.answered.push_front((key.clone(), addresses.clone()));
        }
        Reply {
            addresses,
            contradicted,
            transaction: DnsTransaction {
                answers: message.answer_texts(),
                left_out: message.left_out,
                rcode: Some(rcode_name(message.rcode)),
                latency_us: waiting.map(|waiting| at.mono_us.saturating_sub(waiting.since_us)),
                matched: waiting.is_some(),
                tunnelling: waiting.is_some_and(|waiting| waiting.tunnelling),
                ..unanswered(&key)
            },
            message: waiting.is_some().then_some(message),
        }
    }

    fn contradicted(
        &self,
        key: &Key,
        message: &Message,
        addresses: &[IpAddr],
    ) -> Vec<(String, IpAddr)> {
        let mut answered = self.answered.iter();
        let Some((_, before)) = answered.find(|(known, _)| known.id == key.id && known == key)
        else {
            return Vec::new();
        };
        let says_otherwise = message.rcode == 0 && !addresses.is_empty();
        before
            .iter()
            .filter(|address| says_otherwise && !addresses.contains(address))
            .map(|address| (key.question.name.clone(), *address))
            .collect()
    }

    /// Takes out a question that was asked at or before `since_us`.
    pub(crate) fn overdue(&mut self, since_us: u64) -> Option<DnsTransaction> {
        let age = self
            .by_age
            .first()
            .filter(|(since, _)| *since <= since_us)?;
        self.remove(age)
    }

    /// When the oldest question was asked.
    pub(crate) fn oldest_us(&self) -> Option<u64> {
        self.by_age.first().map(|(since, _)| since)
    }

    fn remove(&mut self, age: (u64, u64)) -> Option<DnsTransaction> {
        let key = self.by_age.remove(age)?;
        let waiting = self.by_key.remove(&key);
        Some(DnsTransaction {
            tunnelling: waiting.is_some_and(|waiting| waiting.tunnelling),
            ..unanswered(&key)
        })
    }
}

fn unanswered(key: &Key) -> DnsTransaction {
    DnsTransaction {
        name: key.question.name.clone(),
        qtype: type_name(key.question.kind),
        resolver: key.asked.resolver,
        resolver_port: key.asked.resolver_port,
        resolver_accepted: key.asked.accepted,
        answers: Vec::new(),
        rcode: None,
        latency_us: None,
        matched: false,
        tunnelling: false,
        left_out: 0,
        questions: None,
    }
}
