//! From counts and facts to observations.

use super::confinement::Confinement;
use super::groups::{self, VmmKind};
use super::{
    Counts, Fact, FactKind, Loss, LossKind, RawCall, SyscallSource, Tally, ThreadInfo, comm,
    decode, known, names,
};
use crate::Observer;
use sandtrace_event::{
    CallCount, CallSummary, CallingProcess, CaptureGap, Count, EvidenceTier, GapCause, GapUnit,
    Layer, Observation, Payload, RareCall, SyscallAbi, SyscallActivity, SyscallBackend,
    SyscallFinding, SyscallFindingKind, SyscallSubject, Timestamp, VcpuExits,
};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Kinds of calls in one record.
const CALLS_PER_RECORD: usize = 128;

/// Threads on which guests ran that one record tells of, each for itself.
const VCPUS_PER_RECORD: usize = 128;

/// Different rare calls that one interval reports one by one.
const RARE_PER_INTERVAL: usize = 256;

/// Of each name so many are reported whatever others fill the interval with: who
/// opens many files hides no program that is executed.
const RARE_OF_EACH_NAME: usize = 16;

/// Exit status of Firecracker when a thread met a forbidden call
/// (`FcExitCode::BadSyscall`).
const BAD_SYSCALL: i32 = 148;

/// What is watched.
#[derive(Clone, Debug)]
pub struct SyscallConfig {
    /// The VMM's process.
    pub pid: u32,
    /// Which VMM it is, where that is known.
    pub vmm: Option<VmmKind>,
    /// Paths of the sandbox's disks: opening them is the VMM's work.
    pub disks: Vec<Vec<u8>>,
    /// Name of what is watched in gap records.
    pub name: String,
}

/// Turns what a source sees into observations.
pub struct SyscallCollector {
    config: SyscallConfig,
    source: Box<dyn SyscallSource>,
    confinement: Confinement,
    interval_began: Timestamp,
    /// Rare calls of this interval, and how often each was repeated since its record.
    rare: BTreeMap<RareKey, Repeated>,
    /// How many of them have each name.
    rare_names: HashMap<String, usize>,
    /// Calls that filters met in this interval, by process.
    violations: BTreeMap<(u32, ForbiddenKey), Violation>,
    /// Rare calls beyond the bound.
    unreported: u64,
    ended_so: bool,
}

type ForbiddenKey = Option<(SyscallAbi, u32)>;

/// Who met a filter last, and how often since the record of the first time.
struct Violation {
    fact: Fact,
    times: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct RareKey {
    tid: u32,
    abi: SyscallAbi,
    number: u32,
    arguments: [u64; 6],
    path: Option<Vec<u8>>,
    address: Option<Vec<u8>>,
}

struct Repeated {
    record: SyscallActivity,
    call: RareCall,
    times: u64,
}

impl SyscallCollector {
    /// A collector of what `source` sees from `now` on.
    #[must_use]
    pub fn new(config: SyscallConfig, source: Box<dyn SyscallSource>, now: Timestamp) -> Self {
        Self {
            config,
            source,
            confinement: Confinement::default(),
            interval_began: now,
            rare: BTreeMap::new(),
            rare_names: HashMap::new(),
            violations: BTreeMap::new(),
            unreported: 0,
            ended_so: false,
        }
    }

    /// Reports rare calls, and how the VMM is confined once that is certain. Cheap
    /// where there is nothing to report: to be called often.
    pub fn poll(&mut self, now: Timestamp, observer: &mut impl Observer) {
        self.look_at_confinement(now, observer);
        for fact in self.source.facts() {
            self.fact(&fact, now, observer);
        }
    }

