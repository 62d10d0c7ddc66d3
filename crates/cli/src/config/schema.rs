//! JSON Schema of the settings file, made from the table of all settings.
//! Published as docs/schema/settings.schema.json.

use super::layer::{Layer, Reload, Setting};
use super::words::{Choice, Size};
use crate::exit::{Exit, Failure, OrExit as _};
use crate::watch::{CaptureMode, SyscallMode};
use crate::witness::WitnessTarget;
use clap::ValueEnum;
use sandtrace_event::{EventType, EvidenceTier, VerdictResult};
use sandtrace_output::Target;
use sandtrace_provider::ProviderKind;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// A time as `humantime` reads it: numbers, each with its unit.
const TIME: &str = concat!(
    r"^(0|\s*([0-9][0-9\s]*(\.\s*[0-9][0-9\s]*)?(nanos|nsec|ns|usec|us|µs|millis|msec|ms",
    "|seconds|second|secs|sec|s|minutes|minute|mins|min|m|hours|hour|hrs|hr|h|days|day|d",
    r"|weeks|week|wks|wk|w|months|month|M|years|year|yrs|yr|y)\s*)+)$"
);

/// Bytes, never zero, with a letter for a power of 1,024.
const SIZE: &str = "^0*[1-9][0-9]*[KMGT]?$";

/// `sandtrace config schema`.
pub(crate) fn print() -> Result<Exit, Failure> {
    let text = format!("{:#}\n", document());
    let printed = std::io::stdout().lock().write_all(text.as_bytes());
    printed.or_exit(Exit::Io)?;
    Ok(Exit::Success)
}

/// The whole of it.
fn document() -> Value {
    let mut sections: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for setting in Layer::ALL {
        let (section, name) = setting.key.split_once('.').unwrap_or(("", setting.key));
        let members = sections.entry(section).or_default();
        members.insert(name.to_owned(), described(setting));
    }
    let sections = sections.into_iter();
    let sections = sections.map(|(name, members)| {
        let section = json!({
            "type": "object", "additionalProperties": false, "properties": members,
        });
        (name.to_owned(), section)
    });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of Sandtrace (/etc/sandtrace/config.toml)",
        "type": "object",
        "additionalProperties": false,
        "properties": sections.collect::<Map<_, _>>(),
    })
}

fn described(setting: &Setting) -> Value {
    let again = match setting.reload {
        Reload::Again => "Read again on SIGHUP.",
        Reload::Restart => "A change needs a restart.",
    };
    let about = format!("{} {again} Variable: {}", setting.about, setting.variable);
    let mut schema = (setting.schema)();
    if let Some(members) = schema.as_object_mut() {
        members.insert("description".to_owned(), about.into());
        // Numbers and truth values are themselves in JSON, the rest are strings.
        let as_json = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| text.into());
        let default = setting.default.map(as_json);
        members.extend(default.map(|value| ("default".to_owned(), value)));
    }
    schema
}

/// A value of a settings file.
pub(super) trait Written {
    /// What it may be.
    fn schema() -> Value;
}

impl Written for PathBuf {
    fn schema() -> Value {
        json!({"type": "string"})
    }
}

impl Written for bool {
    fn schema() -> Value {
        json!({"type": "boolean"})
    }
}

impl Written for NonZeroUsize {
    fn schema() -> Value {
        json!({"type": "integer", "minimum": 1})
    }
}

impl Written for Duration {
    fn schema() -> Value {
        json!({"type": "string", "pattern": TIME, "examples": ["2s", "1h 30m"]})
    }
}

impl Written for Size {
    fn schema() -> Value {
        json!({"type": "string", "pattern": SIZE, "examples": ["64M", "1G"]})
    }
}

impl Written for CaptureMode {
    fn schema() -> Value {
        choice::<Self>()
    }
}

impl Written for SyscallMode {
    fn schema() -> Value {
        choice::<Self>()
    }
}

impl Written for IpAddr {
    fn schema() -> Value {
        json!({"type": "string", "examples": ["10.0.0.1", "fd00::1"]})
    }
}

impl Written for WitnessTarget {
    fn schema() -> Value {
        json!({"type": "string", "examples": ["http://witness.example:7380"]})
    }
}

impl Written for Target {
    fn schema() -> Value {
        json!({"type": "string", "examples": ["-", "events.jsonl", "unix:///run/collector.sock"]})
    }
}

impl Written for ProviderKind {
    fn schema() -> Value {
        words(Self::DISCOVERED.map(Self::as_str))
    }
}

impl Written for EventType {
    fn schema() -> Value {
        words(Self::ALL.iter().map(|kind| kind.as_str()))
    }
}

impl Written for EvidenceTier {
    fn schema() -> Value {
        words(Self::ALL.map(Self::as_str))
    }
}

impl Written for VerdictResult {
    fn schema() -> Value {
        words(Self::ALL.map(Self::as_str))
    }
}

impl<T: Written> Written for Vec<T> {
    fn schema() -> Value {
        json!({"type": "array", "items": T::schema()})
    }
}

fn words<'a>(words: impl IntoIterator<Item = &'a str>) -> Value {
    json!({"enum": words.into_iter().collect::<Vec<_>>()})
}

fn choice<T: Choice>() -> Value {
    let variants = T::value_variants().iter();
    let known: Vec<_> = variants.filter_map(ValueEnum::to_possible_value).collect();
    words(known.iter().map(clap::builder::PossibleValue::get_name))
}
