//! The program without root: what is missing, and how to grant it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::support::{Dir, POLICY, Ran, finish, privileged};

/// A copy that everybody may run, and a user without any capability.
struct Nobody {
    dir: Dir,
}

impl Nobody {
    const ID: u32 = 65534;

    fn new() -> Self {
        let dir = Dir::new();
        let open = || fs::Permissions::from_mode(0o755);
        fs::set_permissions(dir.at(), open()).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_sandtrace"), dir.path("sandtrace")).unwrap();
        fs::copy(POLICY, dir.path("policy.yaml")).unwrap();
        dir.dir("own");
        dir.dir("state");
        for own in ["own", "state"] {
            std::os::unix::fs::chown(dir.path(own), Some(Self::ID), Some(Self::ID)).unwrap();
        }
        let nobody = Self { dir };
        nobody.run(&["keys", "init"]).expect(0);
        nobody
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> Ran {
        let mut command = Command::new(self.dir.path("sandtrace"));
        // Supplementary groups go with the uid.
        command.args(args).uid(Self::ID).gid(Self::ID);
        command.current_dir(self.dir.path("own"));
        command.env("SANDTRACE_STATE_DIR", self.dir.path("state"));
        finish(command)
    }

    #[track_caller]
    fn cannot_watch(&self, args: &[&str], parts: &[&str]) {
        let watch = ["watch", "--sandbox-id", "box"];
        let ran = self.run(&[&watch[..], args].concat());
        ran.expect(77).one_line(parts);
        let left = fs::read_dir(self.dir.path("own")).unwrap().count();
        assert_eq!(left, 0, "something was made");
    }
}

#[test]
fn what_is_missing_is_named() {
    if !privileged("what is missing is named") {
        return;
    }
    let nobody = Nobody::new();
    let root = std::process::id().to_string();
    let shut = nobody.dir.dir("shut");
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o700)).unwrap();
    let disk = nobody.dir.file("shut/disk", "");
    nobody.cannot_watch(&["--tap", "lo"], &["CAP_NET_RAW"]);
    let own_netns = "/proc/self/ns/net";
    nobody.cannot_watch(&["--tap", "lo", "--netns", own_netns], &["CAP_SYS_ADMIN"]);
    nobody.cannot_watch(&["--pid", &root], &[&root, "CAP_SYS_PTRACE"]);
    nobody.cannot_watch(&["--disk", &disk], &["disk", "ermission denied"]);
    nobody.cannot_watch(&["--overlay", &disk], &["overlay", "ermission denied"]);
    for sandbox in ["microvm", "namespace"] {
        let demo = nobody.run(&["demo", "--sandbox", sandbox]).expect(77);
        demo.one_line(&["root"]);
        assert!(nobody.dir.names().len() < 6, "{:?}", nobody.dir.names());
    }
}

#[test]
fn files_of_others() {
    if !privileged("files of others") {
        return;
    }
    let nobody = Nobody::new();
    let secret = nobody.dir.file("secret", "x\n");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let denied = ["secret", "ermission denied"];
    for command in ["verify", "stream"] {
        nobody.run(&[command, &secret]).expect(4).one_line(&denied);
    }
    nobody
        .run(&["policy", "check", &secret])
        .expect(65)
        .one_line(&denied);
    let upper = nobody.dir.text("own");
    let trail = nobody.dir.text("trace.jsonl");
    let watch = [
        "watch",
        "--sandbox-id",
        "box",
        "--overlay",
        &upper,
        "--trail",
        &trail,
    ];
    nobody
        .run(&watch)
        .expect(73)
        .one_line(&["trace.jsonl", "ermission denied"]);
}

/// Without rights the doctor still says what there is, and what to do.
#[test]
fn the_doctor_of_a_plain_user() {
    if !privileged("the doctor of a plain user") {
        return;
    }
    let nobody = Nobody::new();
    let doctor = nobody.run(&["doctor"]).expect(0).quiet();
    assert!(doctor.stdout.contains("CAP_NET_RAW"), "{}", doctor.stdout);
    let json = nobody.run(&["doctor", "--json"]).expect(0).quiet();
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    let works: Vec<_> = json["findings"].as_array().unwrap().iter().collect();
    assert!(
        works.iter().any(|finding| finding["works"] == false),
        "{json}"
    );
}

/// Verifying needs no right but to read the file.
#[test]
fn anybody_can_verify() {
    if !privileged("anybody can verify") {
        return;
    }
    let nobody = Nobody::new();
    let own = nobody.dir.text("own");
    let (upper, trail) = (format!("{own}/upper"), format!("{own}/trace.jsonl"));
    fs::create_dir(&upper).unwrap();
    let mut watch = vec!["watch", "--sandbox-id", "box", "--overlay", &upper];
    watch.extend(["--trail", &trail, "--duration", "50ms"]);
    // An upper dir that one may read can be watched without any capability.
    nobody.run(&watch).expect(0);
    let verified = nobody.run(&["verify", &trail]).expect(0).quiet();
    assert!(verified.stdout.starts_with("VALID"));
}
