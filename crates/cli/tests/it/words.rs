//! What the program says of itself.

use crate::support::{POLICY, run};
use std::fs;
use std::path::Path;

#[test]
fn version() {
    let said = run(&["--version"]).expect(0).quiet().stdout;
    assert_eq!(said, format!("sandtrace {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn help() {
    let said = run(&["--help"]).expect(0).quiet().stdout;
    for command in ["watch", "verify", "stream", "demo", "policy", "doctor"] {
        assert!(said.contains(&format!("\n  {command} ")), "{said}");
        let help = run(&[command, "--help"]).expect(0).quiet().stdout;
        assert!(
            help.contains(&format!("Usage: sandtrace {command}")),
            "{help}"
        );
        let widest = help.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= 100, "{widest} columns: {help}");
    }
    for command in ["watch", "verify", "stream", "demo"] {
        let help = run(&[command, "--help"]).expect(0).stdout;
        assert!(help.contains("Examples:\n  "), "{help}");
    }
}

#[test]
fn wrong_usage() {
    let cases: [(&[&str], &str); 10] = [
        (&[], "Usage: sandtrace"),
        (&["none-such"], "none-such"),
        (&["watch", "--trail", "x"], "--sandbox-id <ID>"),
        (
            &["watch", "--sandbox-id", "x", "--netns", "y"],
            "--tap <IF>",
        ),
        (
            &["watch", "--sandbox-id", "x", "--duration", "soon"],
            "--duration",
        ),
        (
            &["watch", "--sandbox-id", "x", "--scan-interval", "0s"],
            "--scan-interval",
        ),
        (&["verify"], "<TRAIL>"),
        (
            &["verify", "x", "--resolver", "1.1.1.1"],
            "--against <FILE>",
        ),
        (
            &["stream", "x", "--filter-verdict", "maybe"],
            "use allow, deny or anomaly",
        ),
        (&["stream", "x", "-o", "tcp://host:1"], "unix:///PATH"),
    ];
    for (args, part) in cases {
        let ran = run(args).expect(64);
        assert!(ran.stderr.contains(part), "no {part:?}: {}", ran.stderr);
        assert_eq!(ran.stdout, "", "{args:?}");
    }
}

#[test]
fn policy_check() {
    let said = run(&["policy", "check", POLICY]).expect(0).quiet().stdout;
    let lines: Vec<_> = said.lines().collect();
    assert!(lines[0].contains(": valid, sha256:"), "{said}");
    let rules = [
        "  tool:stripe_charge       network_egress   allow api.stripe.com port 443; at most 4,096 B a call",
        "  tool:read_file           filesystem       allow /home/agent/**, /tmp/**",
    ];
    assert_eq!(lines[1..], rules);
}

#[test]
fn doctor() {
    let said = run(&["doctor"]).expect(0).quiet().stdout;
    let json = run(&["doctor", "--json"]).expect(0).quiet().stdout;
    assert_eq!(json.lines().count(), 1);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let findings = json["findings"].as_array().unwrap();
    assert!(findings.len() >= 6);
    for finding in findings {
        let (what, why) = (&finding["what"], &finding["why"]);
        let (what, why) = (what.as_str().unwrap(), why.as_str().unwrap());
        let mark = if finding["works"].as_bool().unwrap() {
            "yes"
        } else {
            "no "
        };
        let line = said.lines().find(|line| line.contains(what)).unwrap();
        assert!(line.starts_with(mark) && line.ends_with(why), "{line}");
    }
}

/// Commands that the pages tell people to run are such: each is understood up
/// to the help that is asked for behind it.
#[test]
fn commands_of_the_pages() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let docs = fs::read_dir(root.join("docs")).unwrap();
    let docs = docs.map(|entry| entry.unwrap().path());
    let pages = docs.chain([root.join("README.md")]);
    let pages = pages.filter(|path| path.extension().is_some_and(|it| it == "md"));
    let mut count = 0;
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for line in text.lines() {
            let line = line.strip_prefix("$ ").unwrap_or(line);
            // What is in angle brackets is to be filled in.
            let command = line.strip_prefix("sandtrace ");
            let Some(command) = command.filter(|it| !it.contains('<')) else {
                continue;
            };
            // What a shell would do with the rest is not looked at.
            let words = command.split_whitespace();
            let own =
                words.take_while(|word| !["|", ">", ">>", "#", "\\", "&&", "&"].contains(word));
            let mut args: Vec<&str> = own.map(|word| word.trim_matches('\'')).collect();
            args.push("--help");
            println!("{}: {args:?}", page.display());
            run(&args).expect(0);
            count += 1;
        }
    }
    assert!(count >= 30, "{count}");
}
