//! A thread that reads the packets of many sandboxes.

use super::hub::Hub;
use super::sandbox::{Sandbox, SharedDisk, Stop};
use crate::watch::judge::Judge;
use crate::watch::outlet::Key;
use crate::watch::reload::Reloaded;
use rustix::event::{Timespec, epoll};
use sandtrace_capture::network::{Attached, NetworkCollector, NetworkHubReader};
use sandtrace_sys::clock;
use sandtrace_sys::priority::prefer_this_thread;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, PipeReader, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

/// Events taken at once.
const EVENTS: usize = 256;

/// Pause of a sandbox of which too much waits already.
const REST_US: u64 = 5_000;

/// Time between two looks at a sandbox where nothing else is due.
const LOOK_US: u64 = 5_000_000;

/// Least time between two looks at one.
const LEAST_US: u64 = 1_000;

/// After the end of an interface, its VMM's end shows within this time if it
/// was that.
const EXIT_US: u64 = 50_000;

/// What a capture thread is told.
pub(super) enum Order {
    Watch(Box<Sandbox>),
    /// It has more than it had.
    Extend(Key, Addition),
    /// Its trail failed: forget it.
    Drop(Key),
    /// Settings were read again; which edition they are.
    Judge(u64, Arc<Reloaded>),
    /// Let go of all and end.
    StopAll(Stop),
}

/// What came to a sandbox later.
#[derive(Default)]
pub(super) struct Addition {
    pub(super) networks: Vec<NetworkCollector>,
    pub(super) disks: Vec<SharedDisk>,
}

/// What is to be finished.
pub(super) enum Finish {
    Sandbox(Box<Sandbox>, Stop),
    /// Its trail failed.
    Abandoned(Box<Sandbox>),
    /// An interface that its sandbox lost; the end of the last tells that it is done.
    Interface(Box<NetworkCollector>, Judge, Sender<()>),
}

impl Finish {
    pub(super) fn run(self) {
        match self {
            Self::Sandbox(sandbox, stop) => sandbox.finish(stop),
            Self::Abandoned(sandbox) => sandbox.abandon(),
            Self::Interface(network, mut judge, _done) => {
                // There is nothing left that its flows could be compared with.
                let _gone = network.finish(&mut judge);
            }
        }
    }
}

pub(super) struct Capture {
    poll: OwnedFd,
    orders: Receiver<Order>,
    /// Readable when there are orders.
    bell: PipeReader,
    finish: Sender<Finish>,
    /// What was read last, for sandboxes that were attached meanwhile.
    reloaded: Option<(u64, Arc<Reloaded>)>,
    sandboxes: BTreeMap<Key, Box<Sandbox>>,
    /// When each sandbox is to be looked at next.
    due: BTreeSet<(u64, Key)>,
    when: BTreeMap<Key, u64>,
    /// What counts the frames of all, where eBPF does that.
    hub: Option<Hub>,
}

/// The key of the bell.
const BELL: u64 = u64::MAX;

/// With a sandbox's key: its VMM's pidfd, and not one of its rings.
const VMM: u64 = 1 << 62;

/// The key of the hub's ring.
const HUB: u64 = u64::MAX - 1;

