//! Every way to cheat: what is done to the files of a trail, what an auditor
//! knows of it from elsewhere, and what `verify` must then answer.

use super::scene::Scene;
use super::{forgeries, spellings};
use crate::exit::Exit;
use anyhow::Result;

/// Files by their names.
pub(super) type Files = Vec<(String, Vec<u8>)>;

/// The trail's first file in each of them.
pub(super) const TRAIL: &str = "trace.jsonl";

/// One way to cheat.
pub(super) struct Attack {
    pub(super) name: &'static str,
    pub(super) make: fn(&Scene) -> Result<Files>,
    pub(super) checks: &'static [Check],
    /// In few words.
    pub(super) caught_by: &'static str,
}

/// What is known, and the answer that it leads to.
pub(super) struct Check {
    pub(super) known: &'static [Known],
    pub(super) exit: Exit,
}

/// What an auditor has from elsewhere, or asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// The host's public key.
    Key,
    /// How many records the trail had when it was seen.
    MinSize,
    /// Whose cosignatures count.
    Witnesses,
    /// The trail may still grow.
    Live,
    /// An intact chain is enough.
    ChainOnly,
}

use Exit::{Incomplete, Malformed, Success, Tampered, Untrusted};
use Known::{ChainOnly, Key, Live, MinSize, Witnesses};

const fn check(known: &'static [Known], exit: Exit) -> Check {
    Check { known, exit }
}

/// Found by whoever has nothing but the file.
const TAMPERED: &[Check] = &[check(&[], Tampered), check(&[Key], Tampered)];
const MALFORMED: &[Check] = &[check(&[], Malformed), check(&[Key], Malformed)];
const INCOMPLETE: &[Check] = &[check(&[], Incomplete), check(&[Key], Incomplete)];
/// Found by whoever knows the host's key.
const NEEDS_KEY: &[Check] = &[check(&[], Success), check(&[Key], Untrusted)];

macro_rules! attacks {
    ($($name:literal: $make:expr, $checks:expr, $caught_by:literal;)*) => {
        &[$(Attack { name: $name, make: $make, checks: $checks, caught_by: $caught_by },)*]
    };
}

