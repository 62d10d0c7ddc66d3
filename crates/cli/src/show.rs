//! What people see: sinks from arguments, safe text, grouped numbers.

use crate::args::ShowArgs;
use crate::exit::{Exit, Failure, OrExit as _};
use sandtrace_output::terminal::{Charset, Look, Text};
use sandtrace_output::{Config, Fanout, Form, Target, WhenBusy};
use std::io::{IsTerminal as _, Write as _, stdout};

/// Opens the outputs that were asked for. Where none of them is standard
/// output, that gets readable lines.
pub(crate) fn sinks(args: &ShowArgs, when_busy: WhenBusy) -> Result<Fanout, Failure> {
    let mut fanout = outputs(args, when_busy)?;
    if !args.output.contains(&Target::Stdout) {
        let config = Config {
            form: Form::Readable(look()),
            when_busy,
        };
        fanout.open(&Target::Stdout, config).or_exit(Exit::Io)?;
    }
    Ok(fanout)
}

/// Opens the outputs that were asked for, and no other.
pub(crate) fn outputs(args: &ShowArgs, when_busy: WhenBusy) -> Result<Fanout, Failure> {
    let mut fanout = Fanout::new(args.filter());
    for target in &args.output {
        let form = match target {
            Target::Stdout if stdout().is_terminal() => Form::AsciiLine,
            _ => Form::Line,
        };
        let config = Config { form, when_busy };
        fanout.open(target, config).or_exit(Exit::CannotCreate)?;
    }
    Ok(fanout)
}

/// Colours and width of standard output, if it is a terminal.
pub(crate) fn look() -> Look {
    let colour = anstream::AutoStream::choice(&stdout()) != anstream::ColorChoice::Never;
    let width = stdout()
        .is_terminal()
        .then(|| rustix::termios::tcgetwinsize(stdout()).ok())
        .flatten()
        .map(|size| usize::from(size.ws_col))
        .filter(|columns| *columns > 0);
    Look { colour, width }
}

/// Text of which somebody else chose the characters, safe for a terminal.
pub(crate) fn escaped(text: &str) -> String {
    Text::new(text.as_bytes(), Charset::Printable).whole()
}

/// Tells people something on standard error. Control characters are shown as
/// escapes; where nobody listens any more, nothing happens.
pub(crate) fn tell(text: &str) {
    let _nobody_listens = writeln!(anstream::stderr(), "{}", tame(text));
}

/// Lines stay lines; nothing else in them steers a terminal.
fn tame(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c != '\n' && c.is_control() {
            safe.extend(c.escape_unicode());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// A number with its thousands set apart: `42,118`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_steers_no_terminal() {
        assert_eq!(
            tame("a\nb \u{1b}[31m\u{9b}2J\r"),
            "a\nb \\u{1b}[31m\\u{9b}2J\\u{d}"
        );
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1000), "1,000");
        assert_eq!(grouped(42_118_000), "42,118,000");
    }
}
