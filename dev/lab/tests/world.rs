//! The scripted agent against the outside world, both in a network namespace of the test.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests fail and tell as tests do"
)]

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use sandtrace_event::FileOp;
use sandtrace_guest::agent::{self, hosts};
use sandtrace_lab::scenario::{self, ExpectedFile, base_tree, expectations};
use sandtrace_lab::world::{ECHO, Log, UPDATES_ADDRESS, World};
use sandtrace_lab::{Network, Report, Scenario};
use sandtrace_sys::netns;
use tempfile::TempDir;

/// A namespace that is gone when the test is.
struct Namespace(String);

impl Namespace {
    /// Nothing where the test may not make one; that is only in order outside of CI.
    fn new(name: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "CI must run as root");
            println!("skipped: {name}: needs root for a network namespace");
            return None;
        }
        let name = format!("stw-{name}-{}", std::process::id());
        ip(&["netns", "add", &name]);
        Some(Self(name))
    }

    fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        netns::within(Some(&netns::path_of(&self.0)), work).unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.0]);
    }
}

#[track_caller]
fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().unwrap();
    assert!(status.success(), "ip {arguments:?}");
}

/// A root directory with the files that a sandbox starts from.
fn root() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for entry in base_tree() {
        let path = below(root.path(), &entry.path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, entry.contents).unwrap();
    }
    root
}

fn below(root: &Path, path: &str) -> std::path::PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn play(namespace: &Namespace, world: &World, scenario: Scenario, root: &Path) -> Vec<Report> {
    let script = scenario::script(scenario, world, Network::behind_tap(world.resolver()));
    let mut reports = Vec::new();
    namespace
        .within(|| agent::run(&script, root, &mut |report| reports.push(report)))
        .unwrap();
    for report in &reports {
        println!("{}: {}", report.step, report.detail);
        assert!(!report.detail.contains("Cannot"), "{}", report.detail);
    }
    reports
}

