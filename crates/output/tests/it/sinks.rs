//! Sinks that work, are slow, and fail.

use crate::events::{denied, end};
use sandtrace_event::{AuditEvent, VerdictResult};
use sandtrace_output::terminal::{self, Look};
use sandtrace_output::{
    Config, Fanout, Filter, Form, Record, Report, Sink, SinkError, State, Target, WhenBusy, open,
};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const WAIT: Config = Config {
    form: Form::Line,
    when_busy: WhenBusy::Wait,
};
const DROP: Config = Config {
    form: Form::Line,
    when_busy: WhenBusy::DROP,
};

fn record<'a>(event: &'a AuditEvent, line: &'a [u8]) -> Record<'a> {
    Record { event, line }
}

fn scratch(name: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    (dir, path)
}

#[test]
fn files_get_exact_lines_and_are_private() {
    for config in [WAIT, DROP] {
        let (_dir, path) = scratch("out.jsonl");
        let mut sink = open(&Target::File(path.clone()), config).unwrap();
        let event = denied();
        sink.write(&record(&event, b"{\"a\":1}\n")).unwrap();
        sink.write(&record(&event, b"{\"b\":2}")).unwrap();
        sink.finish().unwrap();
        assert_eq!(sink.dropped(), 0);
        assert_eq!(std::fs::read(&path).unwrap(), b"{\"a\":1}\n{\"b\":2}\n");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn readable_sinks_get_readable_lines() {
    let (_dir, path) = scratch("out.txt");
    let look = Look::default();
    let config = Config {
        form: Form::Readable(look),
        ..WAIT
    };
    let mut sink = open(&Target::File(path.clone()), config).unwrap();
    sink.write(&record(&denied(), b"{}")).unwrap();
    sink.finish().unwrap();
    let expected = format!("{}\n", terminal::line(&denied(), look));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
}

#[test]
fn an_existing_file_is_never_written_to() {
    let (_dir, path) = scratch("trace.jsonl");
    std::fs::write(&path, "evidence\n").unwrap();
    let error = open(&Target::File(path.clone()), WAIT).err().unwrap();
    assert!(matches!(error, SinkError::Exists { .. }), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"evidence\n");
}

#[test]
fn what_cannot_be_opened_says_so() {
    let (dir, path) = scratch("no/such/dir");
    let error = open(&Target::File(path), WAIT).err().unwrap();
    let expected = format!(
        "open output {}: No such file or directory (os error 2)",
        dir.path().join("no/such/dir").display()
    );
    assert_eq!(error.to_string(), expected);
    let socket = Target::Unix(dir.path().join("nobody"));
    assert!(matches!(open(&socket, DROP), Err(SinkError::Open { .. })));
}

#[test]
fn a_full_device_is_an_error_once_and_the_rest_goes_on() {
    let (_dir, path) = scratch("out");
    for config in [WAIT, DROP] {
        let mut fanout = Fanout::new(Filter::default());
        fanout
            .open(&Target::File("/dev/full".into()), config)
            .unwrap();
        let good = path.with_extension(format!("{:?}", config.when_busy).len().to_string());
        fanout.open(&Target::File(good.clone()), WAIT).unwrap();
        let event = denied();
        for _ in 0..3 {
            assert_eq!(fanout.write(&record(&event, b"{}")), State::Open);
            assert_eq!(fanout.flush(), State::Open);
        }
        let reports = fanout.finish();
        assert_eq!(reports[1].dropped, 0);
        assert_eq!(std::fs::read(&good).unwrap(), b"{}\n{}\n{}\n");
        let problems = fanout.take_problems();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].to_string().contains("No space left"),
            "{problems:?}"
        );
        assert!(fanout.take_problems().is_empty());
    }
}

#[test]
fn a_fanout_filters_and_counts() {
    let (_dir, path) = scratch("out");
    let verdicts = vec![VerdictResult::Deny];
    let mut fanout = Fanout::new(Filter {
        verdicts,
        ..Filter::default()
    });
    assert_eq!(fanout.write(&record(&denied(), b"lost")), State::Open);
    fanout.open(&Target::File(path.clone()), WAIT).unwrap();
    fanout.write(&record(&denied(), b"denied"));
    fanout.write(&record(&end(), b"end"));
    let report = Report {
        name: path.display().to_string(),
        dropped: 0,
    };
    assert_eq!(fanout.finish(), [report]);
    assert_eq!(std::fs::read(&path).unwrap(), b"denied\n");
}

