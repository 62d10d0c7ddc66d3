//! Cloud Hypervisor's processes and their API.

use crate::fake::{Fake, config};
use sandtrace_event::Layer;
use sandtrace_provider::{ProviderKind, Target, find_in};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// What no trail may hold.
const CANARY: &str = "CANARY-c4a1";

const ARGUMENTS: [&str; 9] = [
    "/usr/bin/cloud-hypervisor",
    "--api-socket",
    "path=/run/box-1.sock",
    "--cmdline",
    "console=hvc0 token=CANARY-c4a1",
    "--disk",
    "path=/var/lib/vm/rootfs.ext4,serial=CANARY-c4a1",
    "--platform",
    "serial_number=CANARY-c4a1,oem_strings=[CANARY-c4a1]",
];

/// As Cloud Hypervisor answers `vm.info`, shortened.
const INFO: &str = r#"{"config":{"payload":{"kernel":"/k","cmdline":"token=CANARY-c4a1"},
    "disks":[{"path":"/var/lib/vm/rootfs.ext4","readonly":false,"serial":"CANARY-c4a1"}],
    "net":[{"tap":"lo","mac":"12:34:56:78:90:ab"}],
    "platform":{"serial_number":"CANARY-c4a1","oem_strings":["CANARY-c4a1"]}},
    "state":"Running"}"#;

/// What is found where the API does this.
fn described(answer: impl Fn(&mut UnixStream) + Send + 'static) -> Target {
    let fake = Fake::new(&ARGUMENTS);
    let listener = UnixListener::bind(fake.jail("run/box-1.sock")).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut buffer = [0; 4096];
            while let Ok(1..) = stream.read(&mut buffer) {
                answer(&mut stream);
            }
        }
    });
    let began = Instant::now();
    let target = find_in(&fake.proc(), "box-1", &config()).unwrap();
    assert!(began.elapsed() < Duration::from_secs(15));
    assert_eq!(target.provider, ProviderKind::CloudHypervisor);
    // What the kernel shows is there whatever the API says.
    assert_eq!(target.taps[0].interface, "lo");
    assert_eq!(target.disks.len(), 1);
    let said = format!("{target:?} {:?}", target.attached());
    assert!(!said.contains(CANARY), "{said}");
    target
}

/// It says that the configuration is not known, and why.
#[track_caller]
fn check_bad(answer: impl Fn(&mut UnixStream) + Send + 'static, expected: &str) {
    let target = described(answer);
    for layer in [Layer::Network, Layer::Filesystem] {
        let says =
            |it: &&sandtrace_provider::Coverage| it.layer == layer && it.missing.contains(expected);
        let said = target.coverage.iter().find(says);
        assert!(said.is_some(), "{expected}: {:?}", target.coverage);
    }
}

fn say(bytes: impl Into<Vec<u8>>) -> impl Fn(&mut UnixStream) {
    let bytes = bytes.into();
    move |stream| {
        _ = stream.write_all(&bytes);
        _ = stream.shutdown(Shutdown::Write);
    }
}

fn whole(status: u16, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} \r\nServer: Cloud Hypervisor API\r\nConnection: keep-alive\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

#[test]
fn no_secret_of_its_configuration_is_kept() {
    let target = described(say(whole(200, INFO)));
    assert!(target.coverage.is_empty(), "{:?}", target.coverage);
}

#[test]
fn a_socket_that_never_answers() {
    check_bad(|_| {}, "no whole answer within 1000 ms");
}

#[test]
fn a_socket_that_dribbles() {
    let dribble = |stream: &mut UnixStream| {
        for byte in whole(200, &" ".repeat(10_000)).bytes() {
            if stream.write_all(&[byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    check_bad(dribble, "no whole answer within 1000 ms");
}

#[test]
fn sockets_that_answer_garbage() {
    check_bad(say("SSH-2.0-OpenSSH\r\n\r\n"), "not HTTP/1.1");
    check_bad(say(""), "closed in the middle");
    check_bad(
        say("HTTP/1.1 200 \r\nContent-Length: 90\r\n\r\n{"),
        "closed in the middle",
    );
    check_bad(
        say("HTTP/1.1 200 \r\nContent-Length: 9999999\r\n\r\n"),
        "longer than",
    );
    check_bad(say(whole(500, r#"["CANARY-c4a1"]"#)), "status 500");
    check_bad(say(whole(200, "[]")), "malformed");
    check_bad(say(whole(200, r#"{"config":"CANARY-c4a1"}"#)), "malformed");
    let disk = r#"{"config":{"disks":[{"path":"/d","readonly":"CANARY-c4a1"}]}}"#;
    check_bad(
        say(whole(200, disk)),
        "malformed: a value of another kind at line 1",
    );
    let endless = |stream: &mut UnixStream| while stream.write_all(&[b'x'; 4096]).is_ok() {};
    check_bad(endless, "head is longer");
}