/// The log once every connection has ended.
fn settled(world: &World) -> Log {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let log = world.log();
        if log.connections.iter().all(|connection| connection.closed) {
            return log;
        }
        assert!(Instant::now() < end, "{:?}", log.connections);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[track_caller]
fn check_files(root: &Path, before: &HashMap<String, Vec<u8>>, expected: &[ExpectedFile]) {
    for file in expected {
        let now = fs::read(below(root, file.path)).ok();
        let changed = now.as_ref() != before.get(file.path);
        assert!(changed, "{} is as it was", file.path);
        assert_eq!(now.is_none(), file.op == FileOp::Deleted, "{}", file.path);
        if let Some(contents) = &file.contents {
            assert_eq!(now.unwrap(), contents.as_bytes(), "{}", file.path);
        }
    }
}

fn contents(root: &Path, scenario: Scenario) -> HashMap<String, Vec<u8>> {
    let paths = expectations(scenario)
        .files
        .into_iter()
        .map(|file| file.path);
    paths
        .filter_map(|path| Some((path.to_owned(), fs::read(below(root, path)).ok()?)))
        .collect()
}

#[test]
fn stripe_exfil_reaches_both_hosts() {
    let Some(namespace) = Namespace::new("exfil") else {
        return;
    };
    let world = World::start(&namespace.0).unwrap();
    let root = root();
    let before = contents(root.path(), Scenario::StripeExfil);
    play(&namespace, &world, Scenario::StripeExfil, root.path());
    let log = settled(&world);

    let [api, drop] = &*log.connections else {
        panic!("{:?}", log.connections);
    };
    assert_eq!((api.host, drop.host), (hosts::API, hosts::DROP));
    let [first, second] = &*api.requests else {
        panic!("{:?}", api.requests);
    };
    assert!(first.body.starts_with(b"amount=4200&"));
    let call = second.received_so_far - first.received_so_far;
    assert!(
        (4_700..5_800).contains(&call),
        "second call of {call} bytes"
    );
    assert!(
        (200..600).contains(&(call - second.body.len() as u64)),
        "overhead"
    );
    let [paste] = &*drop.requests else {
        panic!("{:?}", drop.requests);
    };
    for stolen in [&second.body, &paste.body] {
        let text = String::from_utf8(stolen.clone()).unwrap();
        assert!(text.contains("FAKE-secret-made-for-the-lab-000000000034"));
        assert!(text.contains("BILLING_SIGNING_KEY%3DFAKE"));
    }
    let asked: Vec<_> = log.questions.iter().map(|q| (&*q.name, q.qtype)).collect();
    let both = |name| [(name, 1), (name, 28)];
    assert_eq!(asked, [both(hosts::API), both(hosts::DROP)].concat());

    let expected = expectations(Scenario::StripeExfil).files;
    check_files(root.path(), &before, &expected);
    let receipt = fs::read_to_string(below(root.path(), "/tmp/charge-receipt.json")).unwrap();
    assert!(receipt.contains(r#""status":"succeeded""#), "{receipt}");
}

#[test]
fn persist_acts_on_what_was_planted() {
    let Some(namespace) = Namespace::new("persist") else {
        return;
    };
    let world = World::start(&namespace.0).unwrap();
    let root = root();
    let before = contents(root.path(), Scenario::PersistPlant);
    play(&namespace, &world, Scenario::PersistPlant, root.path());
    let expected = expectations(Scenario::PersistPlant).files;
    check_files(root.path(), &before, &expected);
    assert_eq!(settled(&world).requests(hosts::DROP).count(), 0);

    let before = contents(root.path(), Scenario::PersistAct);
    play(&namespace, &world, Scenario::PersistAct, root.path());
    let expected = expectations(Scenario::PersistAct).files;
    check_files(root.path(), &before, &expected);
    let log = settled(&world);
    let hosts_in_order: Vec<_> = log.connections.iter().map(|c| c.host).collect();
    assert_eq!(hosts_in_order, [hosts::API, hosts::UPDATES, hosts::DROP]);
    let pasted = log.requests(hosts::DROP).next().unwrap();
    assert!(pasted.body.starts_with(b"paste=%23+FAKE"));
    let asked = log.requests(hosts::UPDATES).next().unwrap();
    assert_eq!(
        (&*asked.host, &*asked.path),
        (hosts::UPDATES, "/agent/next")
    );
}

#[test]
fn echo_and_plain_http_answer() {
    let Some(namespace) = Namespace::new("plain") else {
        return;
    };
    let world = World::start(&namespace.0).unwrap();
    namespace.within(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        socket.send_to(&[7; 900], ECHO).unwrap();
        let mut buffer = [0; 1000];
        assert_eq!(socket.recv_from(&mut buffer).unwrap(), (900, ECHO.into()));

        let mut stream = TcpStream::connect((UPDATES_ADDRESS, 80)).unwrap();
        let request = "GET /x HTTP/1.1\r\nHost: updates.example\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        assert!(response.ends_with(r#"{"now":true}"#), "{response}");

        let log = settled(&world);
        assert_eq!(log.echoed, [900]);
        let [connection] = &*log.connections else {
            panic!("{log:?}");
        };
        assert_eq!(connection.received, request.len() as u64);
        assert_eq!(connection.sent, response.len() as u64);
    });
}

#[test]
fn a_stranger_is_refused_and_the_world_goes_on() {
    let Some(namespace) = Namespace::new("other") else {
        return;
    };
    let (world, second) = (
        World::start(&namespace.0).unwrap(),
        Namespace::new("two").unwrap(),
    );
    let other = World::start(&second.0).unwrap();
    let root = root();
    // The other world's authority did not sign this one's certificates.
    let script = scenario::script(
        Scenario::StripeExfil,
        &other,
        Network::behind_tap(world.resolver()),
    );
    let error = namespace
        .within(|| agent::run(&script, root.path(), &mut |_| ()))
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("shake hands with api.stripe.com: "),
        "{error}"
    );
    play(&namespace, &world, Scenario::PersistPlant, root.path());
    assert!(other.log().connections.is_empty());
}

/// A client that says nothing, and one in mid-request, do not keep a world alive.
#[test]
fn drop_ends_everything_at_once() {
    let Some(namespace) = Namespace::new("drop") else {
        return;
    };
    let world = World::start(&namespace.0).unwrap();
    let address = SocketAddr::from((UPDATES_ADDRESS, 80));
    let mut clients = namespace.within(|| {
        let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap();
        [connect(), connect()]
    });
    clients[1].write_all(b"POST / HTTP/1.1\r\nCont").unwrap();
    let start = Instant::now();
    drop(world);
    assert!(start.elapsed() < Duration::from_secs(2));
    for mut client in clients {
        // End of stream, or a reset where bytes were never read.
        assert_eq!(client.read(&mut [0; 9]).unwrap_or(0), 0);
    }
    World::start(&namespace.0).unwrap();
}

#[test]
fn a_missing_namespace_is_named() {
    let error = World::start("stw-no-such").unwrap_err().to_string();
    assert!(error.contains("/run/netns/stw-no-such"), "{error}");
}
