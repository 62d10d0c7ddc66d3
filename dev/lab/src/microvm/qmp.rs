//! QEMU's control protocol, as far as the lab needs it: one command on a fresh connection.
//!
//! The socket serves one client at a time, so that it is let go at once. Format: QEMU's
//! docs/interop/qmp-spec.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::error::LabError;

/// How long QEMU may take to come up and for each answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest answer, in bytes.
const MAX_LINE: u64 = 64 * 1024;

/// Asks QEMU to do `command` (which takes no arguments) and waits until it is done. `alive` is
/// asked while the socket does not exist yet.
pub(super) fn execute(
    socket: &Path,
    command: &str,
    alive: impl FnMut() -> bool,
) -> Result<(), LabError> {
    let stream = connect(socket, alive).map_err(|error| failed("connect", &error))?;
    converse(&stream, command).map_err(|error| failed(command, &error))
}

fn failed(doing: &str, error: &io::Error) -> LabError {
    LabError::Qmp(format!("{doing}: {error}"))
}

fn connect(socket: &Path, mut alive: impl FnMut() -> bool) -> io::Result<UnixStream> {
    let start = Instant::now();
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return Ok(stream),
            Err(error) if !waits(&error) || start.elapsed() > PATIENCE => return Err(error),
            Err(_) if !alive() => return Err(io::Error::other("QEMU has ended")),
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Not made yet, or made and not listened to yet.
fn waits(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

fn converse(mut stream: &UnixStream, command: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut answers = BufReader::new(stream);
    let greeting = read_object(&mut answers)?;
    if greeting.get("QMP").is_none() {
        return Err(io::Error::other("no greeting"));
    }
    for command in ["qmp_capabilities", command] {
        writeln!(stream, "{}", serde_json::json!({ "execute": command }))?;
        await_return(&mut answers)?;
    }
    Ok(())
}

/// Events may come before the answer.
fn await_return(answers: &mut impl BufRead) -> io::Result<()> {
    loop {
        let answer = read_object(answers)?;
        if answer.get("return").is_some() {
            return Ok(());
        }
        if let Some(error) = answer.get("error") {
            return Err(io::Error::other(error.to_string()));
        }
    }
}

fn read_object(answers: &mut impl BufRead) -> io::Result<Value> {
    let mut line = String::new();
    answers.by_ref().take(MAX_LINE).read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str(&line)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(answers: &str, expected: Result<(), &str>) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(answers.as_bytes()).unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        let found = converse(&ours, "cont").map_err(|error| error.to_string());
        assert_eq!(
            found
                .as_ref()
                .map_err(|error| error.contains(expected.unwrap_err()))
                .copied(),
            expected.map_err(|_| true)
        );
    }

    #[test]
    fn converses() {
        let hello = "{\"QMP\":{}}\r\n{\"return\":{}}\r\n";
        check(
            &format!("{hello}{{\"event\":\"RESUME\"}}\r\n{{\"return\":{{}}}}\r\n"),
            Ok(()),
        );
        check(
            &format!("{hello}{{\"error\":{{\"class\":\"GenericError\"}}}}\r\n"),
            Err("GenericError"),
        );
        check("{\"hello\":1}\r\n", Err("no greeting"));
        check(hello, Err("end of file"));
        check("{\"QMP\":\r\n", Err("EOF"));
    }
}
