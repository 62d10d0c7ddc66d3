//! VMMs that come and go: none may be missed.

use super::host::Host;
use super::trails::Told;
use super::vmms::{Starter, Vmm};
use super::{FIRST_PORT, Watch, to_f64};
use crate::Options;
use crate::statistics::quantile;
use anyhow::{Context as _, Result};
use std::collections::{BTreeMap, VecDeque};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

/// How long each lives.
const LIFE: Duration = Duration::from_millis(500);
/// Frames of each, the first of them after [`DELAY_MS`].
const FRAMES: u64 = 5;
const DELAY_MS: u64 = 200;
/// Places that it needs.
pub(super) fn places(options: &Options) -> usize {
    // Used again as soon as their VMM has ended, as E2B's are.
    let seconds = LIFE.as_secs_f64() * 1.2;
    let mut places = 0;
    while to_f64(places) < f64::from(options.rate) * seconds {
        places += 1;
    }
    places
}

struct Alive {
    place: usize,
    vmm: Vmm,
    until: Instant,
}

/// Starts and ends so many a second, and looks for each in its trail.
pub(super) fn run(options: &Options, host: &Host) -> Result<()> {
    host.send(&format!(
        "standin.delay_ms={DELAY_MS} standin.gap_ms=10 standin.frames={FRAMES}"
    ))?;
    let watch = Watch::start(options, host, "churn")?;
    let starter = Starter::new()?;
    let before = watch.reading()?;
    let begun = Instant::now();
    let started = storm(options, host, &starter)?;
    let took = begun.elapsed().saturating_sub(LIFE);
    let after = watch.reading()?;
    let told = watch.await_ends(started.len())?;
    let caught_up = begun.elapsed() - took - LIFE;
    watch.stop()?;
    println!(
        "churn: {} VMMs of {} ms each, {:.0} starts and stops a second (of {} wanted) for {:.0} s",
        started.len(),
        LIFE.as_millis(),
        to_f64(started.len()) / took.as_secs_f64(),
        options.rate,
        took.as_secs_f64(),
    );
    report(&started, &told);
    println!(
        "  sandtrace: {:.0} % of one processor, {} threads, {} descriptors, the last trail ended {:.1} s after the last VMM",
        after.cpu_since(&before) * 100.0,
        after.threads,
        after.descriptors,
        caught_up.as_secs_f64()
    );
    Ok(())
}

fn storm(
    options: &Options,
    host: &Host,
    starter: &Starter,
) -> Result<BTreeMap<String, SystemTime>> {
    let mut free: VecDeque<usize> = (0..places(options)).collect();
    let begun = Instant::now();
    let mut alive: VecDeque<Alive> = VecDeque::new();
    let mut started = BTreeMap::new();
    let count = options.rate.saturating_mul(options.seconds);
    for number in 0..count {
        let due = begun + Duration::from_secs(1) / options.rate * number;
        loop {
            while alive.front().is_some_and(|it| it.until <= Instant::now()) {
                if let Some(ended) = alive.pop_front() {
                    ended.vmm.kill()?;
                    free.push_back(ended.place);
                }
            }
            if !free.is_empty() && due <= Instant::now() {
                break;
            }
            sleep(Duration::from_micros(500));
        }
        let place = free.pop_front().context("no place")?;
        let id = format!("c{number}");
        let vmm = starter.start(host.namespace(place)?, host.vmm(place, &id)?)?;
        started.insert(id, vmm.started);
        let until = Instant::now() + LIFE;
        alive.push_back(Alive { place, vmm, until });
    }
    for left in alive {
        sleep(left.until.saturating_duration_since(Instant::now()));
        left.vmm.kill()?;
    }
    Ok(started)
}

fn report(started: &BTreeMap<String, SystemTime>, told: &BTreeMap<String, Told>) {
    let nothing = Told::default();
    let of = |id: &String| told.get(id).unwrap_or(&nothing);
    let count = |is: &dyn Fn(&Told) -> bool| started.keys().filter(|id| is(of(id))).count();
    let all = started.len();
    let sent = |told: &Told| told.packets.get(&FIRST_PORT).copied().unwrap_or(0);
    println!(
        "  {} of {all} have a trail, {} with its start, {} with its end; {} have two",
        count(&|it| it.trails > 0),
        count(&|it| it.attached.is_some()),
        count(&|it| it.ended),
        count(&|it| it.trails > 1),
    );
    println!(
        "  {} have all {FRAMES} frames, {} fewer, {} more; {} a record of a gap",
        count(&|it| sent(it) == FRAMES),
        count(&|it| sent(it) < FRAMES),
        count(&|it| sent(it) > FRAMES),
        count(&|it| it.gaps > 0),
    );
    let times: Vec<f64> = started
        .iter()
        .filter_map(|(id, at)| of(id).attached?.duration_since(*at).ok())
        .map(|time| time.as_secs_f64() * 1e3)
        .collect();
    let share = |share| quantile(times.iter().copied(), share);
    println!(
        "  attached after p50 {:.1} ms, p99 {:.1} ms, at most {:.1} ms",
        share(0.5),
        share(0.99),
        share(1.0)
    );
}
