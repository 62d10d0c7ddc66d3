//! Lists, strings, numbers and words.

use crate::error::{Problem, Problems};
use crate::manifest::Word;
use crate::suggest;
use crate::yaml::{Node, Value};
use std::ops::RangeInclusive;

/// The items of a list that must not be empty.
pub(crate) fn list<'a>(node: &'a Node, what: &str, problems: &mut Problems) -> &'a [Node] {
    match &node.value {
        Value::List(items) if items.is_empty() => {
            problems.push(
                Problem::new(node.at, format!("{what} is an empty list"))
                    .suggest("add an item or remove the key"),
            );
            &[]
        }
        Value::List(items) => items,
        _ => {
            let message = format!("{what} must be a list, not {}", node.kind());
            problems.push(Problem::new(node.at, message).suggest("begin each item with `- `"));
            &[]
        }
    }
}

/// A scalar that no reader of YAML takes for anything but a string.
pub(crate) fn string<'a>(node: &'a Node, what: &str) -> Result<&'a str, Problem> {
    match &node.value {
        Value::Scalar { text, .. } if node.kind() == "a string" => Ok(text),
        value => {
            let message = format!("{what} must be a string, not {}", node.kind());
            let problem = Problem::new(node.at, message);
            Err(match value {
                Value::Scalar { text, .. } if !text.is_empty() => {
                    problem.suggest(format!("write {text:?} in quotes"))
                }
                _ => problem,
            })
        }
    }
}

pub(crate) fn word<T: Word>(node: &Node, what: &str) -> Result<T, Problem> {
    let text = string(node, what)?;
    if let Some((_, value)) = T::ALL.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let known: Vec<_> = T::ALL.iter().map(|(word, _)| *word).collect();
    let message = format!("{what} cannot be {text:?}");
    Err(Problem::new(node.at, message).suggest(suggest::among(text, &known)))
}

/// A whole number in decimal digits.
pub(crate) fn number(node: &Node, what: &str, range: RangeInclusive<u64>) -> Result<u64, Problem> {
    let text = match &node.value {
        Value::Scalar {
            text,
            quoted: false,
        } => text,
        Value::Scalar { text, .. } if text.parse::<u64>().is_ok() => {
            let problem = Problem::new(node.at, format!("{what} must be a number, not a string"));
            return Err(problem.suggest(format!("write {text} without quotes")));
        }
        _ => {
            let message = format!("{what} must be a number, not {}", node.kind());
            return Err(Problem::new(node.at, message));
        }
    };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits {
        let problem = Problem::new(
            node.at,
            format!("{what} must be a whole number, not {text:?}"),
        );
        return Err(problem.suggest("digits alone, without a sign, a point or a unit"));
    }
    match text.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => {
            let problem = Problem::new(node.at, format!("{what} {text} is out of range"));
            Err(problem.suggest(format!("{} to {}", range.start(), range.end())))
        }
    }
}
