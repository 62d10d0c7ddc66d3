//! Firecracker processes and their API.

use crate::fake::Fake;
use crate::fake::config;
use sandtrace_event::Layer;
use sandtrace_provider::{FindError, Problem, ProviderKind, Target, discover, find_in};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

const JAILED: [&str; 9] = [
    "/firecracker",
    "--id",
    "vm-001",
    "--start-time-us",
    "1580",
    "--start-time-cpu-us",
    "1580",
    "--parent-cpu-time-us",
    "3",
];

/// One whole recorded answer, head and body.
const RAW: &[u8] = include_bytes!("../fixtures/firecracker/raw_response.txt");
const CONFIG: &str = include_str!("../fixtures/firecracker/vm_config.json");
const MMDS: &str = include_str!("../fixtures/firecracker/mmds.json");
const FAULT: &str = include_str!("../fixtures/firecracker/fault_bad_route.json");

/// Answers as Firecracker does: no reason phrase, connection kept alive.
fn answer(status: u16, body: &str) -> Vec<u8> {
    let head =
        "Server: Firecracker API\r\nConnection: keep-alive\r\nContent-Type: application/json";
    let length = body.len();
    format!("HTTP/1.1 {status} \r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

fn serve(fake: &Fake, mut handle: impl FnMut(&str, &mut UnixStream) + Send + 'static) {
    let listener = UnixListener::bind(fake.jail("run/firecracker.socket")).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = stream.read(&mut buffer) {
                let request = String::from_utf8_lossy(&buffer[..n]).into_owned();
                handle(&request, &mut stream);
            }
        }
    });
}

fn recorded(request: &str, stream: &mut UnixStream) {
    let path = request.split(' ').nth(1).unwrap();
    let bytes = match path {
        "/" => RAW.to_vec(),
        "/vm/config" => answer(200, CONFIG),
        "/mmds" => answer(200, MMDS),
        _ => answer(400, FAULT),
    };
    // In two pieces, as a busy VM may.
    let (head, tail) = bytes.split_at(bytes.len() / 2);
    stream.write_all(head).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    stream.write_all(tail).unwrap();
}

fn missing(target: &Target, layer: Layer) -> String {
    let missing = target.coverage.iter().filter(|it| it.layer == layer);
    missing.map(|it| format!("{}\n", it.missing)).collect()
}

#[test]
fn a_jailed_vm_is_described_from_recorded_answers() {
    let fake = Fake::new(&JAILED);
    serve(&fake, recorded);
    let target = find_in(&fake.proc(), "vm-001", &config()).unwrap();
    assert_eq!(target.sandbox_id, "vm-001");
    assert_eq!(target.agent_id.as_deref(), Some("billing"));
    assert_eq!(target.provider, ProviderKind::Firecracker);
    let vmm = target.vmm.clone().unwrap();
    assert_eq!(
        (vmm.name.as_str(), vmm.pid),
        ("firecracker", std::process::id())
    );
    assert_eq!(vmm.start_ticks.0, 991);
    assert_eq!(target.netns_path, None);
    let [tap] = target.taps.as_slice() else {
        panic!("{target:?}")
    };
    assert_eq!((tap.interface.as_str(), tap.index), ("lo", 1));
    let [disk] = target.disks.as_slice() else {
        panic!("{target:?}")
    };
    let image = fake.jail("var/lib/vm/rootfs.ext4");
    assert_eq!(disk.identity.kind, "ext4");
    assert_eq!(disk.identity.path, image.display().to_string());
    assert!(disk.open_path.ends_with("fd/9"));
    let network = missing(&target, Layer::Network);
    assert!(network.contains("MMDS"), "{network}");
    assert!(network.contains("vsock"), "{network}");
    // The recorded VM's tap has another name than the one that is open here.
    assert!(network.contains("\"fctap0\" is configured"), "{network}");
    assert_eq!(missing(&target, Layer::Filesystem), "");
    assert_eq!(target.attached().provider, "firecracker");
}

#[test]
fn a_configuration_file_stands_in_for_the_api() {
    let fake = Fake::new(&[
        "/usr/bin/firecracker",
        "--no-api",
        "--config-file",
        "/run/vm.json",
        "--metadata",
        "mmds.json",
    ]);
    std::fs::write(fake.jail("run/vm.json"), CONFIG).unwrap();
    std::fs::write(fake.jail("run/mmds.json"), MMDS).unwrap();
    let target = find_in(&fake.proc(), "anonymous-instance", &config()).unwrap();
    assert_eq!(target.agent_id.as_deref(), Some("billing"));
    assert_eq!(target.disks.len(), 1);
    assert!(missing(&target, Layer::Network).contains("vsock"));
}

