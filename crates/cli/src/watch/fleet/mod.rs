//! `sandtrace watch --all`: every sandbox of the host, with as many threads
//! for a thousand of them as for one.

mod arrivals;
mod calls;
mod capture;
mod containers;
mod earlier;
mod early;
mod following;
mod hub;
mod joining;
mod known;
mod limits;
mod sandbox;
mod scans;
mod senses;
mod states;
mod told;
mod trails;
mod wakes;

use super::capture_mode::CaptureMode;
use super::evidence::Keeping;
use super::outlet::{Key, Parcel};
use super::reload::Rules;
use super::settings::{Signing, micros};
use super::start;
use super::syscalls::Programs;
use crate::args::WatchArgs;
use crate::config::Options;
use crate::exit::{Exit, Failure, OrExit as _};
use crate::show;
use anyhow::Context as _;
use arrivals::Arrivals;
use calls::Calls;
use capture::{Capture, Finish, Order};
use earlier::Earlier;
use joining::Roll;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sandbox::{RING, Stop, lock};
use sandtrace_capture::network::{NetworkHub, NetworkHubReader};
use sandtrace_output::{Fanout, WhenBusy};
use sandtrace_provider::{DiscoverConfig, ProviderKind};
use sandtrace_sys::proc_events::ProcEvents;
use sandtrace_wire::FlowConfig;
use scans::Scans;
use states::States;
use std::io::{PipeReader, PipeWriter, Read as _, Write as _, pipe};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Threads that read packets.
const CAPTURING: usize = 2;
/// Threads that attach sandboxes, each for as long as an API takes to answer
/// and for the kernel to make a ring where it gets one (it waits for all processors).
const ATTACHING: usize = 16;
/// Threads that scan disks.
const SCANNING: usize = 2;
/// Threads that let go of sandboxes. Each waits nearly all of its time: for the
/// ring's last block (41 ms), and for all processors when that is unmapped.
const FINISHING: usize = 32;
/// Threads that write trails. They wait for the disk, which commits for many
/// in about the time that it takes for one.
const WRITING: usize = 8;

/// What every attached sandbox is given.
struct Shared {
    /// What may be read again while this runs.
    edition: RwLock<Arc<Edition>>,
    signing: Signing,
    earlier: Earlier,
    /// Where frames are kept, if they are.
    evidence: Option<Keeping>,
    sinks: Arc<Mutex<Fanout>>,
    /// What counts the VMMs' system calls in the kernel.
    programs: Programs,
    syscall_interval: Duration,
    /// Who lost an interface since this was last looked at.
    losers: Losers,
    /// Each writes the trails of its share of the keys.
    trails: Vec<Sender<Parcel>>,
    /// Each counts the frames of its share of the keys, where eBPF does that.
    hubs: Vec<NetworkHub>,
}

/// Sandboxes that lost an interface.
type Losers = Arc<Mutex<Vec<Key>>>;

/// Settings and policy, and after how many others they came into force.
struct Edition {
    number: u64,
    rules: Rules,
}

impl Shared {
    fn edition(&self) -> Arc<Edition> {
        let edition = self.edition.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&edition)
    }

    fn replace(&self, edition: Edition) {
        let mut place = self.edition.write().unwrap_or_else(PoisonError::into_inner);
        *place = Arc::new(edition);
    }
}

impl Shared {
    /// The way to the thread that writes this sandbox's trail.
    fn trails_of(&self, key: Key) -> Option<&Sender<Parcel>> {
        share_of(&self.trails, key)
    }

    /// The programs that count this sandbox's frames, where any do.
    fn hub_of(&self, key: Key) -> Option<NetworkHub> {
        share_of(&self.hubs, key).cloned()
    }
}

/// The one whose turn a key is.
fn share_of<T>(all: &[T], key: Key) -> Option<&T> {
    let count = Key::try_from(all.len()).unwrap_or(1).max(1);
    all.get(usize::try_from(key % count).ok()?)
}

impl Edition {
    fn options(&self) -> &Options {
        &self.rules.options
    }

    fn discover(&self) -> &DiscoverConfig {
        &self.rules.options.discover
    }
}

