//! A sandbox that is watched, looked at further: an orchestrator configures
//! its VMM step by step after the first interface is there, and starts it
//! last; and interfaces and disks come and go.

use super::capture::Addition;
use super::sandbox::{DiskSlot, SharedDisk, lock};
use crate::watch::judge::Judge;
use crate::watch::law::Law;
use crate::watch::moment::{control, now};
use crate::watch::outlet::{Key, Lane, Outlet};
use crate::watch::settings::Settings;
use crate::watch::start;
use sandtrace_capture::Observer as _;
use sandtrace_capture::network::NetworkCollector;
use sandtrace_event::{Coverage, Layer, SandboxAttached, TapIdentity};
use sandtrace_provider::{Disk, Outline, ProviderKind, Sighting, Target};
use sandtrace_wire::Numbering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Time between two looks while the guest does not run yet: the orchestrator
/// works on it.
const NEW: [(Duration, Duration); 2] = [
    (Duration::from_secs(1), Duration::from_millis(5)),
    (Duration::from_secs(10), Duration::from_millis(50)),
];

/// The same later on, of those that are kept for later use.
const KEPT: Duration = Duration::from_millis(500);

/// And once the guest runs.
const RUNNING: Duration = Duration::from_secs(10);

/// The same of a pod, which gets its containers then.
const POD: Duration = Duration::from_secs(1);

/// An orchestrator may hand over metadata as late as this after the start.
const LATE_METADATA: Duration = Duration::from_secs(1);

/// Longest wait for a VMM's API before it is watched without what that says:
/// what the kernel says of it is enough to begin with.
pub(super) const SOON: Duration = Duration::from_millis(100);

/// Longest wait where it is asked once more, with nothing else waiting.
const LATER: Duration = Duration::from_secs(1);

/// The first pause until a VMM that did not answer is asked once more; it
/// doubles with each. Before its guest runs it is often busy, with a snapshot.
const FIRST_SILENCE: Duration = Duration::from_millis(50);

/// Pause until one is looked at that waits for its turn to be asked.
const TURN: Duration = Duration::from_millis(500);

/// The first pause between two descriptions; it doubles with each, because a
/// VMM can open and close files as often as it likes.
const FIRST_REST: Duration = Duration::from_millis(4);

/// The longest.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// For so long after the loss of an interface another one is looked for, so often.
const RESTLESS: (Duration, Duration) = (Duration::from_secs(10), Duration::from_millis(100));

/// A sandbox that has rested for so long may change quickly again.
const CALM: Duration = Duration::from_secs(60);

/// Most interfaces of one sandbox, over all of its life.
const MOST_INTERFACES: u32 = 64;

/// Most disks of one.
const MOST_DISKS: usize = 64;

/// Interfaces that went while their sandbox was watched.
pub(super) type Lost = Arc<Mutex<Vec<String>>>;

/// What is needed to add to a sandbox.
pub(super) struct Following {
    key: Key,
    sighting: Box<Sighting>,
    /// The target is what was recorded last.
    settings: Settings,
    law: Arc<Law>,
    lane: Lane,
    /// As it looked before it was described last.
    outline: Outline,
    lost: Lost,
    recorded: SandboxAttached,
    later_interfaces: u32,
    /// Of files with its frames, if they are kept.
    evidence_prefix: String,
    /// Its guest ran when it was described last.
    ran: bool,
    since: Instant,
    restless_until: Instant,
    described: Instant,
    descriptions: u32,
    /// When its API is to be asked once more, though nothing changed.
    ask_at: Option<Instant>,
    /// How often it was asked in vain.
    silences: u32,
    /// It is described only because it is to be asked.
    is_asked: bool,
    look_at: Instant,
}

impl Following {
    pub(super) fn new(
        key: Key,
        sighting: Box<Sighting>,
        outline: Outline,
        settings: Settings,
        (law, lane, lost): (Arc<Law>, Lane, Lost),
    ) -> Self {
        let at = Instant::now();
        let mut following = Self {
            key,
            sighting,
            recorded: settings.target.attached(),
            evidence_prefix: settings
                .evidence
                .as_ref()
                .map(|it| it.prefix.clone())
                .unwrap_or_default(),
            settings,
            law,
            lane,
            ran: outline.runs,
            outline,
            lost,
            later_interfaces: 0,
            since: at,
            restless_until: at,
            described: at,
            descriptions: 0,
            ask_at: None,
            silences: 0,
            is_asked: false,
            look_at: at,
        };
        following.expect(at, true);
        following
    }

    pub(super) fn key(&self) -> Key {
        self.key
    }

    pub(super) fn sighting(&self) -> &Sighting {
        &self.sighting
    }