    /// Reports the counts of the interval that ends now.
    pub fn end_interval(&mut self, now: Timestamp, observer: &mut impl Observer) {
        self.poll(now, observer);
        let mut counts = self.source.counts();
        let losses = std::mem::take(&mut counts.losses);
        for record in self.summaries(counts, now.micros_since(self.interval_began)) {
            report(now, record, observer);
        }
        for (key, repeated) in std::mem::take(&mut self.violations) {
            self.repeated_violation(key, &repeated, now, observer);
        }
        self.rare_names.clear();
        for repeated in std::mem::take(&mut self.rare).into_values() {
            if repeated.times > 0 {
                let mut record = repeated.record;
                record.call = Some(RareCall {
                    repeats: Count(repeated.times),
                    ..repeated.call
                });
                report(now, record, observer);
            }
        }
        for loss in losses {
            self.gap(&loss, now, observer);
        }
        let unreported = std::mem::take(&mut self.unreported);
        if unreported > 0 {
            let detail = format!(
                "more than {RARE_PER_INTERVAL} different security-relevant calls in one interval"
            );
            let (cause, unit) = (GapCause::CallBound, GapUnit::Calls);
            self.report_gap(cause, unit, unreported, detail, now, observer);
        }
        self.interval_began = now;
    }

    /// Whether every process of the VMM has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.source.has_ended()
    }

    /// Lets go of the VMM and reports the last interval.
    pub fn finish(mut self, now: Timestamp, observer: &mut impl Observer) {
        self.source.detach();
        self.end_interval(now, observer);
    }

    fn look_at_confinement(&mut self, now: Timestamp, observer: &mut impl Observer) {
        let pid = self.config.pid;
        let found = self.confinement.look(pid, self.config.vmm, now.mono_us);
        for finding in found {
            let name = comm(pid);
            let mut record = self.record(&ThreadInfo { pid, name }, pid);
            record.backend = SyscallBackend::Proc;
            record.finding = Some(finding);
            report(now, record, observer);
        }
    }

    fn fact(&mut self, fact: &Fact, now: Timestamp, observer: &mut impl Observer) {
        let at = moment(fact.at_us, now);
        match &fact.what {
            FactKind::Call(call) => self.call(fact, call, at, observer),
            FactKind::Sigsys(call) => self.violation(fact, *call, at, observer),
            FactKind::Ends(BAD_SYSCALL) => {
                if fact.thread.pid == self.config.pid
                    && !std::mem::replace(&mut self.ended_so, true)
                {
                    let detail = format!(
                        "exit status {BAD_SYSCALL}: Firecracker's word for a forbidden call"
                    );
                    self.finding(fact, SyscallFindingKind::SeccompExit, detail, at, observer);
                }
            }
            FactKind::Ends(_) => {}
        }
    }

    /// A process that catches the signal can make this happen as often as it likes.
    fn violation(
        &mut self,
        fact: &Fact,
        call: ForbiddenKey,
        at: Timestamp,
        observer: &mut impl Observer,
    ) {
        let key = (fact.thread.pid, call);
        if let Some(violation) = self.violations.get_mut(&key) {
            violation.times = violation.times.saturating_add(1);
            violation.fact.clone_from(fact);
            return;
        }
        if self.violations.len() >= RARE_PER_INTERVAL {
            self.unreported = self.unreported.saturating_add(1);
            return;
        }
        let first = Violation {
            fact: fact.clone(),
            times: 0,
        };
        self.violations.insert(key, first);
        let detail = format!("a seccomp filter met {}: SIGSYS", called(call));
        let kind = SyscallFindingKind::SeccompViolation;
        self.finding(fact, kind, detail, at, observer);
    }

    fn repeated_violation(
        &self,
        (_, call): (u32, ForbiddenKey),
        violation: &Violation,
        now: Timestamp,
        observer: &mut impl Observer,
    ) {
        if violation.times == 0 {
            return;
        }
        let (call, times) = (called(call), violation.times);
        let detail = format!("a seccomp filter met {call}: SIGSYS, {times} times more");
        let kind = SyscallFindingKind::SeccompViolation;
        self.finding(&violation.fact, kind, detail, now, observer);
    }

    fn finding(
        &self,
        fact: &Fact,
        kind: SyscallFindingKind,
        detail: String,
        at: Timestamp,
        observer: &mut impl Observer,
    ) {
        let mut record = self.record(&fact.thread, fact.tid);
        record.finding = Some(SyscallFinding {
            detail,
            kind,
            tid: Some(fact.tid),
        });
        report(at, record, observer);
    }

