//! One step of work: a heading, a command, how long it took.

use anyhow::{Context as _, Result, bail};
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Lines of a failed command's output that are shown.
const TAIL_LINES: usize = 60;
/// How often a silent command is said to be still running.
const SIGN_OF_LIFE: Duration = Duration::from_secs(20);

/// Prints `==> title`, does `work`, prints how long it took.
pub(crate) fn step<T>(title: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("==> {title}");
    let begun = Instant::now();
    let result = work();
    let word = if result.is_ok() { "ok" } else { "FAILED" };
    println!("    {word} in {:.1} s", begun.elapsed().as_secs_f64());
    result
}

/// Runs a command whose output matters only if it fails: then its tail is shown.
pub(crate) fn quiet(command: &mut Command) -> Result<()> {
    let (output, status) = watch(command)?;
    if status.success() {
        return Ok(());
    }
    show_tail(&output);
    bail!("`{}` ended with {status}", spelled(command))
}

/// The same, for a command whose output is read by the caller; with whether
/// it succeeded.
pub(crate) fn collected(command: &mut Command) -> Result<(String, bool)> {
    let (output, status) = watch(command)?;
    if !status.success() {
        show_tail(&output);
    }
    Ok((output.join("\n"), status.success()))
}

fn show_tail(lines: &[String]) {
    let before = lines.len().saturating_sub(TAIL_LINES);
    if before > 0 {
        println!("    … {before} lines before");
    }
    for line in lines.iter().skip(before) {
        println!("    {line}");
    }
}

/// Runs a command that talks to the person directly.
pub(crate) fn streamed(command: &mut Command) -> Result<()> {
    let name = spelled(command);
    let status = command
        .status()
        .with_context(|| format!("running `{name}`"))?;
    if !status.success() {
        bail!("`{name}` ended with {status}");
    }
    Ok(())
}

/// Runs a command, passes its output on as it comes, and returns it too,
/// with whether the command succeeded.
pub(crate) fn teed(command: &mut Command) -> Result<(String, bool)> {
    let name = spelled(command);
    let (reader, writer) = io::pipe().context("making a pipe")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone().context("making a pipe")?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("running `{name}`"))?;
    close_our_ends(command);
    let mut text = String::new();
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.with_context(|| format!("reading the output of `{name}`"))?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        text.push_str(&line);
        text.push('\n');
    }
    let status = child.wait().with_context(|| format!("awaiting `{name}`"))?;
    Ok((text, status.success()))
}

/// Whether a person looks at the output.
pub(crate) fn on_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Collects a command's output line by line, and says now and then that it runs.
fn watch(command: &mut Command) -> Result<(Vec<String>, ExitStatus)> {
    let name = spelled(command);
    let (reader, writer) = io::pipe().context("making a pipe")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone().context("making a pipe")?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("running `{name}`"))?;
    close_our_ends(command);
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let begun = Instant::now();
    let mut lines = Vec::new();
    loop {
        match receiver.recv_timeout(SIGN_OF_LIFE) {
            Ok(line) => lines.push(String::from_utf8_lossy(&line).trim_end().to_owned()),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let last = lines.last().map_or("", String::as_str);
                println!("    {:.0} s … {last}", begun.elapsed().as_secs_f64());
                io::stdout().flush().ok();
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = child.wait().with_context(|| format!("awaiting `{name}`"))?;
    Ok((lines, status))
}

/// Drops the pipe ends that a `Command` keeps, so that its reader sees the end.
fn close_our_ends(command: &mut Command) {
    command.stdout(Stdio::null()).stderr(Stdio::null());
}

/// The command as a person would type it.
pub(crate) fn spelled(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let program = program.file_name().unwrap_or(command.get_program());
    std::iter::once(program)
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_failed_command_is_named() {
        assert!(quiet(&mut shell("echo seen")).is_ok());
        let error = quiet(&mut shell("exit 3")).unwrap_err().to_string();
        assert_eq!(error, "`sh -c exit 3` ended with exit status: 3");
    }

    #[test]
    fn both_streams_are_collected() {
        let (text, ok) = teed(&mut shell("echo out; echo err >&2; exit 1")).unwrap();
        assert_eq!((text.as_str(), ok), ("out\nerr\n", false));
    }
}
