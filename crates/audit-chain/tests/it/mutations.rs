//! Random values and random damage: the fast verifier and the naive one agree.

use crate::attacks::{class, outcome};
use crate::naive::{self, Class, only_safe_integers};
use crate::sample::{lines, trail};
use proptest::prelude::*;
use sandtrace_audit_chain::Outcome;
use sandtrace_audit_chain::jcs::{check, to_vec};
use serde_json::Value;
use std::sync::LazyLock;

static TRAIL: LazyLock<Vec<u8>> = LazyLock::new(|| trail("trace-001"));

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-9_007_199_254_740_991..=9_007_199_254_740_991_i64).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        "[\\x00-\\x22\\\\]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            // Below U+D800 the order of code points is that of code units.
            prop::collection::btree_map("[\\x00-\\u{d7ff}]{0,4}", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// What an attacker (or a disk) does to a trail.
#[derive(Clone, Debug)]
enum Damage {
    Set(usize, u8),
    Insert(usize, u8),
    Remove(usize, usize),
    CopyLine(usize, usize),
    RemoveLine(usize),
    SwapLines(usize, usize),
    Cut(usize),
    CopyBytes(usize, usize, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let byte = prop_oneof![
        any::<u8>(),
        prop::sample::select(b"\"\\{}[]:,\n 0123456789abcdef-.eu".to_vec())
    ];
    let place = any::<prop::sample::Index>().prop_map(|index| index.index(TRAIL.len()));
    let line = 0..12_usize;
    prop_oneof![
        4 => (place.clone(), byte.clone()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        4 => (place.clone(), byte).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        2 => (place.clone(), 1..80_usize).prop_map(|(at, count)| Damage::Remove(at, count)),
        1 => (line.clone(), line.clone()).prop_map(|(from, to)| Damage::CopyLine(from, to)),
        1 => line.clone().prop_map(Damage::RemoveLine),
        1 => (line.clone(), line).prop_map(|(a, b)| Damage::SwapLines(a, b)),
        1 => place.clone().prop_map(Damage::Cut),
        1 => (place.clone(), 1..200_usize, place).prop_map(|(a, b, c)| Damage::CopyBytes(a, b, c)),
    ]
}

fn apply(trail: &mut Vec<u8>, damage: &Damage) {
    let length = trail.len();
    if length == 0 {
        return;
    }
    let mut all = lines(trail);
    let of = |line: usize, all: &[Vec<u8>]| line % all.len();
    match *damage {
        Damage::Set(at, byte) => trail[at % length] = byte,
        Damage::Insert(at, byte) => trail.insert(at % length, byte),
        Damage::Remove(at, count) => {
            drop(trail.drain(at % length..length.min(at % length + count)));
        }
        Damage::CopyLine(from, to) => {
            let copy = all[of(from, &all)].clone();
            let to = of(to, &all);
            all.insert(to, copy);
            *trail = all.concat();
        }
        Damage::RemoveLine(line) => {
            all.remove(of(line, &all));
            *trail = all.concat();
        }
        Damage::SwapLines(a, b) => {
            let (a, b) = (of(a, &all), of(b, &all));
            all.swap(a, b);
            *trail = all.concat();
        }
        Damage::Cut(at) => trail.truncate(at % length),
        Damage::CopyBytes(from, count, to) => {
            let copy = trail[from % length..length.min(from % length + count)].to_vec();
            let to = to % length;
            trail.splice(to..to, copy);
        }
    }
}

/// Gives every line the right hash again, as an attacker would who edits a
/// trail and recomputes the chain, but not the links of `break_link`.
fn rehash(trail: &[u8]) -> Vec<u8> {
    use sha2::{Digest as _, Sha256};
    let mut previous: Option<String> = None;
    let mut out = Vec::new();
    for line in lines(trail) {
        let Ok(mut event) = serde_json::from_slice::<Value>(&line) else {
            out.extend(line);
            continue;
        };
        let Some(map) = event.as_object_mut() else {
            out.extend(line);
            continue;
        };
        map.remove("record_hash");
        map.insert("prev_hash".to_owned(), previous.clone().into());
        let mut hasher = Sha256::new();
        hasher.update(serde_json::to_vec(map).unwrap());
        hasher.update(previous.unwrap_or_default());
        let hex: String = hasher
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let hash = format!("sha256:{hex}");
        map.insert("record_hash".to_owned(), hash.clone().into());
        out.extend(serde_json::to_vec(&event).unwrap());
        out.push(b'\n');
        previous = Some(hash);
    }
    out
}

/// The two agree on the class and the line. Of a partial last line serde_json
/// cannot say whether its beginning is canonical; there both must only refuse.
#[track_caller]
fn agree(trail: &[u8]) {
    let fast = outcome(trail);
    let (slow, line) = naive::verify(trail);
    let is_partial = trail.last().is_some_and(|&byte| byte != b'\n');
    let last_line = lines(trail).len();
    if is_partial && line == last_line {
        assert!(!matches!(class(&fast), Class::Intact | Class::Empty));
        return;
    }
    assert_eq!(class(&fast), slow, "{fast:?}");
    if let Outcome::Tampered(fault) | Outcome::Malformed(fault) = &fast {
        assert_eq!(fault.line, u64::try_from(line).unwrap(), "{fast:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn canonical_form_is_that_of_sorted_maps(value in json()) {
        let canonical = to_vec(&value).unwrap();
        prop_assert_eq!(&canonical, &serde_json::to_vec(&value).unwrap());
        prop_assert_eq!(check(&canonical), Ok(()));
    }

    #[test]
    fn what_is_accepted_is_what_would_be_written(value in json(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = to_vec(&value).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let parsed: Option<Value> = serde_json::from_slice(&bytes).ok();
        let canonical = parsed.is_some_and(|parsed| {
            only_safe_integers(&parsed, 1) && to_vec(&parsed).as_ref() == Ok(&bytes)
        });
        prop_assert_eq!(check(&bytes).is_ok(), canonical);
    }

    #[test]
    fn any_bytes_are_checked_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = check(&bytes);
        prop_assert_ne!(class(&outcome(&bytes)), Class::Intact);
    }

    #[test]
    fn both_verifiers_agree_on_damaged_trails(damages in prop::collection::vec(damage(), 1..4)) {
        let mut trail = TRAIL.clone();
        for damage in &damages {
            apply(&mut trail, damage);
        }
        agree(&trail);
    }

    #[test]
    fn both_verifiers_agree_on_recomputed_chains(damages in prop::collection::vec(damage(), 1..3)) {
        let mut trail = TRAIL.clone();
        for damage in &damages {
            apply(&mut trail, damage);
        }
        agree(&rehash(&trail));
    }
}