impl Capture {
    pub(super) fn new(
        orders: Receiver<Order>,
        bell: PipeReader,
        hub: Option<NetworkHubReader>,
        finish: Sender<Finish>,
    ) -> io::Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let data = epoll::EventData::new_u64(BELL);
        epoll::add(&poll, &bell, data, epoll::EventFlags::IN)?;
        if let Some(hub) = &hub {
            let data = epoll::EventData::new_u64(HUB);
            epoll::add(&poll, hub, data, epoll::EventFlags::IN)?;
        }
        Ok(Self {
            poll,
            orders,
            bell,
            finish,
            reloaded: None,
            sandboxes: BTreeMap::new(),
            due: BTreeSet::new(),
            when: BTreeMap::new(),
            hub: hub.map(Hub::new),
        })
    }

    /// Runs until it is told to stop.
    pub(super) fn run(mut self) -> io::Result<()> {
        // Without the right to it packets are read all the same.
        let _not_permitted = prefer_this_thread();
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            events.clear();
            let timeout = self.timeout();
            let buffer = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.poll, buffer, Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                // The event's members are not aligned.
                let (data, flags) = (event.data, event.flags);
                match data.u64() {
                    BELL if self.obey() => return Ok(()),
                    BELL => {}
                    HUB => self.hear(),
                    key if key & VMM != 0 => self.look_at_vmm(key & !VMM),
                    key => self.wake(key, flags),
                }
            }
            if self.hub.as_ref().is_some_and(Hub::is_due) {
                self.hear();
            }
            self.look_at_those_due();
        }
    }

    /// Hears what the hub has for any sandbox.
    fn hear(&mut self) {
        let Some(hub) = &mut self.hub else {
            return;
        };
        for key in hub.hear(&mut self.sandboxes) {
            self.expect(key);
        }
    }

    fn timeout(&self) -> Timespec {
        let hub = self.hub.as_ref().map(Hub::due_us);
        let next = self.due.first().map(|(due, _)| *due);
        let next = next.into_iter().chain(hub).min().unwrap_or(u64::MAX);
        let left = next.saturating_sub(clock::boot_us()).min(1_000_000);
        Timespec::try_from(Duration::from_micros(left)).unwrap_or_default()
    }

    /// Whether this was the last order.
    fn obey(&mut self) -> bool {
        // One byte per order; some may be read ahead of theirs, which is no harm.
        let _read = self.bell.read(&mut [0; 64]);
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Watch(sandbox) => self.add(sandbox),
                Order::Extend(key, addition) => self.extend(key, addition),
                Order::Drop(key) => self.abandon(key),
                Order::Judge(number, reloaded) => {
                    for sandbox in self.sandboxes.values_mut() {
                        sandbox.judge_by(number, &reloaded);
                    }
                    self.reloaded = Some((number, reloaded));
                }
                Order::StopAll(stop) => {
                    let keys: Vec<_> = self.sandboxes.keys().copied().collect();
                    for key in keys {
                        self.let_go(key, stop);
                    }
                    return true;
                }
            }
        }
        false
    }

    fn add(&mut self, mut sandbox: Box<Sandbox>) {
        if let Some((number, reloaded)) = &self.reloaded {
            sandbox.judge_by(*number, reloaded);
        }
        let key = sandbox.key;
        let watched = self.listen_to(key | VMM, sandbox.vmm.as_fd());
        let networks = std::mem::take(&mut sandbox.network);
        self.sandboxes.insert(key, sandbox);
        self.set_due(key, 0);
        if watched.is_err() {
            // The limit on epoll is met: its end would not be seen.
            return self.let_go(key, Stop::InterfaceGone);
        }
        self.add_networks(key, networks);
    }

    fn listen_to(&self, key: Key, fd: BorrowedFd<'_>) -> rustix::io::Result<()> {
        let data = epoll::EventData::new_u64(key);
        epoll::add(&self.poll, fd, data, epoll::EventFlags::IN)
    }

    /// One that was let go meanwhile gets nothing more.
    fn extend(&mut self, key: Key, addition: Addition) {
        let Some(sandbox) = self.sandboxes.get_mut(&key) else {
            return;
        };
        sandbox.disks.extend(addition.disks);
        self.add_networks(key, addition.networks);
        self.set_due(key, 0);
    }

    fn add_networks(&mut self, key: Key, networks: Vec<NetworkCollector>) {
        for network in networks {
            let mut descriptors = network.descriptors();
            let heard = descriptors.try_for_each(|fd| self.listen_to(key, fd));
            drop(descriptors);
            let Some(sandbox) = self.sandboxes.get_mut(&key) else {
                return;
            };
            match heard {
                Ok(()) => {
                    let number = network.number();
                    sandbox.network.push(network);
                    if let (Some(hub), Some(number)) = (&mut self.hub, number) {
                        hub.add(number, key, sandbox);
                    }
                }
                // As good as gone, and told so.
                Err(_) => sandbox.give_up(network, &self.finish),
            }
        }
    }

    fn set_due(&mut self, key: Key, at: u64) {
        if let Some(before) = self.when.insert(key, at) {
            self.due.remove(&(before, key));
        }
        self.due.insert((at, key));
    }

    /// Takes it off; its descriptors leave the poll set.
    fn remove(&mut self, key: Key) -> Option<Box<Sandbox>> {
        let sandbox = self.sandboxes.remove(&key)?;
        if let Some(hub) = &mut self.hub {
            hub.forget(key);
        }
        if let Some(before) = self.when.remove(&key) {
            self.due.remove(&(before, key));
        }
        let networks = sandbox.network.iter();
        let descriptors = networks.flat_map(NetworkCollector::descriptors);
        for fd in descriptors.chain([sandbox.vmm.as_fd()]) {
            // It leaves by itself where it is closed.
            let _gone = epoll::delete(&self.poll, fd);
        }
        Some(sandbox)
    }

    fn let_go(&mut self, key: Key, stop: Stop) {
        if let Some(sandbox) = self.sandboxes.get_mut(&key) {
            // Its interface may be the next one's before this is finished, and
            // what a hub has of it is told here alone.
            for network in &mut sandbox.network {
                if stop == Stop::VmmExited || network.number().is_some() {
                    network.stop();
                }
            }
            self.hear_out(key, |sandbox| &mut sandbox.network);
        }
        if let Some(sandbox) = self.remove(key) {
            // The finishers live longer than this thread.
            let _gone = self.finish.send(Finish::Sandbox(sandbox, stop));
        }
    }

    /// Takes in all that the hub has of interfaces that were stopped.
    fn hear_out(&mut self, key: Key, which: fn(&mut Sandbox) -> &mut Vec<NetworkCollector>) {
        let Some(hub) = &mut self.hub else {
            return;
        };
        for other in hub.empty(&mut self.sandboxes) {
            self.expect(other);
        }
        let Some(sandbox) = self.sandboxes.get_mut(&key) else {
            return;
        };
        let mut networks = std::mem::take(which(sandbox));
        for network in &mut networks {
            network.take_last_counts(&mut sandbox.judge);
        }
        *which(sandbox) = networks;
    }

    fn abandon(&mut self, key: Key) {
        if let Some(mut sandbox) = self.remove(key) {
            // Nobody would know whose a hub's frames are.
            let networks = sandbox.network.iter_mut();
            networks
                .filter(|it| it.number().is_some())
                .for_each(NetworkCollector::stop);
            // The finishers live longer than this thread.
            let _gone = self.finish.send(Finish::Abandoned(sandbox));
        }
    }

    fn look_at_vmm(&mut self, key: Key) {
        let sandbox = self.sandboxes.get(&key);
        if sandbox.is_some_and(|sandbox| sandbox.vmm.has_ended().unwrap_or(false)) {
            self.let_go(key, Stop::VmmExited);
        }
    }

    /// Frames, or an error of an interface.
    fn wake(&mut self, key: Key, flags: epoll::EventFlags) {
        if flags.contains(epoll::EventFlags::ERR) {
            let gone =
                |network: &mut NetworkCollector| network.look_at_interface() == Attached::Gone;
            self.take_off(key, gone);
        }
        let Some(sandbox) = self.sandboxes.get_mut(&key) else {
            return;
        };
        if sandbox.load.is_full() {
            return self.rest(key);
        }
        for network in &mut sandbox.network {
            network.read(&mut sandbox.judge);
        }
        self.expect(key);
    }

    /// Frames came: what they made due may be due before everything else.
    fn expect(&mut self, key: Key) {
        let Some(sandbox) = self.sandboxes.get_mut(&key) else {
            return;
        };
        let now = clock::boot_us();
        let networks = sandbox.network.iter_mut();
        let Some(next) = networks.map(|network| network.due_us(now)).min() else {
            return;
        };
        let next = next.max(now + LEAST_US);
        if self.when.get(&key).is_none_or(|before| *before > next) {
            self.set_due(key, next);
        }
    }

    /// Leaves its frames in its ring for a while: the kernel counts what that
    /// does not hold.
    fn rest(&mut self, key: Key) {
        self.listen(key, epoll::EventFlags::empty());
        self.set_due(key, clock::boot_us() + REST_US);
    }

    fn listen(&self, key: Key, flags: epoll::EventFlags) {
        let Some(sandbox) = self.sandboxes.get(&key) else {
            return;
        };
        let networks = sandbox.network.iter();
        for fd in networks.flat_map(NetworkCollector::descriptors) {
            let data = epoll::EventData::new_u64(key);
            // It was added with the sandbox.
            let _unchanged = epoll::modify(&self.poll, fd, data, flags);
        }
    }

    /// Takes interfaces off that are gone: usually because the VMM is, which
    /// shows at once or a moment later.
    fn take_off(&mut self, key: Key, gone: impl FnMut(&mut NetworkCollector) -> bool) {
        let Some(sandbox) = self.sandboxes.get_mut(&key) else {
            return;
        };
        let gone: Vec<_> = sandbox.network.extract_if(.., gone).collect();
        if gone.is_empty() {
            return;
        }
        for fd in gone.iter().flat_map(NetworkCollector::descriptors) {
            // It leaves by itself where it is closed.
            let _left = epoll::delete(&self.poll, fd);
        }
        for mut network in gone {
            if network.number().is_some() {
                network.stop();
            }
            sandbox.gone.push(network);
        }
        sandbox.gone_until_us = clock::boot_us() + EXIT_US;
        self.hear_out(key, |sandbox| &mut sandbox.gone);
        self.set_due(key, clock::boot_us() + EXIT_US);
    }

    fn look_at_those_due(&mut self) {
        let now = clock::boot_us();
        while let Some(&(due, key)) = self.due.first() {
            if due > now {
                return;
            }
            self.tick(key, now);
        }
    }

    fn tick(&mut self, key: Key, now: u64) {
        let Some(sandbox) = self.sandboxes.get_mut(&key) else {
            self.when.remove(&key);
            self.due.retain(|(_, other)| *other != key);
            return;
        };
        if sandbox.vmm.has_ended().unwrap_or(false) {
            return self.let_go(key, Stop::VmmExited);
        }
        let mut next = now + LOOK_US;
        let mut lost = Vec::new();
        for network in &mut sandbox.network {
            let (due, attached) = network.tick(&mut sandbox.judge);
            next = next.min(due);
            if attached == Attached::Gone {
                lost.push(network.interface().to_owned());
            }
        }
        if !sandbox.gone.is_empty() {
            if sandbox.gone_until_us <= now {
                sandbox.lose(&self.finish);
            } else {
                next = next.min(sandbox.gone_until_us);
            }
        }
        let is_full = sandbox.load.is_full();
        if !lost.is_empty() {
            return self.take_off(key, |network| {
                lost.contains(&network.interface().to_owned())
            });
        }
        if is_full {
            return self.set_due(key, now + REST_US);
        }
        self.listen(key, epoll::EventFlags::IN);
        self.set_due(key, next.max(now + LEAST_US));
    }
}