    /// Whether nobody looked at it further yet.
    pub(super) fn is_new(&self) -> bool {
        self.descriptions == 0
    }

    /// Whether its trail is closed.
    pub(super) fn is_over(&self) -> bool {
        self.lane.load.has_failed()
    }

    pub(super) fn look_at(&self) -> Instant {
        self.look_at
    }

    /// Whether an interface was lost that was not looked for yet.
    pub(super) fn has_lost(&self) -> bool {
        !lock(&self.lost).is_empty()
    }

    /// Whether it is described only because it is to be asked.
    pub(super) fn is_asked(&self) -> bool {
        self.is_asked
    }

    /// Longest wait for its API.
    pub(super) fn patience(&self) -> Duration {
        if self.is_asked { LATER } else { SOON }
    }

    /// Whether it is to be described again: it looks different, or its API is to
    /// be asked and may be. Where not, the next look is put off.
    pub(super) fn is_due(&mut self, at: Instant, may_ask: bool) -> bool {
        self.is_asked = false;
        if at.duration_since(self.described) > CALM {
            self.descriptions = 0;
        }
        self.take_off_lost(at);
        // One that is gone says so by its pidfd.
        let Ok(outline) = self.sighting.outline() else {
            self.look_at = at + RUNNING;
            return false;
        };
        let rested = at.duration_since(self.described) >= self.rest();
        let changed = outline != self.outline;
        if changed && rested {
            self.outline = outline;
            return true;
        }
        if self.ask_at.is_some_and(|due| due <= at) {
            self.is_asked = may_ask;
            self.ask_at = (!may_ask).then_some(at + TURN);
        }
        if self.is_asked {
            self.outline = outline;
            return true;
        }
        self.look_at = at + if changed { self.rest() } else { self.pause(at) };
        false
    }

    fn take_off_lost(&mut self, at: Instant) {
        let lost = std::mem::take(&mut *lock(&self.lost));
        if lost.is_empty() {
            return;
        }
        let taps = &mut self.settings.target.taps;
        taps.retain(|tap| !lost.contains(&tap.interface));
        let passed = &mut self.settings.target.passed_before;
        passed.retain(|passed| !lost.contains(&passed.interface));
        self.restless_until = at + RESTLESS.0;
        // Another one of the same name is no other outline.
        self.outline = Outline::default();
    }

    fn rest(&self) -> Duration {
        let rest = FIRST_REST * 2_u32.saturating_pow(self.descriptions.min(16));
        rest.min(LONGEST_REST)
    }

    fn pause(&self, at: Instant) -> Duration {
        let age = at.duration_since(self.since);
        let pause = if at < self.restless_until {
            RESTLESS.1
        } else if self.outline.runs {
            if self.outline.is_pod { POD } else { RUNNING }
        } else {
            let new = NEW.iter().find(|(until, _)| age < *until);
            new.map_or(KEPT, |(_, pause)| *pause)
        };
        let due = self.ask_at.map(|due| due.saturating_duration_since(at));
        due.map_or(pause, |due| due.min(pause))
    }

    /// When its API is to be asked once more: soon where it did not answer, and
    /// after its guest began to run, which metadata may follow.
    fn expect(&mut self, at: Instant, began: bool) {
        let target = &self.settings.target;
        if target.unanswered {
            let pause = FIRST_SILENCE * 2_u32.saturating_pow(self.silences.min(16));
            self.silences = self.silences.saturating_add(1);
            self.ask_at = Some(at + pause.min(LONGEST_REST));
            return;
        }
        let was_silent = std::mem::take(&mut self.silences) > 0;
        if began || was_silent {
            let unnamed = target.agent_id.is_none() && target.template.is_none();
            let has_any = matches!(
                target.provider,
                ProviderKind::Firecracker | ProviderKind::E2b
            );
            let late = self.outline.runs && unnamed && has_any;
            self.ask_at = late.then_some(at + LATE_METADATA);
        }
    }

    /// Takes in a new description: what is to be captured beside what is
    /// already, after the record that says so.
    pub(super) fn take(&mut self, described: Option<Target>) -> Option<Addition> {
        let at = Instant::now();
        self.described = at;
        self.descriptions = self.descriptions.saturating_add(1);
        self.look_at = at;
        let Some(target) = described else {
            // What nobody could tell just now is asked for again.
            self.outline = Outline::default();
            return None;
        };
        let addition = self.merge(target);
        let began = self.outline.runs && !std::mem::replace(&mut self.ran, true);
        self.expect(at, began);
        let attached = self.settings.target.attached();
        if attached != self.recorded {
            let record = control(now(), attached.clone().into());
            let mut judge = self.judge(false);
            judge.observe(record);
            start::report_passed(&addition.networks, true, &mut judge);
            self.recorded = attached;
        }
        Some(addition).filter(|it| !it.networks.is_empty() || !it.disks.is_empty())
    }

