//! The keys of a filesystem rule.

use super::fields::Fields;
use super::scalar;
use crate::error::{Problem, Problems};
use crate::manifest::{Access, Action, Files};
use crate::path::PathPattern;
use crate::yaml::Node;
use sandtrace_event::MAX_SAFE_INTEGER;

/// Keys that an allow rule alone can have.
pub(crate) const LIMITS: &[&str] = &["access", "max_file_bytes"];

pub(crate) fn load(
    action: Action,
    fields: &mut Fields<'_>,
    problems: &mut Problems,
) -> Option<Files> {
    let node = fields.required("paths", problems);
    let mut access = Access::default();
    let mut max_file_bytes = None;
    if action == Action::Allow {
        access = fields.word("access", problems).unwrap_or_default();
        max_file_bytes = fields.number("max_file_bytes", 0..=MAX_SAFE_INTEGER, problems);
    }
    let items = scalar::list(node?, "paths", problems);
    let paths: Vec<_> = items
        .iter()
        .filter_map(|node| problems.keep(path(node)))
        .collect();
    (!paths.is_empty()).then_some(Files {
        paths,
        access,
        max_file_bytes,
    })
}

fn path(node: &Node) -> Result<PathPattern, Problem> {
    let text = scalar::string(node, "a path")?;
    PathPattern::parse(text).map_err(|(message, suggestion)| Problem {
        at: node.at,
        message: format!("{message}: {text:?}"),
        suggestion,
    })
}
