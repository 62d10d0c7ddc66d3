//! Docker's API, also one that is slow, odd or silent.

use crate::fake::Fake;
use sandtrace_provider::{
    Containers, DiscoverConfig, Discovery, FindError, ProviderKind, discover, find_in, sightings,
};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What no message may hold.
const CANARY: &str = "CANARY-0b77";

type Asked = Arc<Mutex<Vec<String>>>;

/// Serves by `answer`, which is given the path, on threads that outlive the
/// test; every path that was asked for is kept.
fn serve(
    fake: &Fake,
    answer: impl Fn(&str, &mut UnixStream) + Send + Sync + 'static,
) -> (DiscoverConfig, Asked) {
    let socket = fake.jail("run/docker.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let asked = Asked::default();
    let (answer, log) = (Arc::new(answer), Arc::clone(&asked));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer, log) = (stream.unwrap(), Arc::clone(&answer), log.clone());
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut buffer) {
                    let request = String::from_utf8_lossy(&buffer[..n]).into_owned();
                    let path = request.split(' ').nth(1).unwrap();
                    log.lock().unwrap().push(path.to_owned());
                    answer(path, &mut stream);
                }
            });
        }
    });
    (config(socket), asked)
}

fn config(docker_socket: PathBuf) -> DiscoverConfig {
    DiscoverConfig {
        docker_socket,
        providers: vec![ProviderKind::Daytona],
        ..DiscoverConfig::default()
    }
}

fn say(stream: &mut UnixStream, status: u16, body: &str) {
    let length = body.len();
    // Whoever asked may be gone.
    let _ = write!(
        stream,
        "HTTP/1.1 {status} x\r\nContent-Length: {length}\r\n\r\n{body}"
    );
}

fn id(number: usize) -> String {
    format!("{number:064x}")
}

