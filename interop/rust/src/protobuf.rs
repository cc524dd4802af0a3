//! Protobuf's wire format, as far as it is used here: fields that are numbers or bytes.
//!
//! ```text
//! field: varint (number << 3 | type)  ─┬─ type 0: varint          2: varint length, bytes
//!                                      └─ type 1: 8 bytes         5: 4 bytes
//! ```
//!
//! What a field means, and which of several with one number counts, is the caller's.

/// The longest varint of 64 bits.
const MAX_VARINT: usize = 10;

const MAX_NUMBER: u64 = (1 << 29) - 1;

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Four or eight bytes, which nothing here has.
    Fixed,
}

/// The fields of a message: number and value, or one error, the last.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = take_field(self.0);
        match field {
            Ok((number, value, rest)) => {
                self.0 = rest;
                Some(Ok((number, value)))
            }
            Err(error) => {
                self.0 = &[];
                Some(Err(error))
            }
        }
    }
}

fn take_field(bytes: &[u8]) -> Result<(u64, Value<'_>, &[u8]), String> {
    let (key, rest) = take_varint(bytes)?;
    let (number, kind) = (key >> 3, key & 7);
    if !(1..=MAX_NUMBER).contains(&number) {
        return Err(format!("expected a field number, got {number}"));
    }
    let take = |count: u64, rest: &'_ [u8]| {
        usize::try_from(count)
            .ok()
            .filter(|count| *count <= rest.len())
            .ok_or_else(|| format!("field {number}: expected {count} bytes, got {}", rest.len()))
    };
    match kind {
        0 => {
            let (value, rest) = take_varint(rest)?;
            Ok((number, Value::Varint(value), rest))
        }
        2 => {
            let (length, rest) = take_varint(rest)?;
            let (value, rest) = rest.split_at(take(length, rest)?);
            Ok((number, Value::Bytes(value), rest))
        }
        1 | 5 => {
            let size = take(if kind == 1 { 8 } else { 4 }, rest)?;
            Ok((number, Value::Fixed, &rest[size..]))
        }
        _ => Err(format!("field {number}: type {kind} isn't known")),
    }
}

fn take_varint(bytes: &[u8]) -> Result<(u64, &[u8]), String> {
    match varint(bytes) {
        Some((value, size)) => Ok((value, &bytes[size..])),
        None => Err("expected a varint".into()),
    }
}

/// A varint of at most 64 bits at the start of some bytes, and its size; None if it isn't whole, or is longer.
pub fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0;
    for (i, byte) in bytes.iter().take(MAX_VARINT).enumerate() {
        if i + 1 == MAX_VARINT && *byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((value, i + 1));
        }
    }
    None
}

/// Appends a varint.
pub fn put_varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// Appends a field of bytes; none if it is empty, as proto3 does.
pub fn put_bytes(to: &mut Vec<u8>, number: u64, value: &[u8]) {
    if !value.is_empty() {
        put_varint(to, number << 3 | 2);
        put_varint(to, value.len() as u64);
        to.extend_from_slice(value);
    }
}

/// Appends a field that is a number; none if it is zero, as proto3 does.
pub fn put_number(to: &mut Vec<u8>, number: u64, value: u64) {
    if value != 0 {
        put_varint(to, number << 3);
        put_varint(to, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            assert_eq!(varint(&bytes), Some((value, bytes.len())));
            assert_eq!(varint(&bytes[..bytes.len() - 1]), None);
        }
        assert_eq!(varint(&[0xff; 10]), None);
        assert_eq!(varint(&[0x80, 0]), Some((0, 2)));
    }

    #[test]
    fn fields_that_were_put() {
        let mut bytes = Vec::new();
        put_bytes(&mut bytes, 1, b"ab");
        put_number(&mut bytes, 5, 300);
        put_bytes(&mut bytes, 2, b"");
        put_number(&mut bytes, 3, 0);
        assert_eq!(bytes, b"\x0a\x02ab\x28\xac\x02");
        bytes.extend(b"\x0d1234\x0912345678");
        let fields: Vec<_> = Fields(&bytes).map(Result::unwrap).collect();
        let (bytes, number) = (Value::Bytes(b"ab"), Value::Varint(300));
        let fixed = Value::Fixed;
        assert_eq!(fields, [(1, bytes), (5, number), (1, fixed), (1, fixed)]);
    }

    #[test]
    fn what_is_no_message_ends_in_an_error() {
        for bytes in [
            &b"\x0a\x05\x00"[..],
            b"\x02\x00",
            b"\x0a\x01x\x0b",
            b"\x0d123",
            b"\x08",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
            b"\xff",
        ] {
            let last = Fields(bytes).last();
            assert!(last.unwrap().is_err(), "{bytes:x?}");
        }
    }
}
