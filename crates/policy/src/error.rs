//! Why a manifest does not load.

use crate::yaml::Mark;
use std::fmt;

/// Errors that are printed before the rest is only counted.
const PRINTED: usize = 20;

/// One error at one place of a manifest.
///
/// Displayed on one line: `policy.yaml:7:5: unknown key "destination" (did
/// you mean "destinations"?)`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}{}", Parenthesised(suggestion.as_deref()))]
pub struct PolicyError {
    /// Name of the file as it was given.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub suggestion: Option<String>,
}

struct Parenthesised<'a>(Option<&'a str>);

impl fmt::Display for Parenthesised<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |text| write!(f, " ({text})"))
    }
}

/// Every error of a manifest in the order of their places; at least one.
///
/// Displayed one a line; beyond 20 the rest is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyErrors(Vec<PolicyError>);

impl PolicyErrors {
    /// The errors.
    #[must_use]
    pub fn as_slice(&self) -> &[PolicyError] {
        &self.0
    }
}

impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().take(PRINTED).enumerate() {
            let newline = if i == 0 { "" } else { "\n" };
            write!(f, "{newline}{error}")?;
        }
        match self.0.len().saturating_sub(PRINTED) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

impl std::error::Error for PolicyErrors {}

/// An error that does not know its file yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) at: Mark,
    pub(crate) message: String,
    pub(crate) suggestion: Option<String>,
}

impl Problem {
    pub(crate) fn new(at: Mark, message: impl Into<String>) -> Self {
        Self {
            at,
            message: message.into(),
            suggestion: None,
        }
    }

    pub(crate) fn suggest(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }
}

/// Collects what is wrong, so that one run shows all of it.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<Problem>);

impl Problems {
    pub(crate) fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    /// Keeps the value, or notes why there is none.
    pub(crate) fn keep<T>(&mut self, result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.push(problem)).ok()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn in_file(mut self, file: &str) -> PolicyErrors {
        self.0.sort_by_key(|problem| problem.at);
        let errors = self.0.into_iter().map(|problem| PolicyError {
            file: file.to_owned(),
            line: problem.at.line,
            column: problem.at.column,
            message: problem.message,
            suggestion: problem.suggestion,
        });
        PolicyErrors(errors.collect())
    }
}
