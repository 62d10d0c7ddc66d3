//! Every dependency's licence must be one that deny.toml allows.

use super::Finding;
use super::graph::{packages, text};
use serde_json::Value;

/// Evaluates the SPDX expression of every package.
pub(super) fn check(metadata: &Value, allowed: &[String]) -> Vec<Finding> {
    packages(metadata)
        .filter_map(|package| {
            let expression = text(&package["license"]);
            (!holds(expression, allowed)).then(|| {
                let what = match expression {
                    "" => "names no licence".to_owned(),
                    expression => format!("licence `{expression}` is not allowed by deny.toml"),
                };
                Finding::of(text(&package["name"]), what)
            })
        })
        .collect()
}

/// Whether the expression (SPDX 2.3 annex D; `/` as an old way to write OR)
/// can be met with allowed licences alone.
fn holds(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser {
        rest: &words,
        allowed,
    };
    parser.any().is_some_and(|met| met) && parser.rest.is_empty()
}

struct Parser<'a> {
    rest: &'a [&'a str],
    allowed: &'a [String],
}

impl<'a> Parser<'a> {
    /// `all (OR all)*`
    fn any(&mut self) -> Option<bool> {
        let mut met = self.all()?;
        while self.take("OR") {
            met |= self.all()?;
        }
        Some(met)
    }

    /// `one (AND one)*`
    fn all(&mut self) -> Option<bool> {
        let mut met = self.one()?;
        while self.take("AND") {
            met &= self.one()?;
        }
        Some(met)
    }

    /// `( any )`, `ID` or `ID WITH EXCEPTION`
    fn one(&mut self) -> Option<bool> {
        if self.take("(") {
            let met = self.any()?;
            return self.take(")").then_some(met);
        }
        let mut name = self.word()?.to_owned();
        if self.take("WITH") {
            name = format!("{name} WITH {}", self.word()?);
        }
        Some(self.allowed.contains(&name))
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.rest.first() == Some(&word);
        if found {
            self.word();
        }
        found
    }

    fn word(&mut self) -> Option<&'a str> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check_expression(expression: &str, expected: bool) {
        let allowed = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "ISC"];
        let allowed = allowed.map(str::to_owned);
        assert_eq!(holds(expression, &allowed), expected, "{expression}");
    }

    #[test]
    fn expressions() {
        check_expression("MIT", true);
        check_expression("GPL-3.0", false);
        check_expression("MIT/GPL-3.0", true);
        check_expression("GPL-3.0 OR MIT", true);
        check_expression("GPL-3.0 AND MIT", false);
        check_expression("Apache-2.0 AND ISC", true);
        check_expression("Apache-2.0 WITH LLVM-exception", true);
        check_expression("MIT WITH LLVM-exception", false);
        check_expression("(GPL-3.0 OR MIT) AND ISC", true);
        check_expression("GPL-3.0 OR MIT AND MPL-2.0", false);
        check_expression("", false);
        check_expression("MIT OR", false);
        check_expression("(MIT", false);
        check_expression("MIT ISC", false);
    }

    #[test]
    fn a_forbidden_licence_is_found() {
        let metadata = json!({ "packages": [
            { "name": "free", "license": "MIT" },
            { "name": "bound", "license": "AGPL-3.0" },
            { "name": "silent", "license": null },
        ] });
        let found = check(&metadata, &["MIT".to_owned()]);
        assert_eq!(
            found,
            [
                Finding::of("bound", "licence `AGPL-3.0` is not allowed by deny.toml"),
                Finding::of("silent", "names no licence"),
            ]
        );
    }
}