pub(super) const ATTACKS: &[Attack] = attacks![
    "untouched": forgeries::untouched,
        &[check(&[], Success), check(&[Key, MinSize], Success), check(&[Key, Witnesses], Success)],
        "nothing, as it should be";
    "untouched-segments": forgeries::untouched_segments,
        &[check(&[], Success), check(&[Key, Witnesses], Success)],
        "nothing, as it should be";

    "edited-field": spellings::edited_field, TAMPERED, "the record's hash";
    "edited-verdict": spellings::edited_verdict, TAMPERED, "the record's hash";
    "edited-identity": spellings::edited_identity, TAMPERED, "the record's hash";
    "deleted": spellings::deleted, TAMPERED, "the chain";
    "inserted": spellings::inserted, TAMPERED, "the chain";
    "swapped": spellings::swapped, TAMPERED, "the chain";
    "duplicated": spellings::duplicated, TAMPERED, "the chain";
    "beginning-removed": spellings::beginning_removed, TAMPERED, "the chain";
    "record-of-another-trail": spellings::record_of_another_trail, TAMPERED, "the chain";
    "two-trails-concatenated": spellings::concatenated, TAMPERED, "the record numbers";
    "appended-after-the-seal": forgeries::appended_after_seal, TAMPERED, "the seal";
    "seq-reset": forgeries::seq_reset, TAMPERED, "the record numbers";

    "cut-at-a-line": spellings::cut_at_line,
        &[check(&[], Incomplete), check(&[Live], Success), check(&[Live, MinSize], Incomplete)],
        "the missing end; of a live trail, a size seen before";
    "cut-inside-a-line": spellings::cut_in_line,
        &[check(&[], Incomplete), check(&[Live], Success), check(&[Live, MinSize], Incomplete)],
        "the missing end; of a live trail, a size seen before";
    "seal-removed": spellings::seal_removed, INCOMPLETE, "the missing seal";
    "end-removed": spellings::end_removed, INCOMPLETE, "the missing end";
    "emptied": spellings::emptied, INCOMPLETE, "an empty trail is never valid";
    "rolled-back": forgeries::rolled_back,
        &[check(&[Live], Incomplete), check(&[Live, Key], Incomplete), check(&[], Incomplete)],
        "the newer checkpoint beside it";
    "rolled-back-as-a-whole": forgeries::rolled_back_as_a_whole,
        &[
            check(&[], Incomplete),
            check(&[Live], Success),
            check(&[Live, Key], Success),
            check(&[Live, Key, MinSize], Incomplete),
            check(&[Live, Key, Witnesses], Untrusted),
        ],
        "a size seen before, or a witness";
    "segment-missing": forgeries::segment_missing, INCOMPLETE, "the end of the segment before";
    "last-segment-missing": forgeries::last_segment_missing, INCOMPLETE,
        "the end of the segment before";
    "segments-swapped": forgeries::segments_swapped, TAMPERED, "the chain";

    "chain-recomputed": forgeries::chain_recomputed, TAMPERED, "the next checkpoint";
    "tail-recomputed": forgeries::tail_recomputed, TAMPERED, "the seal";
    "checkpoint-of-another-trail": forgeries::foreign_checkpoint, TAMPERED, "the origin in it";
    "older-checkpoint-repeated": forgeries::older_checkpoint, TAMPERED, "the size in it";
    "foreign-checkpoint-beside": forgeries::foreign_checkpoint_beside, TAMPERED,
        "the origin in it";
    "checkpoint-beside-damaged": forgeries::damaged_checkpoint_beside, MALFORMED,
        "the form of a note";
    "key-rotation-forged": forgeries::rotation_forged, TAMPERED, "the certificate";
    "certificate-swapped": forgeries::certificate_swapped, TAMPERED, "the certificate";
    "signatures-stripped": forgeries::stripped,
        &[
            check(&[], Untrusted),
            check(&[Key], Untrusted),
            check(&[ChainOnly], Success),
            check(&[ChainOnly, Key], Untrusted),
        ],
        "the level asked for, or a pinned key";
    "signatures-stripped-in-part": forgeries::stripped_beside,
        &[check(&[], Tampered), check(&[ChainOnly], Tampered)],
        "the checkpoint beside it";
    "signed-by-another-key": forgeries::resigned, NEEDS_KEY, "a pinned key";
    "signed-by-a-namesake": forgeries::resigned_by_namesake, NEEDS_KEY, "a pinned key";
    "session-forged": forgeries::session_forged, NEEDS_KEY, "a pinned key";
    "cosignature-forged": forgeries::cosignature_forged,
        &[
            check(&[], Success),
            check(&[Key], Success),
            check(&[Key, Witnesses], Tampered),
        ],
        "the witness's key";
    "cosignature-by-nobody": forgeries::cosignature_by_nobody,
        &[check(&[Key], Success), check(&[Key, Witnesses], Untrusted)],
        "the witness's key";
    "cosignature-of-another-trail": forgeries::cosignature_of_another_trail, TAMPERED,
        "the checkpoint that it is of";
    "rewritten-by-the-host": forgeries::rewritten_by_host,
        &[
            check(&[], Success),
            check(&[Key], Success),
            check(&[Key, MinSize], Success),
            check(&[Key, Witnesses], Untrusted),
        ],
        "a witness, and nothing else";

    "duplicate-member": spellings::duplicate_member, MALFORMED, "canonical form";
    "number-respelled": spellings::number_respelled, MALFORMED, "canonical form";
    "text-re-escaped": spellings::text_re_escaped, MALFORMED, "canonical form";
    "white-space": spellings::white_space, MALFORMED, "canonical form";
    "crlf": spellings::crlf, MALFORMED, "canonical form";
    "byte-order-mark": spellings::byte_order_mark, MALFORMED, "canonical form";
    "trailing-garbage": spellings::trailing_garbage, MALFORMED, "canonical form";
    "nul-bytes": spellings::nul_bytes, MALFORMED, "canonical form";
    "nested-deeply": spellings::nested_deeply, MALFORMED, "the bound on depth";
    "long-line": spellings::long_line, MALFORMED, "the bound on a line";
    "no-json": spellings::no_json, MALFORMED, "canonical form";
    "unknown-member": spellings::unknown_member, MALFORMED, "the schema";
];
