//! VMMs whose APIs do not answer as they should: each is watched as soon as any
//! other, by what the kernel says of it, and what its API says comes later.

use crate::containers::{made, sandtrace, watched as docker_watched};
use crate::fleet::{Watch, check_trail, of_type, records};
use crate::hostile::{signal, silent};
use crate::support::{Alone, config, lab};
use rustix::process::Signal;
use sandtrace_event::WallTime;
use sandtrace_lab::world::World;
use sandtrace_lab::{StandIn, StandInForm};
use serde_json::Value;
use std::io::{self, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

/// When something was recorded.
pub(crate) fn recorded_ms(record: &Value) -> u64 {
    let time: WallTime = serde_json::from_value(record["wall_time"].clone()).unwrap();
    time.as_millis()
}

/// The page asks for 200 ms after a VMM's start. The machine may be busy.
#[track_caller]
pub(crate) fn check_soon(mut took_ms: Vec<u64>) {
    took_ms.sort_unstable();
    println!("attached after (ms): {took_ms:?}");
    assert!(took_ms[took_ms.len() / 2] <= 200, "{took_ms:?}");
    assert!(
        took_ms.last().is_some_and(|most| *most <= 1000),
        "{took_ms:?}"
    );
}

/// A VMM under watch that runs, and how long after it had its tap its trail
/// began. Cloud Hypervisor has it once its guest runs, Firecracker before.
fn watched(
    lab: &Alone,
    watch: &Watch,
    (form, manners): (StandInForm, &str),
    id: &str,
) -> (StandIn, u64) {
    let mut config = config(lab, form, id);
    config.boot_args =
        format!("standin.frames=5 standin.gap_ms=20 standin.delay_ms=300 standin.api={manners}");
    let vmm = lab.stand_in(&config).unwrap();
    let late = form == StandInForm::CloudHypervisor;
    if late {
        vmm.start().unwrap();
    }
    let ready = now_ms();
    let trail = watch.await_trail(id, "sandbox_attached");
    let attached = recorded_ms(of_type(&records(&trail), "sandbox_attached")[0]);
    if !late {
        vmm.start().unwrap();
    }
    (vmm, attached.saturating_sub(ready))
}

#[test]
fn a_vmm_whose_api_does_not_answer_is_watched_at_once() {
    let Some(lab) = lab("a_vmm_whose_api_does_not_answer_is_watched_at_once") else {
        return;
    };
    let watch = Watch::start(&lab, &["--syscalls", "off"]);
    let forms = [StandInForm::Firecracker, StandInForm::CloudHypervisor];
    let ways = ["silent", "drip", "slow", "garbage"];
    let cases = forms
        .into_iter()
        .flat_map(|form| ways.map(|way| (form, way)));
    let (mut vmms, mut all) = (Vec::new(), Vec::new());
    for (form, way) in cases {
        let id = format!("i{}{form:?}{way}", lab.id()).to_lowercase();
        let (vmm, took) = watched(&lab, &watch, (form, way), &id);
        println!("{form:?}, {way}: attached after {took} ms");
        vmms.push((id, vmm));
        all.push(took);
    }
    // One beside them is attached as if they were not there.
    let id = format!("i{}beside", lab.id());
    let beside = (StandInForm::Firecracker, "good");
    let (vmm, took) = watched(&lab, &watch, beside, &id);
    vmms.push((id, vmm));
    all.push(took);
    check_soon(all);
    // Five frames, 20 ms apart.
    std::thread::sleep(Duration::from_millis(1500));
    for (_, vmm) in &mut vmms {
        vmm.kill();
    }
    for (id, _) in &vmms {
        // The first of them is on record as well.
        let trail = watch.await_trail(id, "trail_end");
        check_trail(&trail, id, 5);
    }
    watch.interrupt();
}

/// What a VMM does that is busy with a snapshot: it answers late.
#[test]
fn what_a_vmm_says_late_is_recorded_then() {
    let Some(lab) = lab("what_a_vmm_says_late_is_recorded_then") else {
        return;
    };
    let id = format!("i{}late", lab.id());
    let mut vmm = silent(&lab, &id);
    let watch = Watch::start(&lab, &["--syscalls", "off"]);
    let trail = watch.await_trail(&id, "sandbox_attached");
    let first = records(&trail);
    let first = &of_type(&first, "sandbox_attached")[0]["payload"];
    assert_eq!(first["agent_id"], Value::Null, "{first}");
    assert_eq!(first["taps"][0]["interface"], "tap0", "{first}");
    assert_eq!(first["disks"].as_array().unwrap().len(), 1, "{first}");
    let missing = first["coverage"].to_string();
    assert!(missing.contains("gives no answer"), "{missing}");
    signal(&vmm, Signal::CONT);
    let answers = now_ms();
    let trail = watch.await_trail(&id, r#""agent_id":"billing""#);
    let all = records(&trail);
    let last = *of_type(&all, "sandbox_attached").last().unwrap();
    let missing = last["payload"]["coverage"].to_string();
    assert!(!missing.contains("gives no answer"), "{missing}");
    let took = recorded_ms(last).saturating_sub(answers);
    println!("complete {took} ms after it answers");
    assert!(took < 5000, "{took} ms");
    vmm.start().unwrap();
    watch.await_trail(&id, r#""phase":"open""#);
    vmm.kill();
    watch.await_trail(&id, "trail_end");
    watch.interrupt();
}

/// Takes clients for Docker and answers each in this way, as long as the test
/// runs.
fn docker(dir: &Path, way: fn(&UnixStream) -> io::Result<()>) -> PathBuf {
    let socket = dir.join("odd-docker.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Ends with its connection.
            std::thread::spawn(move || way(&stream));
        }
    });
    socket
}

fn says_nothing(mut stream: &UnixStream) -> io::Result<()> {
    // Closed by the client, or with the test.
    io::copy(&mut stream, &mut io::sink()).map(drop)
}

fn talks_rubbish(mut stream: &UnixStream) -> io::Result<()> {
    stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n\r\n\x1b[31m")?;
    says_nothing(stream)
}

fn drips(mut stream: &UnixStream) -> io::Result<()> {
    let answer =
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]";
    for byte in answer {
        std::thread::sleep(Duration::from_millis(50));
        stream.write_all(&[*byte])?;
    }
    says_nothing(stream)
}

/// VMMs that run before the watch does are found by the look at everything.
#[test]
fn a_docker_that_does_not_answer_holds_up_nobody() {
    let Some(lab) = lab("a_docker_that_does_not_answer_holds_up_nobody") else {
        return;
    };
    type Way = fn(&UnixStream) -> io::Result<()>;
    let ways: [(&str, Way, &str); 3] = [
        ("silent", says_nothing, "no whole answer within"),
        ("rubbish", talks_rubbish, "not HTTP/1.1"),
        ("drips", drips, "no whole answer within"),
    ];
    for (name, way, problem) in ways {
        let id = format!("i{}{name}", lab.id());
        let mut vmm = lab
            .stand_in(&config(&lab, StandInForm::Firecracker, &id))
            .unwrap();
        let dir = lab.dir().join(name);
        std::fs::create_dir(&dir).unwrap();
        let socket = docker(&dir, way);
        let mut command = sandtrace(&lab);
        command.env("SANDTRACE_DOCKER_SOCKET", &socket);
        let watch = Watch::over(command, &lab, &["--syscalls", "off"]);
        let began = now_ms();
        let trail = watch.await_trail(&id, "sandbox_attached");
        let all = records(&trail);
        let took = recorded_ms(of_type(&all, "sandbox_attached")[0]).saturating_sub(began);
        println!("{name}: attached {took} ms after the watch began");
        assert!(took < 1000, "{name}: {took} ms");
        vmm.start().unwrap();
        // Longer than the watch waits for Docker.
        std::thread::sleep(Duration::from_millis(3500));
        vmm.kill();
        check_trail(&watch.await_trail(&id, "trail_end"), &id, 5);
        let ending = Instant::now();
        let said = watch.interrupt();
        let took = ending.elapsed();
        println!("{name}: ended within {took:?}");
        assert!(took < Duration::from_secs(4), "{name}: {took:?}");
        assert_eq!(said.matches(problem).count(), 1, "{name}: {said}");
    }
}

/// The kernel says that a process ran before Docker was asked for it: it need
/// not be asked again.
#[test]
fn a_docker_that_falls_silent_after_naming_a_container() {
    let Some(lab) = lab("a_docker_that_falls_silent_after_naming_a_container") else {
        return;
    };
    let world = World::start(lab.netns()).unwrap();
    let docker = lab.docker().unwrap();
    let watch = docker_watched(&lab, &docker, &["--syscalls", "off"]);
    let id = format!("i{}hushed", lab.id());
    let (_sandbox, container) = made(&lab, &world, &id, 1);
    docker.fall_silent_after(&container);
    // Start times are told in hundredths of a second.
    std::thread::sleep(Duration::from_millis(30));
    let began = now_ms();
    docker.add_unlisted(container);
    let trail = watch.await_trail(&id, "sandbox_attached");
    let attached = recorded_ms(of_type(&records(&trail), "sandbox_attached")[0]);
    println!("attached after {} ms", attached.saturating_sub(began));
    watch.interrupt();
}
