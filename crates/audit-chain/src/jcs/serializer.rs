//! A serde serializer that writes canonical JSON straight into bytes.

use super::MAX_DEPTH;
use super::text::{compare_keys, write_string};
use sandtrace_event::MAX_SAFE_INTEGER;
use serde::{Serialize, ser};
use std::cmp::Ordering;
use std::fmt::Display;
use std::ops::Range;

/// Why a value has no canonical form here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Floating-point numbers are no part of a trail.
    #[error("floating-point number")]
    Float,
    /// An integer beyond ±(2^53 − 1).
    #[error("integer beyond 2^53 - 1")]
    NumberRange,
    /// A map whose key is not a string.
    #[error("map key that is not a string")]
    KeyNotString,
    /// The same key twice in one object.
    #[error("duplicate key {0}")]
    DuplicateKey(String),
    /// More than [`MAX_DEPTH`] objects and arrays inside of each other.
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// What the value's own `Serialize` said.
    #[error("{0}")]
    Custom(String),
}

impl ser::Error for Error {
    fn custom<T: Display>(message: T) -> Self {
        Self::Custom(message.to_string())
    }
}

/// The canonical form of a value.
///
/// # Errors
/// The value has none; see [`Error`].
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    write(&mut out, value, 0)?;
    Ok(out)
}

/// Appends the canonical form of a value that stands inside of `depth` open
/// objects and arrays. After an error `out` holds a part of it.
pub(crate) fn write<T: Serialize + ?Sized>(
    out: &mut Vec<u8>,
    value: &T,
    depth: usize,
) -> Result<(), Error> {
    value.serialize(&mut Serializer {
        out,
        members: Vec::new(),
        depth,
    })
}

struct Serializer<'o> {
    out: &'o mut Vec<u8>,
    /// Members of all open objects, the innermost last.
    members: Vec<Member>,
    depth: usize,
}

/// Room for the members of most records from the start.
const MEMBERS: usize = 64;

/// Where a member of an object stands in the output.
#[derive(Clone, Copy)]
struct Member {
    start: usize,
    key_end: usize,
}

impl Member {
    /// The key without its quotes.
    fn key(self) -> Range<usize> {
        self.start.saturating_add(1)..self.key_end.saturating_sub(1)
    }
}

impl<'o> Serializer<'o> {
    fn open(&mut self, bracket: u8) -> Result<(), Error> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Error::TooDeep);
        }
        self.out.push(bracket);
        Ok(())
    }

    fn close(&mut self, bracket: u8) {
        self.depth -= 1;
        self.out.push(bracket);
    }

    fn array(&mut self, outer: bool) -> Result<Compound<'_, 'o>, Error> {
        self.open(b'[')?;
        Ok(Compound::new(self, b']', outer))
    }

    fn object(&mut self, outer: bool) -> Result<Compound<'_, 'o>, Error> {
        self.open(b'{')?;
        if self.members.capacity() == 0 {
            self.members.reserve(MEMBERS);
        }
        Ok(Compound::new(self, b'}', outer))
    }

    /// Opens `{"variant":`, the form of an enum that carries something.
    fn tag(&mut self, variant: &str) -> Result<(), Error> {
        self.open(b'{')?;
        write_string(self.out, variant);
        self.out.push(b':');
        Ok(())
    }

    fn written(&self, range: Range<usize>) -> &[u8] {
        self.out.get(range).unwrap_or_default()
    }

    fn integer(&mut self, magnitude: u128, negative: bool) -> Result<(), Error> {
        match u64::try_from(magnitude) {
            Ok(magnitude) => self.magnitude(magnitude, negative),
            Err(_) => Err(Error::NumberRange),
        }
    }

    fn magnitude(&mut self, magnitude: u64, negative: bool) -> Result<(), Error> {
        if magnitude > MAX_SAFE_INTEGER {
            return Err(Error::NumberRange);
        }
        if negative {
            self.out.push(b'-');
        }
        let mut digits = itoa::Buffer::new();
        self.out
            .extend_from_slice(digits.format(magnitude).as_bytes());
        Ok(())
    }
}

macro_rules! signed {
    ($($method:ident: $type:ty,)*) => {
        $(fn $method(self, value: $type) -> Result<(), Error> {
            self.integer(i128::from(value).unsigned_abs(), value < 0)
        })*
    };
}