/// A capture thread's ear.
struct Ear {
    orders: Sender<Order>,
    bell: Mutex<PipeWriter>,
}

/// Watches until somebody interrupts or the time is over.
pub(super) fn run(
    rules: &Rules,
    args: &WatchArgs,
    signing: Signing,
    signals: [&PipeReader; 2],
) -> Result<Exit, Failure> {
    let options = &rules.options;
    let trail_dir = &options.trail_dir;
    std::fs::create_dir_all(trail_dir)
        .with_context(|| format!("create the directory of the trails {}", trail_dir.display()))
        .or_exit(Exit::CannotCreate)?;
    let (trails, parcels) = (0..WRITING).map(|_| channel()).unzip();
    let sinks = show::outputs(&options.show, WhenBusy::DROP)?;
    let edition = Edition {
        number: 0,
        rules: rules.clone(),
    };
    let (hubs, readers) = hubs(options)?.into_iter().unzip();
    let shared = Shared {
        edition: RwLock::new(Arc::new(edition)),
        signing,
        earlier: Earlier::list(trail_dir),
        evidence: options.evidence.as_ref().map(Keeping::make).transpose()?,
        sinks: Arc::new(Mutex::new(sinks)),
        programs: Programs::load(options.syscalls, options.max_sandboxes)?,
        syscall_interval: options.syscall_interval,
        losers: Losers::default(),
        trails,
        hubs,
    };
    let events = ProcEvents::open();
    announce(rules, events.as_ref().err());
    limits::raise(options.max_sandboxes);
    let deadline = args.duration.map(|duration| Instant::now() + duration);
    let fleet = Fleet::start(shared, parcels, readers, events.ok())?;
    let stop = fleet.wait(signals, deadline);
    fleet.stop(stop);
    Ok(Exit::Success)
}

fn announce(rules: &Rules, without_events: Option<&std::io::Error>) {
    let dir = rules.options.trail_dir.display();
    show::tell(&format!(
        "watching every sandbox of this host, trails in {dir}; Ctrl-C ends"
    ));
    if let Some(why) = without_events {
        show::tell(&format!(
            "  no process events ({why}): sandboxes are noticed by inotify and by looking, within a second"
        ));
    }
    if rules.policy.is_none() {
        show::tell("  no policy given: events are recorded, not judged");
    }
}

/// What threads share.
struct State {
    shared: Shared,
    roll: Mutex<Roll>,
    arrivals: Arrivals,
    scans: Scans,
    states: States,
    calls: Calls,
    ears: Vec<Ear>,
}

/// All threads of a watch, in the order in which they are ended.
struct Fleet {
    state: Arc<State>,
    outcomes: Receiver<trails::Outcome>,
    looking: Vec<JoinHandle<()>>,
    attaching: Vec<JoinHandle<()>>,
    capturing: Vec<JoinHandle<()>>,
    finishing: Vec<JoinHandle<()>>,
    scanning: Vec<JoinHandle<()>>,
    asking: JoinHandle<()>,
    reporting: JoinHandle<()>,
    writing: Vec<JoinHandle<()>>,
}