    fn call(&mut self, fact: &Fact, call: &RawCall, at: Timestamp, observer: &mut impl Observer) {
        if known::opens_known(call, &self.config.disks) {
            return;
        }
        let Some(decoded) = decode::decode(fact.tid, call) else {
            return;
        };
        let key = RareKey {
            tid: fact.tid,
            abi: call.abi,
            number: call.number,
            arguments: call.arguments,
            path: call.path.clone().flatten().map(|path| path.bytes),
            address: call.address.clone().flatten().map(|address| address.bytes),
        };
        if let Some(repeated) = self.rare.get_mut(&key) {
            repeated.times = repeated.times.saturating_add(1);
            return;
        }
        let of_name = self.rare_names.entry(decoded.name.clone()).or_default();
        if self.rare.len() >= RARE_PER_INTERVAL && *of_name >= RARE_OF_EACH_NAME {
            self.unreported = self.unreported.saturating_add(1);
            return;
        }
        *of_name += 1;
        let mut record = self.record(&fact.thread, fact.tid);
        record.call = Some(decoded.clone());
        report(at, record.clone(), observer);
        let repeated = Repeated {
            record,
            call: decoded,
            times: 0,
        };
        self.rare.insert(key, repeated);
    }

    /// A record of this thread's group that says nothing yet.
    fn record(&self, thread: &ThreadInfo, tid: u32) -> SyscallActivity {
        let child = thread.pid != self.config.pid;
        let group = if child {
            "child"
        } else {
            groups::group(self.config.vmm, &thread.name, tid == thread.pid)
        };
        SyscallActivity {
            backend: self.source.backend(),
            call: None,
            finding: None,
            group: group.to_owned(),
            process: CallingProcess {
                name: String::from_utf8_lossy(&thread.name).into_owned(),
                pid: thread.pid,
                started_by_vmm: child,
            },
            subject: SyscallSubject::Vmm,
            summary: None,
            vmm: self.config.vmm.map(|vmm| vmm.as_str().to_owned()),
        }
    }

    /// One record (or more, where there are many kinds of calls) per process and group.
    fn summaries(&self, counts: Counts, interval_us: u64) -> Vec<SyscallActivity> {
        let mut groups = Groups::new();
        for (key, thread, tally) in counts.calls {
            let group = self.group(&mut groups, &thread, key.tid);
            let call = group.calls.entry((key.abi, key.number)).or_default();
            call.merge(tally);
        }
        for (tid, thread, exits) in counts.kvm_exits {
            let group = self.group(&mut groups, &thread, tid);
            let vcpu = group.vcpus.entry(tid).or_insert_with(|| VcpuExits {
                exits: Count(0),
                name: String::from_utf8_lossy(&thread.name).into_owned(),
                tid,
            });
            vcpu.exits.0 = vcpu.exits.0.saturating_add(exits);
        }
        let records = groups.into_values();
        records
            .flat_map(|group| group.records(interval_us))
            .collect()
    }

    fn group<'a>(&self, groups: &'a mut Groups, thread: &ThreadInfo, tid: u32) -> &'a mut Group {
        let record = self.record(thread, tid);
        let group = groups
            .entry((thread.pid, record.group.clone()))
            .or_insert_with(|| Group::of(record));
        group.threads.insert(tid);
        group
    }

    fn gap(&self, loss: &Loss, now: Timestamp, observer: &mut impl Observer) {
        let (cause, unit) = match loss.kind {
            LossKind::Counts => (GapCause::TableFull, GapUnit::Calls),
            LossKind::Threads => (GapCause::TableFull, GapUnit::Threads),
            LossKind::Facts => (GapCause::RingDrop, GapUnit::Calls),
            LossKind::Tracing => (GapCause::TraceLost, GapUnit::Threads),
        };
        self.report_gap(cause, unit, loss.count, loss.detail.clone(), now, observer);
    }

    fn report_gap(
        &self,
        cause: GapCause,
        unit: GapUnit,
        count: u64,
        detail: String,
        now: Timestamp,
        observer: &mut impl Observer,
    ) {
        let gap = CaptureGap {
            cause,
            count: Count(count),
            detail,
            first_at: self.interval_began.wall,
            last_at: now.wall,
            layer: Layer::Syscall,
            source: self.config.name.clone(),
            unit,
        };
        observer.observe(Observation {
            at: now,
            payload: gap.into(),
            tier: EvidenceTier::Kernel,
        });
    }
}