impl<'s, 'o> ser::Serializer for &'s mut Serializer<'o> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Compound<'s, 'o>;
    type SerializeTuple = Compound<'s, 'o>;
    type SerializeTupleStruct = Compound<'s, 'o>;
    type SerializeTupleVariant = Compound<'s, 'o>;
    type SerializeMap = Compound<'s, 'o>;
    type SerializeStruct = Compound<'s, 'o>;
    type SerializeStructVariant = Compound<'s, 'o>;

    signed! {
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_i128: i128,
    }

    fn serialize_u8(self, value: u8) -> Result<(), Error> {
        self.integer(value.into(), false)
    }

    fn serialize_u16(self, value: u16) -> Result<(), Error> {
        self.integer(value.into(), false)
    }

    fn serialize_u32(self, value: u32) -> Result<(), Error> {
        self.integer(value.into(), false)
    }

    fn serialize_u64(self, value: u64) -> Result<(), Error> {
        self.magnitude(value, false)
    }

    fn serialize_u128(self, value: u128) -> Result<(), Error> {
        self.integer(value, false)
    }

    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        let word: &[u8] = if value { b"true" } else { b"false" };
        self.out.extend_from_slice(word);
        Ok(())
    }

    fn serialize_f32(self, _: f32) -> Result<(), Error> {
        Err(Error::Float)
    }

    fn serialize_f64(self, _: f64) -> Result<(), Error> {
        Err(Error::Float)
    }

    fn serialize_char(self, value: char) -> Result<(), Error> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), Error> {
        write_string(self.out, value);
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.out.extend_from_slice(b"null");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), Error> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.tag(variant)?;
        value.serialize(&mut *self)?;
        self.close(b'}');
        Ok(())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Compound<'s, 'o>, Error> {
        self.array(false)
    }

    fn serialize_tuple(self, _: usize) -> Result<Compound<'s, 'o>, Error> {
        self.array(false)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Compound<'s, 'o>, Error> {
        self.array(false)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Compound<'s, 'o>, Error> {
        self.tag(variant)?;
        self.array(true)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Compound<'s, 'o>, Error> {
        self.object(false)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Compound<'s, 'o>, Error> {
        self.object(false)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Compound<'s, 'o>, Error> {
        self.tag(variant)?;
        self.object(true)
    }
}

/// An array or object that is being written.
struct Compound<'s, 'o> {
    serializer: &'s mut Serializer<'o>,
    bracket: u8,
    /// An enum's `{"variant":` is open around it.
    outer: bool,
    empty: bool,
    sorted: bool,
    /// Its first member on the serializer's stack.
    first: usize,
}

impl<'s, 'o> Compound<'s, 'o> {
    fn new(serializer: &'s mut Serializer<'o>, bracket: u8, outer: bool) -> Self {
        let first = serializer.members.len();
        Self {
            serializer,
            bracket,
            outer,
            empty: true,
            sorted: true,
            first,
        }
    }

    fn comma(&mut self) {
        if !self.empty {
            self.serializer.out.push(b',');
        }
        self.empty = false;
    }

    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.comma();
        value.serialize(&mut *self.serializer)
    }

    fn key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.comma();
        let start = self.serializer.out.len();
        key.serialize(&mut *self.serializer)?;
        let member = Member {
            start,
            key_end: self.serializer.out.len(),
        };
        if self.serializer.out.get(start) != Some(&b'"') {
            return Err(Error::KeyNotString);
        }
        self.note_order(member)?;
        self.serializer.members.push(member);
        self.serializer.out.push(b':');
        Ok(())
    }

    fn note_order(&mut self, member: Member) -> Result<(), Error> {
        let own = self.serializer.members.get(self.first..);
        let Some(&previous) = own.and_then(<[Member]>::last) else {
            return Ok(());
        };
        let key = self.serializer.written(member.key());
        match compare_keys(self.serializer.written(previous.key()), key) {
            Ordering::Less => {}
            Ordering::Equal => return Err(duplicate(key)),
            Ordering::Greater => self.sorted = false,
        }
        Ok(())
    }

    fn sort(&mut self) -> Result<(), Error> {
        let own = self
            .serializer
            .members
            .get(self.first..)
            .unwrap_or_default();
        let Some(body_at) = own.first().map(|member| member.start) else {
            return Ok(());
        };
        let body = self.serializer.out.split_off(body_at);
        let ends = own.iter().skip(1).map(|next| next.start - body_at - 1);
        let part = |range: Range<usize>| body.get(range).unwrap_or_default();
        let mut members: Vec<(&[u8], &[u8])> = own
            .iter()
            .zip(ends.chain([body.len()]))
            .map(|(member, end)| {
                let key = member.key();
                let key = part(key.start - body_at..key.end - body_at);
                (key, part(member.start - body_at..end))
            })
            .collect();
        members.sort_by(|left, right| compare_keys(left.0, right.0));
        let twice = members.windows(2).find_map(|pair| match pair {
            [left, right] if left.0 == right.0 => Some(left.0),
            _ => None,
        });
        if let Some(key) = twice {
            return Err(duplicate(key));
        }
        for (place, (_, member)) in members.iter().enumerate() {
            if place > 0 {
                self.serializer.out.push(b',');
            }
            self.serializer.out.extend_from_slice(member);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), Error> {
        if !self.sorted {
            self.sort()?;
        }
        self.serializer.members.truncate(self.first);
        self.serializer.close(self.bracket);
        if self.outer {
            self.serializer.close(b'}');
        }
        Ok(())
    }
}

fn duplicate(key: &[u8]) -> Error {
    Error::DuplicateKey(String::from_utf8_lossy(key).into_owned())
}

macro_rules! arrays {
    ($($trait:ident::$method:ident,)*) => {
        $(impl ser::$trait for Compound<'_, '_> {
            type Ok = ();
            type Error = Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
                self.element(value)
            }

            fn end(self) -> Result<(), Error> {
                self.finish()
            }
        })*
    };
}

arrays! {
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field,
}

macro_rules! structs {
    ($($trait:ident,)*) => {
        $(impl ser::$trait for Compound<'_, '_> {
            type Ok = ();
            type Error = Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Result<(), Error> {
                self.key(key)?;
                value.serialize(&mut *self.serializer)
            }

            fn end(self) -> Result<(), Error> {
                self.finish()
            }
        })*
    };
}

structs! { SerializeStruct, SerializeStructVariant, }

impl ser::SerializeMap for Compound<'_, '_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        value.serialize(&mut *self.serializer)
    }

    fn end(self) -> Result<(), Error> {
        self.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    #[track_caller]
    fn check<T: Serialize + ?Sized>(value: &T, expected: &str) {
        let written = to_vec(value).map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(written.as_deref(), Ok(expected));
    }

    #[derive(Serialize)]
    struct Unsorted {
        zeta: u8,
        alpha: BTreeMap<&'static str, i64>,
        mid: Kind,
    }

    #[derive(Serialize)]
    enum Kind {
        Unit,
        New(u8),
        Tuple(u8, char),
        Struct { b: (), a: Option<bool> },
    }

    #[test]
    fn members_are_sorted_at_every_level() {
        let value = Unsorted {
            zeta: 0,
            alpha: BTreeMap::from([("é", -1), ("e", i64::from(u32::MAX))]),
            mid: Kind::Struct {
                b: (),
                a: Some(true),
            },
        };
        check(
            &[value],
            r#"[{"alpha":{"e":4294967295,"é":-1},"mid":{"Struct":{"a":true,"b":null}},"zeta":0}]"#,
        );
    }

    #[test]
    fn enums_are_tagged_as_serde_json_does() {
        for kind in [Kind::Unit, Kind::New(7), Kind::Tuple(255, '"')] {
            check(&kind, &serde_json::to_string(&kind).unwrap());
        }
    }

    #[test]
    fn integers_have_one_spelling() {
        check(&0, "0");
        check(&-1_i8, "-1");
        check(&i8::MIN, "-128");
        check(&MAX_SAFE_INTEGER, "9007199254740991");
        check(&-9_007_199_254_740_991_i64, "-9007199254740991");
        check(&10_u128, "10");
    }

    #[test]
    fn what_has_no_form_is_an_error() {
        assert_eq!(to_vec(&1.0), Err(Error::Float));
        assert_eq!(to_vec(&json!({"a": [1.5]})), Err(Error::Float));
        assert_eq!(to_vec(&(MAX_SAFE_INTEGER + 1)), Err(Error::NumberRange));
        assert_eq!(to_vec(&i64::MIN), Err(Error::NumberRange));
        assert_eq!(to_vec(&i128::MIN), Err(Error::NumberRange));
        let by_number = BTreeMap::from([(1, 2)]);
        assert_eq!(to_vec(&by_number), Err(Error::KeyNotString));
        let deep = (0..MAX_DEPTH).fold(json!(1), |inner, _| json!([inner]));
        assert!(to_vec(&deep).is_ok());
        assert_eq!(to_vec(&json!([deep])), Err(Error::TooDeep));
    }

    #[test]
    fn keys_that_serde_repeats_are_refused() {
        struct Pairs(&'static [&'static str]);
        impl Serialize for Pairs {
            fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.0.iter().map(|key| (key, 1)))
            }
        }
        let twice = |key: &str| Err(Error::DuplicateKey(key.to_owned()));
        assert_eq!(to_vec(&Pairs(&["a", "a"])), twice("a"));
        assert_eq!(to_vec(&Pairs(&["b", "a", "b"])), twice("b"));
        check(&Pairs(&["c", "a", "b"]), r#"{"a":1,"b":1,"c":1}"#);
    }

    #[test]
    fn supplementary_keys_sort_by_code_units() {
        let value: Value = json!({"\u{fb33}": 1, "😀": 2, "z": 3});
        check(&value, "{\"z\":3,\"😀\":2,\"\u{fb33}\":1}");
    }
}
