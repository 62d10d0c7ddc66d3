//! "Did you mean": the nearest known word.

/// A suggestion for a word that is none of `known`: the nearest of them, or
/// all of them where none is near.
pub(crate) fn among(word: &str, known: &[&str]) -> String {
    match nearest(word, known) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("use {}", one_of(known)),
    }
}

/// `a`, `a or b`, `a, b or c`.
pub(crate) fn one_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    // A word much longer than any key resembles none of them.
    if word.len() > 64 {
        return None;
    }
    let word = word.to_lowercase();
    let bound = (word.chars().count() / 3).max(1);
    let scored = known.iter().map(|&key| (distance(&word, key), key));
    let (score, key) = scored.min()?;
    (score <= bound).then_some(key)
}

/// Edits that turn one word into the other, where swapping two neighbours
/// counts as one (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut previous = None;
    for (i, from) in a.chars().enumerate() {
        let mut row = vec![i + 1];
        let mut left = None;
        for (j, &to) in b.iter().enumerate() {
            let at = |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX);
            let mut cost = (at(&last, j) + usize::from(from != to))
                .min(at(&last, j + 1) + 1)
                .min(at(&row, j) + 1);
            if previous == Some(to) && left == Some(from) {
                cost = cost.min(at(&before_last, j.wrapping_sub(1)).saturating_add(1));
            }
            row.push(cost);
            left = Some(to);
        }
        before_last = std::mem::replace(&mut last, row);
        previous = Some(from);
    }
    last.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        let table = [
            ("port", "port", 0),
            ("prot", "port", 1),
            ("pots", "port", 2),
            ("", "port", 4),
            ("destination", "destinations", 1),
            ("kitten", "sitting", 3),
        ];
        for (a, b, expected) in table {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn only_near_words_are_suggested() {
        let known = ["host", "cidr", "port"];
        assert_eq!(among("prot", &known), r#"did you mean "port"?"#);
        assert_eq!(among("Hosts", &known), r#"did you mean "host"?"#);
        assert_eq!(among("address", &known), "use host, cidr or port");
    }
}
