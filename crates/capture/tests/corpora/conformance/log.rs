//! Zeek's logs: tab-separated, with the names of the fields on the first line
//! or after `#fields`.

use crate::support::frames;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// One line of a log, by field.
pub(super) type Row = HashMap<String, String>;

/// A published log and the capture it was made from.
pub(super) struct Log {
    pub(super) capture: PathBuf,
    pub(super) rows: Vec<Row>,
}

/// Every published log of one kind, in the order of the corpus' index, of
/// captures whose link layer is read.
pub(super) fn logs(corpus: &Path, kind: &str) -> Vec<Log> {
    let index = std::fs::read_to_string(corpus.join("INDEX.tsv")).unwrap();
    let mut found = Vec::new();
    for line in index.lines().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [capture, _, _, test, _, logs] = fields[..] else {
            continue;
        };
        let capture = corpus.join(capture);
        if frames(&capture).is_empty() {
            continue;
        }
        let folder = corpus
            .join("expected")
            .join(capture.file_name().unwrap())
            .join(test);
        for log in logs
            .split(',')
            .filter(|log| log.split('.').next() == Some(kind))
        {
            let text = std::fs::read_to_string(folder.join(log)).unwrap();
            found.push(Log {
                capture: capture.clone(),
                rows: rows(&text),
            });
        }
    }
    found
}

fn rows(text: &str) -> Vec<Row> {
    let mut fields: Vec<&str> = Vec::new();
    let mut rows = Vec::new();
    for line in text.lines() {
        if let Some(names) = line.strip_prefix("#fields\t") {
            fields = names.split('\t').collect();
        } else if line.starts_with('#') || line.trim().is_empty() {
        } else if fields.is_empty() {
            fields = line.split('\t').collect();
        } else {
            let values = line.split('\t').map(str::to_owned);
            rows.push(
                fields
                    .iter()
                    .map(|it| (*it).to_owned())
                    .zip(values)
                    .collect(),
            );
        }
    }
    rows
}

/// A field's value, where it has one.
pub(super) fn value<'a>(row: &'a Row, field: &str) -> Option<&'a str> {
    row.get(field)
        .map(String::as_str)
        .filter(|value| !["-", "(empty)", ""].contains(value))
}

/// A field's number.
pub(super) fn number(row: &Row, field: &str) -> Option<u64> {
    value(row, field)?.parse().ok()
}

/// A number of seconds with six decimals, in microseconds. Tests of Zeek mask some.
pub(super) fn micros(seconds: &str) -> Option<u64> {
    let (whole, part) = seconds.split_once('.')?;
    let micros = part.parse::<u64>().ok().filter(|_| part.len() == 6)?;
    Some(whole.parse::<u64>().ok()? * 1_000_000 + micros)
}
