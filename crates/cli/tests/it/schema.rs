//! What `verify --json` prints is what its published schema says, and a settings
//! file may hold what its schema says. The part of JSON Schema that they use is
//! checked here; a word that this does not know fails the test.

use regex_automata::meta::Regex;
use serde_json::Value;
use std::sync::LazyLock;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| published("verify"));

/// Where a schema is published.
pub(crate) fn place_of(name: &str) -> String {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/schema");
    format!("{docs}/{name}.schema.json")
}

fn published(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(place_of(name)).unwrap()).unwrap()
}

/// The answer is one that the schema allows.
#[track_caller]
pub(crate) fn check(answer: &Value) {
    if let Err(error) = fits(answer, &SCHEMA, &SCHEMA, "answer") {
        panic!("{error}: {answer:#}");
    }
}

/// Whether a value is one that a schema allows, which is a part of `root`.
pub(crate) fn fits(value: &Value, schema: &Value, root: &Value, at: &str) -> Result<(), String> {
    for (word, rule) in schema.as_object().unwrap() {
        let holds = match word.as_str() {
            "$schema" | "$defs" | "title" | "description" | "default" | "examples" => true,
            "$ref" => {
                let place = rule.as_str().unwrap().strip_prefix('#').unwrap();
                return fits(value, root.pointer(place).unwrap(), root, at);
            }
            "type" => match rule {
                Value::Array(types) => types.iter().any(|one| is_of(value, one)),
                one => is_of(value, one),
            },
            "enum" => rule.as_array().unwrap().contains(value),
            "pattern" => value.as_str().is_none_or(|text| {
                let pattern = Regex::new(rule.as_str().unwrap()).unwrap();
                pattern.is_match(text)
            }),
            "minimum" => value
                .as_i64()
                .is_none_or(|number| number >= rule.as_i64().unwrap()),
            "required" => value.as_object().is_none_or(|members| {
                let mut names = rule.as_array().unwrap().iter();
                names.all(|name| members.contains_key(name.as_str().unwrap()))
            }),
            "properties" => {
                for (name, inner) in value.as_object().into_iter().flatten() {
                    if let Some(rule) = rule.get(name) {
                        fits(inner, rule, root, &format!("{at}.{name}"))?;
                    }
                }
                true
            }
            "additionalProperties" => {
                let known = schema.get("properties");
                for (name, inner) in value.as_object().into_iter().flatten() {
                    if known.is_some_and(|known| known.get(name).is_some()) {
                        continue;
                    }
                    if *rule == Value::Bool(false) {
                        return Err(format!("{at}.{name} is not in the schema"));
                    }
                    fits(inner, rule, root, &format!("{at}.{name}"))?;
                }
                true
            }
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    fits(item, rule, root, &format!("{at}[]"))?;
                }
                true
            }
            other => panic!("the schema says {other}, which this test does not know"),
        };
        if !holds {
            return Err(format!("{at} breaks {word}: {rule}"));
        }
    }
    Ok(())
}

fn is_of(value: &Value, kind: &Value) -> bool {
    match kind.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("type {other}"),
    }
}

#[test]
fn the_check_finds_what_does_not_fit() {
    let answer = serde_json::json!({"exit_code": 6});
    assert!(fits(&answer, &SCHEMA, &SCHEMA, "answer").is_err());
}
