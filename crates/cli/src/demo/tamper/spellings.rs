//! Attacks with a text editor: nothing is computed anew.

use super::attacks::{Files, TRAIL};
use super::scene::Scene;
use anyhow::{Context as _, Result, ensure};

/// The record with the denied question, from 0.
const DENIED: usize = 4;

pub(super) fn trail(lines: &[impl AsRef<[u8]>]) -> Files {
    let bytes = lines.iter().flat_map(|line| line.as_ref().iter().copied());
    vec![(TRAIL.to_owned(), bytes.collect())]
}

/// Replaces text in one line, counted from 0.
fn edit(scene: &Scene, place: usize, from: &str, to: &str) -> Result<Files> {
    let mut lines = scene.trail.lines.clone();
    let line = lines.get_mut(place).context("a short trail")?;
    let text = String::from_utf8(line.clone())?;
    ensure!(text.contains(from), "no {from} in line {place}");
    *line = text.replacen(from, to, 1).into_bytes();
    Ok(trail(&lines))
}

fn rearrange(scene: &Scene, change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Files {
    let mut lines = scene.trail.lines.clone();
    change(&mut lines);
    trail(&lines)
}

pub(super) fn edited_field(scene: &Scene) -> Result<Files> {
    edit(scene, DENIED, "paste.example", "pasta.example")
}

pub(super) fn edited_verdict(scene: &Scene) -> Result<Files> {
    edit(scene, DENIED, r#""result":"deny""#, r#""result":"allow""#)
}

pub(super) fn edited_identity(scene: &Scene) -> Result<Files> {
    edit(scene, DENIED, "agent-billing", "agent-testing")
}

pub(super) fn deleted(scene: &Scene) -> Result<Files> {
    Ok(rearrange(scene, |lines| drop(lines.remove(DENIED))))
}

pub(super) fn inserted(scene: &Scene) -> Result<Files> {
    let copy = scene.trail.lines.get(1).context("a short trail")?.clone();
    Ok(rearrange(scene, |lines| lines.insert(8, copy)))
}

pub(super) fn swapped(scene: &Scene) -> Result<Files> {
    Ok(rearrange(scene, |lines| lines.swap(2, 3)))
}

pub(super) fn duplicated(scene: &Scene) -> Result<Files> {
    let copy = scene.trail.lines.get(2).context("a short trail")?.clone();
    Ok(rearrange(scene, |lines| lines.insert(3, copy)))
}

pub(super) fn beginning_removed(scene: &Scene) -> Result<Files> {
    Ok(rearrange(scene, |lines| drop(lines.drain(..6))))
}

pub(super) fn record_of_another_trail(scene: &Scene) -> Result<Files> {
    let other = scene.other.lines.get(2).context("a short trail")?.clone();
    Ok(rearrange(scene, |lines| {
        if let Some(line) = lines.get_mut(2) {
            *line = other;
        }
    }))
}

pub(super) fn concatenated(scene: &Scene) -> Result<Files> {
    let other = scene.other.lines.clone();
    Ok(rearrange(scene, |lines| lines.extend(other)))
}

pub(super) fn cut_at_line(scene: &Scene) -> Result<Files> {
    Ok(rearrange(scene, |lines| lines.truncate(18)))
}

pub(super) fn cut_in_line(scene: &Scene) -> Result<Files> {
    Ok(rearrange(scene, |lines| {
        lines.truncate(18);
        if let Some(last) = lines.last_mut() {
            last.truncate(last.len() / 2);
        }
    }))
}

pub(super) fn seal_removed(scene: &Scene) -> Result<Files> {
    Ok(rearrange(scene, |lines| lines.truncate(19)))
}

pub(super) fn end_removed(scene: &Scene) -> Result<Files> {
    Ok(rearrange(scene, |lines| lines.truncate(17)))
}

pub(super) fn emptied(_: &Scene) -> Result<Files> {
    Ok(trail(&[""]))
}

pub(super) fn duplicate_member(scene: &Scene) -> Result<Files> {
    let twice = r#""name":"paste.example","name":"api.stripe.com""#;
    edit(scene, DENIED, r#""name":"paste.example""#, twice)
}

pub(super) fn number_respelled(scene: &Scene) -> Result<Files> {
    edit(scene, DENIED, r#""latency_us":1000"#, r#""latency_us":1e3"#)
}

pub(super) fn text_re_escaped(scene: &Scene) -> Result<Files> {
    edit(scene, DENIED, "paste.example", r"p\u0061ste.example")
}

pub(super) fn white_space(scene: &Scene) -> Result<Files> {
    edit(scene, DENIED, r#","payload""#, r#", "payload""#)
}

pub(super) fn crlf(scene: &Scene) -> Result<Files> {
    let lines = scene.trail.lines.iter().map(|line| {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        [line, b"\r\n"].concat()
    });
    Ok(trail(&lines.collect::<Vec<_>>()))
}

pub(super) fn byte_order_mark(scene: &Scene) -> Result<Files> {
    Ok(rearrange(scene, |lines| {
        lines.insert(0, "\u{feff}".as_bytes().to_vec());
    }))
}

pub(super) fn trailing_garbage(scene: &Scene) -> Result<Files> {
    Ok(rearrange(scene, |lines| lines.push(b"garbage".to_vec())))
}

pub(super) fn nul_bytes(scene: &Scene) -> Result<Files> {
    edit(scene, DENIED, "paste.example", "paste\0example")
}

pub(super) fn nested_deeply(scene: &Scene) -> Result<Files> {
    let deep = format!(r#""answers":{}{}"#, "[".repeat(5000), "]".repeat(5000));
    let answers = r#""answers":["203.0.113.10"]"#;
    edit(scene, DENIED, answers, &deep)
}

pub(super) fn long_line(scene: &Scene) -> Result<Files> {
    edit(scene, DENIED, "paste.example", &"x".repeat(65_536))
}

pub(super) fn no_json(_: &Scene) -> Result<Files> {
    Ok(trail(&["this is no trail\n"]))
}

pub(super) fn unknown_member(scene: &Scene) -> Result<Files> {
    edit(scene, DENIED, r#","seq":"#, r#","senior":1,"seq":"#)
}