impl Fleet {
    fn start(
        shared: Shared,
        parcels: Vec<Receiver<Parcel>>,
        readers: Vec<NetworkHubReader>,
        events: Option<ProcEvents>,
    ) -> Result<Self, Failure> {
        let (outcome, outcomes) = channel();
        let writing = parcels.into_iter().map(|parcels| {
            let outcome = outcome.clone();
            spawn("trails", move || trails::run(&parcels, outcome))
        });
        let writing = writing.collect::<Result<_, _>>()?;
        let (finish, finishes) = channel::<Finish>();
        let finishes = Arc::new(Mutex::new(finishes));
        let finishing = many("finish", FINISHING, || {
            let finishes = Arc::clone(&finishes);
            move || {
                while let Some(finish) = next(&finishes) {
                    finish.run();
                }
            }
        })?;
        let mut ears = Vec::new();
        let mut capturing = Vec::new();
        let mut readers = readers.into_iter();
        for _ in 0..CAPTURING {
            let (ear, capture) = capture_thread(finish.clone(), readers.next())?;
            ears.push(ear);
            capturing.push(spawn("capture", capture)?);
        }
        let state = Arc::new(State {
            roll: Mutex::default(),
            arrivals: Arrivals::default(),
            states: States::new(shared.edition().options().state_interval),
            scans: Scans::new(shared.edition().options().scan_interval).or_exit(Exit::Internal)?,
            calls: Calls::new(shared.syscall_interval),
            ears,
            shared,
        });
        let mut scanning = many("scan", SCANNING, || {
            let state = Arc::clone(&state);
            move || state.scans.run()
        })?;
        let listen = Arc::clone(&state);
        scanning.push(spawn("wakes", move || {
            if let Err(error) = listen.scans.listen() {
                show::tell(&format!("sandtrace: wait for writes to disks: {error}"));
            }
        })?);
        let report = Arc::clone(&state);
        let reporting = spawn("calls", move || report.calls.run())?;
        let ask = Arc::clone(&state);
        let asking = spawn("states", move || ask.states.run())?;
        let (job, jobs) = channel();
        let jobs = Arc::new(Mutex::new(jobs));
        let (seen, found) = channel();
        let attaching = many("attach", ATTACHING, || {
            let (state, jobs) = (Arc::clone(&state), Arc::clone(&jobs));
            let news = seen.clone();
            move || {
                while let Some(job) = next(&jobs) {
                    state.join(job, &news);
                }
            }
        })?;
        let (vmms, containers) = (Arc::clone(&state), Arc::clone(&state));
        let seen_too = seen.clone();
        let watch = Arc::clone(&state);
        let hear = Arc::clone(&state);
        let heard = job.clone();
        let looking = vec![
            spawn("containers", move || containers::follow(&hear, &heard))?,
            spawn("vmms", move || {
                vmms.arrivals.look_for_vmms(&vmms.shared, &seen);
            })?,
            spawn("docker", move || {
                let shared = &containers.shared;
                containers.arrivals.look_for_containers(shared, &seen_too);
            })?,
            spawn("arrivals", move || {
                watch.arrivals.watch(&watch, events, &found, &job);
            })?,
        ];
        Ok(Self {
            state,
            outcomes,
            looking,
            attaching,
            capturing,
            finishing,
            scanning,
            asking,
            reporting,
            writing,
        })
    }

    /// Until a signal or the end of the time.
    fn wait(&self, signals: [&PipeReader; 2], deadline: Option<Instant>) -> Stop {
        let look = Timespec {
            tv_sec: 0,
            tv_nsec: 50_000_000,
        };
        loop {
            for outcome in self.outcomes.try_iter() {
                self.state.note(outcome);
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Stop::Duration;
            }
            let [interrupted, mut hangups] = signals;
            let mut fds = [interrupted, hangups].map(|fd| PollFd::new(fd, PollFlags::IN));
            // Interrupted or not, what is not ready says so.
            let _woken = poll(&mut fds, Some(&look));
            let [interrupted, hung_up] = fds.map(|fd| !fd.revents().is_empty());
            if interrupted {
                return Stop::Interrupted;
            }
            if hung_up {
                // Several that came at once are one order.
                let _read = hangups.read(&mut [0; 64]);
                self.state.reload();
            }
        }
    }

    /// Each kind of thread ends once nothing can come to it any more.
    fn stop(self, stop: Stop) {
        let state = self.state;
        state.arrivals.stop();
        join(self.looking);
        join(self.attaching);
        for ear in &state.ears {
            ear.tell(Order::StopAll(stop));
        }
        join(self.capturing);
        join(self.finishing);
        state.scans.stop();
        join(self.scanning);
        state.states.stop();
        join(vec![self.asking]);
        state.calls.stop();
        join(vec![self.reporting]);
        for trails in &state.shared.trails {
            let _gone = trails.send(Parcel::Close);
        }
        join(self.writing);
        for outcome in self.outcomes.try_iter() {
            state.note(outcome);
        }
        for output in lock(&state.shared.sinks).finish() {
            if output.dropped > 0 {
                let (name, dropped) = (output.name, output.dropped);
                let said = "events were not delivered; the trails have them all";
                show::tell(&format!("output {name}: {dropped} {said}"));
            }
        }
        let attached = lock(&state.roll).attached;
        let edition = state.shared.edition();
        let dir = edition.options().trail_dir.display();
        show::tell(&format!(
            "{attached} sandboxes were watched, trails in {dir}"
        ));
    }
}