    /// What is captured stays so, described or not; what was told once is not
    /// forgotten where nobody tells it now.
    fn merge(&mut self, new: Target) -> Addition {
        let target = &mut self.settings.target;
        target.coverage = new.coverage;
        target.unanswered = new.unanswered;
        target.agent_id = new.agent_id.or_else(|| target.agent_id.take());
        target.template = new.template.or_else(|| target.template.take());
        target.labels.extend(new.labels);
        if !new.taps.is_empty() {
            target.netns_path = new.netns_path;
        }
        let taps = new.taps.into_iter();
        let taps: Vec<_> = taps
            .filter(|tap| !is_known(&mut target.taps, tap))
            .collect();
        let known = |disk: &Disk| {
            let mut known = target.disks.iter();
            known.any(|it| is_same(it, disk))
        };
        let disks: Vec<_> = new.disks.into_iter().filter(|it| !known(it)).collect();
        let is_new = |it: &Disk| target.overlays.iter().all(|known| !is_same(known, it));
        let overlays: Vec<_> = new.overlays.into_iter().filter(is_new).collect();
        let networks = self.attach_each(taps);
        let mut disks = self.slots(disks);
        for overlay in overlays {
            if self.settings.target.overlays.len() == MOST_DISKS {
                self.miss_disk(&overlay);
                continue;
            }
            let source = start::overlay_source(&self.settings, &overlay);
            self.settings.target.overlays.push(overlay);
            disks.push(DiskSlot::new(source, self.judge(true)));
        }
        let layers = start::unknown_layers(&self.settings.target);
        self.settings.target.coverage.extend(layers);
        Addition { networks, disks }
    }

    fn attach_each(&mut self, taps: Vec<TapIdentity>) -> Vec<NetworkCollector> {
        let mut networks = Vec::new();
        for tap in taps {
            if self.later_interfaces == MOST_INTERFACES {
                let name = &tap.interface;
                let why = format!("{MOST_INTERFACES} others came later than the sandbox itself");
                self.miss(
                    Layer::Network,
                    &format!("interface {name:?} is not captured: {why}"),
                );
                continue;
            }
            self.later_interfaces += 1;
            let later = self.later_interfaces;
            if let Some(evidence) = &mut self.settings.evidence {
                evidence.prefix = format!("{}-{later}", self.evidence_prefix);
            }
            let numbering = Numbering::apart(later);
            match start::attach_network(&self.settings, &tap, numbering) {
                Ok(network) => {
                    let passed = &mut self.settings.target.passed_before;
                    passed.extend(network.passed().cloned());
                    networks.push(network);
                    self.settings.target.taps.push(tap);
                }
                Err(failure) => {
                    let (name, why) = (&tap.interface, &failure.error);
                    let missing = format!("interface {name:?} cannot be captured: {why:#}");
                    self.miss(Layer::Network, &missing);
                    self.outline = Outline::default();
                }
            }
        }
        networks
    }

    fn slots(&mut self, disks: Vec<Disk>) -> Vec<SharedDisk> {
        let mut slots = Vec::new();
        for disk in disks {
            if self.settings.target.disks.len() == MOST_DISKS {
                self.miss_disk(&disk);
                continue;
            }
            let source = start::disk_source(&self.settings, &disk);
            slots.push(DiskSlot::new(source, self.judge(true)));
            self.settings.target.disks.push(disk);
        }
        slots
    }

    fn miss_disk(&mut self, disk: &Disk) {
        let path = disk.identity.path.chars().take(256).collect::<String>();
        let missing = format!("disk {path:?} is not read: {MOST_DISKS} others are");
        self.miss(Layer::Filesystem, &missing);
    }

    fn miss(&mut self, layer: Layer, missing: &str) {
        let missing = missing.to_owned();
        let coverage = &mut self.settings.target.coverage;
        coverage.push(Coverage { layer, missing });
    }

    fn judge(&self, patient: bool) -> Judge {
        let lane = self.lane.clone();
        Judge::new(&self.law, Outlet::Shared(Lane { patient, ..lane }))
    }
}

/// All of a sandbox's interfaces are in one namespace, where each has its index
/// as long as it is there. The namespace may lose its name meanwhile, or get one.
fn is_known(known: &mut [TapIdentity], tap: &TapIdentity) -> bool {
    let mut known = known.iter_mut();
    let same = known.find(|known| known.index == tap.index);
    same.map(|known| known.netns.clone_from(&tap.netns))
        .is_some()
}

fn is_same(one: &Disk, other: &Disk) -> bool {
    let name = |disk: &Disk| (disk.identity.device.clone(), disk.identity.inode.0);
    name(one) == name(other)
}