fn list(numbers: impl IntoIterator<Item = usize>) -> String {
    let entries = numbers
        .into_iter()
        .map(|number| format!(r#"{{"Id":"{}","Names":["/box-{number}"]}}"#, id(number)));
    format!("[{}]", entries.collect::<Vec<_>>().join(","))
}

fn inspected(name: &str) -> String {
    let pid = std::process::id();
    format!(
        r#"{{"Name":"/{name}","State":{{"Pid":{pid},"Running":true}},"Config":{{"Labels":{{"daytona.sandbox_name":"x"}}}},"HostConfig":{{"NetworkMode":"host"}}}}"#
    )
}

/// The number of the container that a path asks for.
fn number(path: &str) -> Option<usize> {
    let id = path.strip_prefix("/containers/")?.strip_suffix("/json")?;
    usize::from_str_radix(id, 16).ok()
}

fn ids(discovery: &Discovery) -> Vec<&str> {
    let targets = discovery.targets.iter();
    targets.map(|target| target.sandbox_id.as_str()).collect()
}

/// Three containers, the first of which gets this answer.
#[track_caller]
fn check_odd(status: u16, body: &'static str) {
    let fake = Fake::new(&["test"]);
    let (config, _) = serve(&fake, move |path, stream| match number(path) {
        None => say(stream, 200, &list(1..=3)),
        Some(1) => say(stream, status, body),
        Some(other) => say(stream, 200, &inspected(&format!("box-{other}"))),
    });
    let discovery = discover(&fake.proc(), &config);
    assert_eq!(ids(&discovery), ["box-2", "box-3"], "{discovery:?}");
    let problems: Vec<_> = discovery.problems.iter().map(ToString::to_string).collect();
    let of_one = problems
        .iter()
        .filter(|it| it.contains("container \"box-1\" (000000000000)"));
    assert_eq!(of_one.count(), 1, "{problems:?}");
    assert!(!format!("{discovery:?}{problems:?}").contains(CANARY));
}

#[test]
fn an_odd_container_hides_no_other() {
    check_odd(500, r#"{"message":"layer CANARY-0b77 is gone"}"#);
    check_odd(200, "");
    check_odd(200, r#"{"Name":"/x"}"#);
    check_odd(
        200,
        r#"{"Name":"/x","State":{"Pid":"CANARY-0b77"},"Config":{}}"#,
    );
    check_odd(
        200,
        r#"{"Name":"/x","State":{"Pid":1,"Running":true},"Config":{"Env":"KEY=CANARY-0b77"}}"#,
    );
}

#[test]
fn an_odd_entry_hides_no_other() {
    let fake = Fake::new(&["test"]);
    let (config, _) = serve(&fake, |path, stream| match number(path) {
        None => {
            let odd = format!(r#"[7,{{"Id":{{}}}},{{"Id":"../x"}},{}"#, &list([1])[1..]);
            say(stream, 200, &odd);
        }
        Some(_) => say(stream, 200, &inspected("box-1")),
    });
    let discovery = discover(&fake.proc(), &config);
    assert_eq!(ids(&discovery), ["box-1"]);
    let [problem] = discovery.problems.as_slice() else {
        panic!("{:?}", discovery.problems)
    };
    assert!(problem.to_string().contains("3 entries are malformed"));
}

#[test]
fn a_container_that_hangs_hides_no_other() {
    let fake = Fake::new(&["test"]);
    let (config, asked) = serve(&fake, |path, stream| match number(path) {
        None => say(stream, 200, &list(1..=3)),
        Some(1) => {}
        Some(other) => say(stream, 200, &inspected(&format!("box-{other}"))),
    });
    let mut containers = Containers::default();
    let mut look = || {
        let (found, problems) = sightings(&fake.proc(), &config, &mut containers).unwrap();
        let names = found.iter().map(|it| it.sandbox_id().to_owned());
        (names.collect::<Vec<_>>(), problems)
    };
    for _ in 0..8 {
        let (names, problems) = look();
        assert_eq!(names, ["box-2", "box-3"]);
        let [problem] = problems.as_slice() else {
            panic!("{problems:?}")
        };
        assert!(problem.to_string().contains("no whole answer"), "{problem}");
        assert_eq!(problem.topic(), format!("container {}", id(1)));
    }
    let asked = asked.lock().unwrap();
    let of = |number: usize| {
        asked
            .iter()
            .filter(|path| path.contains(&id(number)))
            .count()
    };
    assert_eq!(of(1), 3, "at the looks 1, 3 and 6");
}

/// Each answer takes a while, and there are more containers than fit into one look.
#[test]
fn those_that_a_look_has_no_time_for_come_first_in_the_next() {
    const COUNT: usize = 12;
    let fake = Fake::new(&["test"]);
    let (mut config, _) = serve(&fake, |path, stream| {
        let Some(number) = number(path) else {
            return say(stream, 200, &list(1..=COUNT));
        };
        std::thread::sleep(Duration::from_millis(100));
        say(stream, 200, &inspected(&format!("box-{number}")));
    });
    // One second for Docker, of which the last half begins nothing.
    config.patience = Duration::from_secs(2);
    let mut containers = Containers::default();
    let mut found = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    while found.len() < COUNT {
        assert!(Instant::now() < deadline, "{} of {COUNT}", found.len());
        let (now, problems) = sightings(&fake.proc(), &config, &mut containers).unwrap();
        assert!(now.len() >= found.len(), "a look forgets");
        assert!(now.len() == COUNT || !problems.is_empty());
        found = now;
    }
}

#[test]
fn containers_of_others_are_asked_for_once() {
    let fake = Fake::new(&["test"]);
    let (config, asked) = serve(&fake, |path, stream| match number(path) {
        None => say(stream, 200, &list([1])),
        Some(_) => {
            let other = inspected("x").replace("daytona.", "other.");
            say(stream, 200, &other);
        }
    });
    let mut containers = Containers::default();
    for _ in 0..3 {
        let (found, problems) = sightings(&fake.proc(), &config, &mut containers).unwrap();
        assert!(found.is_empty() && problems.is_empty(), "{problems:?}");
    }
    let asked = asked.lock().unwrap();
    assert_eq!(
        asked.iter().filter(|path| number(path).is_some()).count(),
        1
    );
}

/// Between two runs a container has no process, and is Daytona's nonetheless.
#[test]
fn a_container_that_restarts_is_asked_for_again() {
    let fake = Fake::new(&["test"]);
    let restarted = Arc::new(AtomicBool::new(false));
    let runs = Arc::clone(&restarted);
    let (config, _) = serve(&fake, move |path, stream| match number(path) {
        None => say(stream, 200, &list([1])),
        Some(_) if runs.load(Ordering::SeqCst) => say(stream, 200, &inspected("box-1")),
        Some(_) => {
            let pid = format!("\"Pid\":{}", std::process::id());
            say(stream, 200, &inspected("box-1").replace(&pid, "\"Pid\":0"));
        }
    });
    let mut containers = Containers::default();
    let mut look = || {
        let (found, problems) = sightings(&fake.proc(), &config, &mut containers).unwrap();
        assert!(problems.is_empty(), "{problems:?}");
        found.len()
    };
    assert_eq!((look(), look()), (0, 0));
    restarted.store(true, Ordering::SeqCst);
    assert_eq!((look(), look()), (1, 1));
}

#[test]
fn a_named_vmm_does_not_wait_for_a_silent_docker() {
    let fake = Fake::new(&["qemu-system-x86_64", "-name", "box"]);
    let (mut config, _) = serve(&fake, |_, _| {});
    config.providers = Vec::new();
    let began = Instant::now();
    assert_eq!(
        find_in(&fake.proc(), "box", &config).unwrap().sandbox_id,
        "box"
    );
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    let unknown = find_in(&fake.proc(), "other", &config).unwrap_err();
    let text = unknown.to_string();
    assert!(
        text.contains("found: box") && text.contains("; Daytona's containers: Docker's API"),
        "{text}"
    );
}

/// A program in a container can be called like any VMM.
#[test]
fn a_vmm_that_is_called_like_a_container_is_ambiguous() {
    let fake = Fake::new(&["qemu-system-x86_64", "-name", "box-1"]);
    let (mut config, _) = serve(&fake, |path, stream| match number(path) {
        None => say(stream, 200, &list([1])),
        Some(_) => say(stream, 200, &inspected("box-1")),
    });
    config.providers = Vec::new();
    let found = find_in(&fake.proc(), "box-1", &config);
    assert!(
        matches!(found, Err(FindError::Ambiguous { .. })),
        "{found:?}"
    );
}

/// What a Docker that is not one says: an error within the time, never more.
#[track_caller]
fn check_garbage(bytes: &'static [u8]) {
    let fake = Fake::new(&["test"]);
    let (config, _) = serve(&fake, move |_, stream| {
        let _ = stream.write_all(bytes);
    });
    let began = Instant::now();
    let discovery = discover(&fake.proc(), &config);
    assert!(began.elapsed() < Duration::from_secs(20));
    assert!(discovery.targets.is_empty());
    let [problem] = discovery.problems.as_slice() else {
        panic!("{:?}", discovery.problems)
    };
    let text = problem.to_string();
    assert!(
        text.starts_with("Daytona's containers: Docker's API"),
        "{text}"
    );
    assert!(!text.contains(CANARY), "{text}");
}

#[test]
fn a_docker_that_is_none() {
    check_garbage(b"");
    check_garbage(b"SSH-2.0-OpenSSH_9.2\r\n\r\n");
    check_garbage(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n");
    check_garbage(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n");
    check_garbage(b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{\"CANARY-0b77\":1");
    check_garbage(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n\"CANARY-0b77\"");
    check_garbage(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
}

/// Its first bytes come at once, the others one by one for ever.
#[test]
fn a_docker_that_drips() {
    let fake = Fake::new(&["test"]);
    let (mut config, _) = serve(&fake, |_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n[");
        while stream.write_all(b" ").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    config.patience = Duration::from_millis(600);
    let discovery = discover(&fake.proc(), &config);
    let text = format!("{:?}", discovery.problems);
    assert!(text.contains("Timeout"), "{text}");
}