impl State {
    /// Reads settings and policy again, for sandboxes that are watched and for
    /// those to come.
    fn reload(&self) {
        let before = self.shared.edition();
        let mut reloaded = before.rules.reload();
        let kinds = &reloaded.rules.options.discover.providers;
        let kinds: &[_] = if kinds.is_empty() {
            &ProviderKind::DISCOVERED
        } else {
            kinds
        };
        let kinds = kinds.iter().map(|kind| kind.as_str().to_owned());
        reloaded.change.providers = Some(kinds.collect());
        let number = before.number + 1;
        let rules = reloaded.rules.clone();
        if rules.options.max_sandboxes > before.options().max_sandboxes {
            limits::raise(rules.options.max_sandboxes);
        }
        self.shared.replace(Edition { number, rules });
        let reloaded = Arc::new(reloaded);
        for ear in &self.ears {
            ear.tell(Order::Judge(number, Arc::clone(&reloaded)));
        }
    }

    fn tell(&self, key: Key, order: Order) {
        if let Some(ear) = share_of(&self.ears, key) {
            ear.tell(order);
        }
    }
}

impl Ear {
    fn tell(&self, order: Order) {
        // Where the thread is gone, so is the watch.
        if self.orders.send(order).is_ok() {
            let _gone = lock(&self.bell).write_all(&[1]);
        }
    }
}

/// Programs for each capture thread, where eBPF is asked for or works. A packet ring
/// is each interface's own, and the one that keeps frames.
fn hubs(options: &Options) -> Result<Vec<(NetworkHub, NetworkHubReader)>, Failure> {
    let flows = FlowConfig {
        call_pause_us: options.call_pause.map(micros),
        ..FlowConfig::default()
    };
    let open = || {
        let hub = |_| NetworkHub::open(&flows, RING.snap_length);
        (0..CAPTURING).map(hub).collect::<Result<_, _>>()
    };
    match options.capture {
        CaptureMode::Ebpf => open().map_err(|error| start::network_failure(error.into())),
        CaptureMode::Auto if options.evidence.is_none() => Ok(open().unwrap_or_else(|error| {
            show::tell(&format!("sandtrace: {error}; sandboxes get packet rings"));
            Vec::new()
        })),
        CaptureMode::Auto | CaptureMode::AfPacket => Ok(Vec::new()),
    }
}

fn capture_thread(
    finish: Sender<Finish>,
    hub: Option<NetworkHubReader>,
) -> Result<(Ear, impl FnOnce() + Send), Failure> {
    let (orders, receiver) = channel();
    let (bell, ring) = pipe().or_exit(Exit::Internal)?;
    let capture = Capture::new(receiver, bell, hub, finish).or_exit(Exit::Internal)?;
    let ear = Ear {
        orders,
        bell: Mutex::new(ring),
    };
    let run = move || {
        if let Err(error) = capture.run() {
            show::tell(&format!("sandtrace: wait for packets: {error}"));
        }
    };
    Ok((ear, run))
}

/// The next of what several threads take from.
fn next<T>(queue: &Mutex<Receiver<T>>) -> Option<T> {
    lock(queue).recv().ok()
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Failure> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .with_context(|| format!("start the thread {name}"))
        .or_exit(Exit::Internal)
}

fn many<W: FnOnce() + Send + 'static>(
    name: &str,
    count: usize,
    work: impl Fn() -> W,
) -> Result<Vec<JoinHandle<()>>, Failure> {
    (0..count).map(|_| spawn(name, work())).collect()
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        // One that panicked is a bug of ours; the others must still end.
        let _panicked = thread.join();
    }
}
