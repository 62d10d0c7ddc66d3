//! The published schema of the settings file and the program agree: on every
//! key, on its type, its default and the values that it takes.

use crate::schema::{fits, place_of};
use crate::settings::{bare, check, setting};
use crate::support::{Dir, finish};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");

const POLICY: &str = include_str!("../../../../policies/persist.yaml");

fn schema() -> Value {
    let printed = finish(bare(&["config", "schema"])).expect(0).quiet().stdout;
    serde_json::from_str(&printed).unwrap()
}

/// What the schema says of each key.
fn keys(schema: &Value) -> BTreeMap<(String, String), Value> {
    let mut keys = BTreeMap::new();
    for (section, of_section) in schema["properties"].as_object().unwrap() {
        for (name, said) in of_section["properties"].as_object().unwrap() {
            keys.insert((section.clone(), name.clone()), said.clone());
        }
    }
    keys
}

/// Whether the program takes this file. Where it does not, it says the place.
#[track_caller]
fn taken(dir: &Dir, text: &str) -> bool {
    let file = dir.file("config.toml", text);
    let ran = check(&file, &[]);
    let place = ran.stderr.contains("config.toml:2:") || ran.stderr.contains("config.toml:1:");
    assert!(!place || ran.code == 78, "{text}: {ran:?}");
    !place
}

#[test]
fn the_schema_is_published() {
    let printed = finish(bare(&["config", "schema"])).expect(0).quiet().stdout;
    let path = place_of("settings");
    if std::env::var_os("SANDTRACE_BLESS").is_some() {
        std::fs::write(path, printed).unwrap();
        return;
    }
    let published = std::fs::read_to_string(path).unwrap();
    assert_eq!(published, printed, "SANDTRACE_BLESS=1 writes it again");
}

#[test]
fn the_documented_example_is_taken() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (_, example) = page.split_once("```toml\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let dir = Dir::new();
    dir.file("policy.yaml", POLICY);
    let file = dir.file("config.toml", example);
    check(&file, &[]).expect(0);
    let (schema, value) = (schema(), toml::from_str::<Value>(example).unwrap());
    assert_eq!(fits(&value, &schema, &schema, "settings"), Ok(()));
}

/// The program names the keys that it knows where it is given another one.
#[test]
fn every_key_of_the_program_is_in_the_schema_and_no_other() {
    let (dir, schema) = (Dir::new(), schema());
    let known = |text: &str| -> BTreeSet<String> {
        let ran = check(&dir.file("config.toml", text), &[]).expect(78);
        let (_, known) = ran.stderr.split_once("expected").unwrap();
        let names = known.split('`').skip(1).step_by(2);
        names.map(str::to_owned).collect()
    };
    let sections = schema["properties"].as_object().unwrap();
    let of = |members: &Value| members.as_object().unwrap().keys().cloned().collect();
    let expected: BTreeSet<String> = of(&schema["properties"]);
    assert_eq!(known("[none]\n"), expected);
    let unknown = json!({"none": {}});
    assert!(fits(&unknown, &schema, &schema, "settings").is_err());
    for (section, members) in sections {
        let expected: BTreeSet<String> = of(&members["properties"]);
        assert_eq!(known(&format!("[{section}]\nnone = 1\n")), expected);
        let unknown = json!({section: {"none": 1}});
        assert!(fits(&unknown, &schema, &schema, "settings").is_err());
    }
}

/// As the program takes them where nobody says anything.
#[test]
fn defaults_of_the_schema_are_the_programs() {
    let (dir, schema) = (Dir::new(), schema());
    let said = check(&dir.file("config.toml", ""), &[]).expect(0).stdout;
    for ((section, name), described) in keys(&schema) {
        let key = format!("{section}.{name}");
        let (value, source) = setting(&said, &key);
        // An evidence file's length counts where there are such files.
        if key == "watch.max_size" {
            continue;
        }
        let default = match &described["default"] {
            Value::Null => continue,
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        assert_eq!((value, &*source), (default, "default"), "{key}");
    }
    let evidence = "[watch]\nevidence_pcap = \"frames\"\n";
    let said = check(&dir.file("config.toml", evidence), &[])
        .expect(0)
        .stdout;
    let default = &schema["properties"]["watch"]["properties"]["max_size"]["default"];
    assert_eq!(*default, setting(&said, "watch.max_size").0);
}

/// Values of every type, and words that only one key takes.
fn values(schema: &Value) -> Vec<Value> {
    let words = [
        "",
        "-",
        "0",
        "0s",
        "2s",
        "1.5s",
        "1h 30m",
        "soon",
        "2 fortnights",
        "1.s",
        "64K",
        "1G",
        "0M",
        "1KM",
        "10.0.0.1",
        "http://w:1",
    ];
    let strings = words.map(Value::from);
    let lists = ["x", "-", "10.0.0.1", "http://w:1"].map(|word| json!([word]));
    let others = [
        json!(true),
        json!(0),
        json!(7),
        json!(-1),
        json!(1.5),
        json!([]),
        json!([7]),
        json!({}),
    ];
    let mut all = [&lists[..], &others, &strings].concat();
    for described in keys(schema).values() {
        for choice in [&described["enum"], &described["items"]["enum"]] {
            let first = choice.as_array().into_iter().flatten().take(1);
            all.extend(first.flat_map(|word| [word.clone(), json!([word])]));
        }
    }
    all
}

/// Addresses have more to them than a schema says.
const ADDRESSES: [&str; 3] = ["resolvers", "witness", "targets"];

#[test]
fn the_schema_allows_what_the_program_takes() {
    let (dir, schema) = (Dir::new(), schema());
    let values = values(&schema);
    for (section, name) in keys(&schema).keys() {
        for value in &values {
            let settings = json!({section: {name: value}});
            let allowed = fits(&settings, &schema, &schema, "settings");
            let toml = match value {
                Value::Object(_) => "{}".to_owned(),
                other => other.to_string(),
            };
            let taken = taken(&dir, &format!("[{section}]\n{name} = {toml}\n"));
            let may_differ = ADDRESSES.contains(&&**name) && !taken;
            assert!(
                may_differ || allowed.is_ok() == taken,
                "{name} = {toml}: {allowed:?}, taken: {taken}"
            );
        }
    }
}
