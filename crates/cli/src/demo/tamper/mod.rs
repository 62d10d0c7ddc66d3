//! `sandtrace demo tamper`: a signed trail, attacked in every way we know, and
//! what catches each attack. The files stay, to be looked at.

mod attacks;
mod forgeries;
mod scene;
mod spellings;

use super::Keep;
use super::narrate::say;
use crate::args::DemoArgs;
use crate::exit::{Exit, Failure, OrExit as _};
use crate::verify::{self, VerifyArgs};
use anyhow::{Context as _, Result};
use attacks::{ATTACKS, Attack, Check, Known, TRAIL};
use scene::Scene;
use serde_json::json;
use std::fs;
use std::path::Path;

/// File with the host's public key.
const KEY: &str = "host.vkey";
/// File with the witness policy.
const WITNESSES: &str = "witnesses.txt";
/// File that says of each attack what `verify` must answer.
const MANIFEST: &str = "manifest.json";

/// Makes the attacks, verifies each of them, and shows a table.
pub(super) fn run(args: &DemoArgs) -> Result<Exit, Failure> {
    let keep = Keep::new(args.keep.as_deref())?;
    let scene = Scene::set().or_exit(Exit::Internal)?;
    write(&scene, &keep.dir)
        .with_context(|| format!("write attacks to {}", keep.dir.display()))
        .or_exit(Exit::CannotCreate)?;
    say(&format!(
        "\nA trail of {} records, signed by a host and cosigned by a witness, and {} copies of it \
         that somebody changed.\nWhat `sandtrace verify` answers: 0 valid, 1 tampered, \
         2 incomplete, 3 untrusted, 4 malformed.\n",
        scene.trail.events.len(),
        ATTACKS.len().saturating_sub(2)
    ))?;
    say(&format!(
        "{:<30}{:>5}{:>7}  {}",
        "attack", "alone", "--key", "with more, and what catches it"
    ))?;
    let mut exit = Exit::Success;
    for attack in ATTACKS {
        let answers = answers(attack, &scene, &keep.dir)?;
        say(&row(attack, &answers))?;
        if !is_as_expected(attack, &answers) {
            exit = Exit::Internal;
        }
    }
    say(&format!(
        "\nWhat a file cannot say of itself: whose key signed it (--key), that it is the newest copy \
         (--min-size, or\nthe checkpoint beside it), and that its host did not write another \
         history (--witness-policy).\nEvery file is in {}; {MANIFEST} says what each must get.",
        keep.dir.display()
    ))?;
    match exit {
        Exit::Success => Ok(exit),
        _ => Err(Failure::new(
            exit,
            "an attack got another answer than it must get",
        )),
    }
}

fn write(scene: &Scene, directory: &Path) -> Result<()> {
    let key = scene.host.host.verifier();
    fs::write(directory.join(KEY), format!("{key}\n"))?;
    fs::write(directory.join(WITNESSES), scene.witness_policy()?)?;
    let mut manifest = Vec::new();
    for attack in ATTACKS {
        let own = directory.join(attack.name);
        fs::create_dir_all(&own)?;
        let files = (attack.make)(scene).with_context(|| format!("make {}", attack.name))?;
        for (name, bytes) in files {
            fs::write(own.join(name), bytes)?;
        }
        for check in attack.checks {
            manifest.push(json!({
                "attack": attack.name,
                "trail": format!("{}/{TRAIL}", attack.name),
                "options": options(check, scene),
                "exit_code": check.exit.code(),
                "caught_by": attack.caught_by,
            }));
        }
    }
    let manifest = serde_json::to_string_pretty(&manifest)?;
    fs::write(directory.join(MANIFEST), manifest + "\n")?;
    Ok(())
}

/// As they stand on a command line, from within the directory.
fn options(check: &Check, scene: &Scene) -> Vec<String> {
    let size = scene.trail.events.len().to_string();
    let options = check.known.iter().flat_map(|known| match known {
        Known::Key => vec!["--key", KEY],
        Known::MinSize => vec!["--min-size", &size],
        Known::Witnesses => vec!["--witness-policy", WITNESSES],
        Known::Live => vec!["--live"],
        Known::ChainOnly => vec!["--level", "0"],
    });
    options.map(str::to_owned).collect()
}

fn answers(attack: &Attack, scene: &Scene, directory: &Path) -> Result<Vec<Exit>, Failure> {
    let checks = attack.checks.iter();
    checks
        .map(|check| {
            let mut args = VerifyArgs {
                trail: directory.join(attack.name).join(TRAIL),
                ..VerifyArgs::default()
            };
            for known in check.known {
                match known {
                    Known::Key => args.key.push(scene.host.host.verifier().to_string()),
                    Known::MinSize => {
                        args.min_size = u64::try_from(scene.trail.events.len()).ok();
                    }
                    Known::Witnesses => args.witness_policy = Some(directory.join(WITNESSES)),
                    Known::Live => args.live = true,
                    Known::ChainOnly => args.level = Some(0),
                }
            }
            verify::quietly(&args)
        })
        .collect()
}

fn is_as_expected(attack: &Attack, answers: &[Exit]) -> bool {
    let expected = attack.checks.iter().map(|check| check.exit);
    expected.eq(answers.iter().copied())
}

fn row(attack: &Attack, answers: &[Exit]) -> String {
    let mut columns = [String::new(), String::new()];
    let mut more = Vec::new();
    for (check, answer) in attack.checks.iter().zip(answers) {
        let wrong = if check.exit == *answer { "" } else { "!" };
        let code = format!("{wrong}{}", answer.code());
        let [alone, key] = &mut columns;
        match check.known {
            [] => *alone = code,
            [Known::Key] => *key = code,
            known => {
                let names: Vec<_> = known.iter().map(|known| name(*known)).collect();
                more.push(format!("{}: {code}", names.join(" + ")));
            }
        }
    }
    let [alone, key] = columns;
    let caught_by = attack.caught_by;
    let mut row = format!("{:<30}{alone:>5}{key:>7}  {caught_by}", attack.name);
    if !more.is_empty() {
        row = format!("{row}\n{:44}({})", "", more.join(", "));
    }
    row
}

fn name(known: Known) -> &'static str {
    match known {
        Known::Key => "key",
        Known::MinSize => "size",
        Known::Witnesses => "witness",
        Known::Live => "live",
        Known::ChainOnly => "level 0",
    }
}