/// A sink whose reader went away after `good` events, or that failed.
struct Breaking {
    good: u32,
    quietly: bool,
}

impl Sink for Breaking {
    fn write(&mut self, _: &Record<'_>) -> Result<(), SinkError> {
        match self.good.checked_sub(1) {
            Some(left) => {
                self.good = left;
                Ok(())
            }
            None if self.quietly => Err(SinkError::ReaderGone),
            None => Err(SinkError::Write {
                target: Target::Stdout,
                source: std::io::ErrorKind::StorageFull.into(),
            }),
        }
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn dropped(&self) -> u64 {
        0
    }
}

#[track_caller]
fn check_ends(quietly: &[bool], expected: State, dropped: u64) {
    let mut fanout = Fanout::new(Filter::default());
    for &quietly in quietly {
        fanout.push("s".to_owned(), Box::new(Breaking { good: 1, quietly }));
    }
    let event = denied();
    assert_eq!(fanout.write(&record(&event, b"{}")), State::Open);
    assert_eq!(fanout.write(&record(&event, b"{}")), expected);
    fanout.write(&record(&event, b"{}"));
    fanout.finish();
    assert_eq!(fanout.dropped(), dropped);
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    check_ends(&[true], State::ReaderGone, 0);
    check_ends(&[false], State::Failed, 2);
    check_ends(&[true, false], State::Failed, 2);
}

#[test]
fn a_socket_gets_every_line() {
    for config in [WAIT, DROP] {
        let (_dir, path) = scratch("s");
        let listener = UnixListener::bind(&path).unwrap();
        let mut sink = open(&Target::Unix(path), config).unwrap();
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            listener
                .accept()
                .unwrap()
                .0
                .read_to_string(&mut text)
                .unwrap();
            text
        });
        let event = denied();
        let lines: Vec<String> = (0..2000).map(|n| format!("{{\"n\":{n}}}")).collect();
        for line in &lines {
            sink.write(&record(&event, line.as_bytes())).unwrap();
        }
        sink.finish().unwrap();
        assert_eq!(sink.dropped(), 0);
        drop(sink);
        assert_eq!(reader.join().unwrap().lines().collect::<Vec<_>>(), lines);
    }
}

#[test]
fn a_reader_that_never_reads_costs_lines_but_no_time() {
    let (_dir, path) = scratch("s");
    let listener = UnixListener::bind(&path).unwrap();
    let when_busy = WhenBusy::Drop {
        queue_bytes: 64 << 10,
        patience: Duration::from_millis(100),
    };
    let config = Config { when_busy, ..DROP };
    let mut sink = open(&Target::Unix(path), config).unwrap();
    let (stream, _) = listener.accept().unwrap();
    let event = denied();
    let line = [b'x'; 999];
    let started = Instant::now();
    for _ in 0..5000 {
        sink.write(&record(&event, &line)).unwrap();
    }
    sink.finish().unwrap();
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    let dropped = sink.dropped();
    drop(sink);
    // What the socket's buffer took is all that a late reader gets, in whole
    // lines save the one that hung; each line is delivered or counted.
    let reader = BufReader::new(stream);
    let whole = reader
        .split(b'\n')
        .map_while(Result::ok)
        .filter(|line| line.len() == 999);
    let whole = u64::try_from(whole.count()).unwrap();
    assert!(dropped > 1000, "{dropped}");
    assert!(
        (4999..=5001).contains(&(whole + dropped)),
        "{whole} + {dropped}"
    );
}

#[test]
fn a_socket_that_comes_back_gets_what_waited() {
    let (_dir, path) = scratch("s");
    let listener = UnixListener::bind(&path).unwrap();
    let mut fanout = Fanout::new(Filter::default());
    fanout.open(&Target::Unix(path.clone()), DROP).unwrap();
    drop(listener.accept().unwrap());
    drop(listener);
    std::fs::remove_file(&path).unwrap();
    let event = denied();
    for line in [b"1", b"2", b"3"] {
        fanout.write(&record(&event, line));
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    let warning = loop {
        assert!(Instant::now() < deadline, "no warning");
        if let Some(problem) = fanout.take_problems().pop() {
            break problem;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(
        matches!(warning, SinkError::Unreachable { .. }),
        "{warning}"
    );
    let listener = UnixListener::bind(&path).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    assert_eq!(fanout.finish()[0].dropped, 0);
    drop(fanout);
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "1\n2\n3\n");
}
