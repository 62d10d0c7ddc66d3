//! Hash-chained JSONL trails: canonical encoding, append, verify.