/// By process and name of the group.
type Groups = BTreeMap<(u32, String), Group>;

struct Group {
    record: SyscallActivity,
    threads: BTreeSet<u32>,
    vcpus: BTreeMap<u32, VcpuExits>,
    calls: HashMap<(SyscallAbi, u32), Tally>,
}

impl Group {
    fn of(record: SyscallActivity) -> Self {
        Self {
            record,
            threads: BTreeSet::new(),
            vcpus: BTreeMap::new(),
            calls: HashMap::new(),
        }
    }

    fn records(self, interval_us: u64) -> Vec<SyscallActivity> {
        let calls = self
            .calls
            .into_iter()
            .map(|((abi, number), tally)| CallCount {
                abi,
                count: Count(tally.count),
                errors: Count(tally.errors),
                interrupted: Count(tally.interrupted),
                name: names::name(abi, number),
                time_ns: Count(tally.time_ns),
            });
        let mut calls: Vec<_> = calls.collect();
        calls.sort_by(|a, b| (&a.name, a.abi).cmp(&(&b.name, b.abi)));
        let threads = u64::try_from(self.threads.len()).unwrap_or(u64::MAX);
        // One thread that makes no calls at all may still run a guest.
        let chunks = calls.chunks(CALLS_PER_RECORD);
        let none = calls.is_empty().then_some(&[][..]);
        let chunks = chunks.chain(none);
        let records = chunks.map(|calls| SyscallActivity {
            summary: Some(CallSummary {
                calls: calls.to_vec(),
                interval_us: Count(interval_us),
                kvm_exits: Count(0),
                threads: Count(threads),
                vcpu_exits: Vec::new(),
            }),
            ..self.record.clone()
        });
        let mut records: Vec<_> = records.collect();
        let first = records.first_mut().and_then(|it| it.summary.as_mut());
        if let Some(first) = first {
            let exits = self.vcpus.values().map(|vcpu| vcpu.exits.0);
            first.kvm_exits = Count(exits.fold(0, u64::saturating_add));
            first.vcpu_exits = busiest(self.vcpus);
        }
        records
    }
}

/// Those on which KVM left the guest most often, as many as one record has.
fn busiest(vcpus: BTreeMap<u32, VcpuExits>) -> Vec<VcpuExits> {
    let mut vcpus: Vec<_> = vcpus.into_values().collect();
    vcpus.sort_by_key(|vcpu| Reverse(vcpu.exits));
    vcpus.truncate(VCPUS_PER_RECORD);
    vcpus.sort_by_key(|vcpu| vcpu.tid);
    vcpus
}

fn called(call: ForbiddenKey) -> String {
    let Some((abi, number)) = call else {
        return "a call".to_owned();
    };
    let name = names::name(abi, number);
    match abi {
        SyscallAbi::Native => name,
        SyscallAbi::I386 => format!("{name} (32-bit)"),
        SyscallAbi::X32 => format!("{name} (x32)"),
    }
}

fn report(at: Timestamp, record: SyscallActivity, observer: &mut impl Observer) {
    observer.observe(Observation {
        at,
        payload: Payload::from(record),
        tier: EvidenceTier::Kernel,
    });
}

/// A moment of the boot clock, on both clocks.
fn moment(at_us: u64, now: Timestamp) -> Timestamp {
    let ago_us = now.mono_us.saturating_sub(at_us);
    let wall = now.wall.0.saturating_sub(ago_us.saturating_mul(1000));
    Timestamp {
        mono_us: at_us.min(now.mono_us),
        wall: sandtrace_event::WallTime(wall),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_very_many_vcpus_the_busiest_are_told_one_by_one() {
        let vcpu = |tid: u32| VcpuExits {
            exits: Count(u64::from(tid % 1000)),
            name: format!("CPU {tid}/KVM"),
            tid,
        };
        let few: Vec<_> = busiest([1000, 1].map(|tid| (tid, vcpu(tid))).into());
        assert_eq!(few, [vcpu(1), vcpu(1000)]);
        let many = busiest((1..=300).map(|tid| (tid, vcpu(tid))).collect());
        assert!(many.into_iter().eq((173..=300).map(vcpu)));
    }
}