/// What the API does must neither hold up nor spoil what the kernel shows.
#[track_caller]
fn check_bad_api(handle: impl FnMut(&str, &mut UnixStream) + Send + 'static, why: &str) {
    let fake = Fake::new(&JAILED);
    serve(&fake, handle);
    let started = Instant::now();
    let target = find_in(&fake.proc(), "vm-001", &config()).unwrap();
    assert!(started.elapsed() < Duration::from_secs(3));
    let network = missing(&target, Layer::Network);
    assert!(network.contains(why), "{network}");
    assert!(!network.contains("CANARY"), "{network}");
    assert_eq!((target.taps.len(), target.disks.len()), (1, 1));
    assert_eq!(target.agent_id, None);
}

#[test]
fn a_socket_that_never_answers() {
    check_bad_api(|_, _| {}, "no whole answer within 1000 ms");
}

#[test]
fn a_socket_that_dribbles() {
    let dribble = |_: &str, stream: &mut UnixStream| {
        for byte in answer(200, &" ".repeat(10_000)) {
            if stream.write_all(&[byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    check_bad_api(dribble, "no whole answer within 1000 ms");
}

#[test]
fn sockets_that_answer_garbage() {
    let say = |bytes: &'static [u8]| {
        move |_: &str, stream: &mut UnixStream| {
            _ = stream.write_all(bytes);
            _ = stream.shutdown(std::net::Shutdown::Write);
        }
    };
    check_bad_api(say(b"SSH-2.0-OpenSSH\r\n\r\n"), "not HTTP/1.1");
    check_bad_api(
        say(b"HTTP/1.1 200 \r\nContent-Length: 90\r\n\r\n{"),
        "closed in the middle",
    );
    check_bad_api(
        say(b"HTTP/1.1 200 \r\nContent-Length: 9999999\r\n\r\n"),
        "longer than",
    );
    check_bad_api(
        say(b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\n[]"),
        "GET /:",
    );
    // What stands in the wrong place may be a secret.
    check_bad_api(
        say(b"HTTP/1.1 200 \r\nContent-Length: 17\r\n\r\n{\"id\":[\"CANARY\"]}"),
        "malformed: a value of another kind at line 1",
    );
    check_bad_api(
        say(b"HTTP/1.1 500 \r\nContent-Length: 0\r\n\r\n"),
        "status 500",
    );
    check_bad_api(say(b""), "closed in the middle");
    let endless =
        |_: &str, stream: &mut UnixStream| while stream.write_all(&[b'x'; 4096]).is_ok() {};
    check_bad_api(endless, "head is longer");
}

#[test]
fn another_vm_behind_the_socket_is_not_believed() {
    let other = |request: &str, stream: &mut UnixStream| {
        if request.starts_with("GET / ") {
            _ = stream.write_all(&answer(
                200,
                r#"{"id":"vm-002\u001b[2J","state":"Running"}"#,
            ));
        } else {
            recorded(request, stream);
        }
    };
    check_bad_api(other, r#"answers for instance "vm-002\u{1b}[2J""#);
}

#[test]
fn a_socket_that_another_process_took_over_is_not_asked() {
    let fake = Fake::new(&["not-a-vm"]);
    fake.process(4_000_001, &JAILED);
    serve(&fake, |_, _| panic!("asked"));
    let target = find_in(&fake.proc(), "vm-001", &config()).unwrap();
    let network = missing(&target, Layer::Network);
    let why = format!("process {} listens there, not the VMM", std::process::id());
    assert!(network.contains(&why), "{network}");
    assert_eq!(target.agent_id, None);
}

#[test]
fn no_socket_at_all() {
    let fake = Fake::new(&JAILED);
    let target = find_in(&fake.proc(), "vm-001", &config()).unwrap();
    let network = missing(&target, Layer::Network);
    assert!(network.contains("/run/firecracker.socket"), "{network}");
    assert_eq!((target.taps.len(), target.disks.len()), (1, 1));
}

#[test]
fn metadata_other_than_the_agent_is_never_kept() {
    let fake = Fake::new(&JAILED);
    serve(&fake, |request, stream| {
        if request.starts_with("GET /mmds") {
            let secret = r#"{"agent_id":["CANARY-1"],"accessTokenHash":"CANARY-2","agent":"a"}"#;
            stream.write_all(&answer(200, secret)).unwrap();
        } else {
            recorded(request, stream);
        }
    });
    let target = find_in(&fake.proc(), "vm-001", &config()).unwrap();
    assert_eq!(target.agent_id.as_deref(), Some("a"));
    assert!(!format!("{target:?}").contains("CANARY"));
}

#[test]
fn only_what_can_be_a_disk_is_one() {
    let fake = Fake::new(&JAILED);
    let open = |number, name: &str, content: &[u8], flags: &str| {
        let path = fake.jail(name);
        std::fs::write(&path, content).unwrap();
        fake.descriptor(number, &path, &format!("flags:\t{flags}\n"));
    };
    open(20, "log", b"log line\n", "0100002");
    open(21, "readonly.ext4", &crate::fake::ext4(), "0100000");
    open(22, "hotplugged.ext4", &crate::fake::ext4(), "02100002");
    // The same image a second time.
    let image = fake.jail("var/lib/vm/rootfs.ext4");
    fake.descriptor(23, &image, "flags:\t02100002\n");
    let target = find_in(&fake.proc(), "vm-001", &config()).unwrap();
    let disks: Vec<_> = target.disks.iter().map(|disk| &disk.open_path).collect();
    assert_eq!(disks.len(), 2, "{disks:?}");
    assert!(
        disks[0].ends_with("fd/9") && disks[1].ends_with("fd/22"),
        "{disks:?}"
    );
}

#[test]
fn a_drive_that_is_no_file_system_is_a_disk_by_its_configuration() {
    let fake = Fake::new(&JAILED);
    serve(&fake, recorded);
    let image = fake.jail("var/lib/vm/rootfs.ext4");
    std::fs::write(&image, [b"QFI\xfb".as_slice(), &[0; 4092]].concat()).unwrap();
    let target = find_in(&fake.proc(), "vm-001", &config()).unwrap();
    assert_eq!(target.disks[0].identity.kind, "qcow2");
    let filesystem = missing(&target, Layer::Filesystem);
    assert!(
        filesystem.contains("holds no ext4 and no partitions at its start (qcow2)"),
        "{filesystem}"
    );
}

#[test]
fn unknown_ids_list_what_there_is() {
    let fake = Fake::new(&JAILED);
    fake.process(
        4_000_001,
        &["/usr/bin/qemu-system-x86_64", "-name", "guest=box"],
    );
    fake.process(
        4_000_002,
        &["/usr/bin/vim", "firecracker", "--id", "not-a-vm"],
    );
    fake.process(4_000_003, &["firecracker-helper", "--id", "not-a-vm"]);
    let error = find_in(&fake.proc(), "not-a-vm", &config()).unwrap_err();
    let pid = std::process::id();
    let expected = format!(
        "no sandbox \"not-a-vm\" on this host; found: vm-001 (firecracker, pid {pid}), box (qemu, pid 4000001)"
    );
    assert_eq!(error.to_string(), expected);
    let error = find_in(&fake.proc(), "../../etc", &config()).unwrap_err();
    assert!(matches!(error, FindError::InvalidId { .. }), "{error}");
}

#[test]
fn ids_that_two_processes_have_are_ambiguous() {
    let fake = Fake::new(&JAILED);
    fake.process(4_000_001, &["firecracker", "--id", "vm-001"]);
    let error = find_in(&fake.proc(), "vm-001", &config()).unwrap_err();
    let expected = vec![std::process::id(), 4_000_001];
    assert!(
        matches!(&error, FindError::Ambiguous { pids, .. } if *pids == expected),
        "{error}"
    );
    let discovery = discover(&fake.proc(), &config());
    assert_eq!(discovery.targets.len(), 2);
    assert_eq!(discovery.problems.len(), 1);
}

#[test]
fn hostile_ids_get_a_name_that_is_safe() {
    let fake = Fake::new(&["firecracker", "--id", "../../etc/passwd\n"]);
    let discovery = discover(&fake.proc(), &config());
    let id = format!("firecracker-{}", std::process::id());
    assert_eq!(discovery.targets[0].sandbox_id, id);
    let [Problem::UnusableId { claimed, .. }] = discovery.problems.as_slice() else {
        panic!("{:?}", discovery.problems)
    };
    assert_eq!(claimed, "../../etc/passwd\n");
    assert!(!discovery.problems[0].to_string().contains('\n'));
    assert!(find_in(&fake.proc(), &id, &config()).is_ok());
    assert!(find_in(&fake.proc(), "../../etc/passwd\n", &config()).is_ok());
}
