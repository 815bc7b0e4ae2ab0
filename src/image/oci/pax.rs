//! [`Extended`]: parses pax records, which hold metadata that doesn't fit into a tar header.

use super::error::LayerError;

/// The metadata that precedes a header and replaces its fields.
#[derive(Default)]
pub(super) struct Extended {
    pub(super) is_any: bool,
    pub(super) name: Option<Vec<u8>>,
    pub(super) target: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) user: Option<u64>,
    pub(super) group: Option<u64>,
    pub(super) modified: Option<(i64, u32)>,
    pub(super) attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The prefix of the records with which container tools write extended attributes.
const ATTRIBUTE: &[u8] = b"SCHILY.xattr.";

impl Extended {
    /// Parses pax records. Keywords that don't matter for a root are ignored.
    pub(super) fn records(&mut self, mut rest: &[u8]) -> Result<(), LayerError> {
        self.is_any = true;
        while !rest.is_empty() {
            let (keyword, value, after) =
                next_record(rest).ok_or(LayerError::damaged("a pax record is malformed"))?;
            rest = after;
            match keyword {
                b"path" => self.name = Some(value.to_vec()),
                b"linkpath" => self.target = Some(value.to_vec()),
                b"size" => self.size = Some(decimal(value)?),
                b"uid" => self.user = Some(decimal(value)?),
                b"gid" => self.group = Some(decimal(value)?),
                b"mtime" => self.modified = Some(time(value)?),
                _ => self.other(keyword, value)?,
            }
        }
        Ok(())
    }

    fn other(&mut self, keyword: &[u8], value: &[u8]) -> Result<(), LayerError> {
        if let Some(name) = keyword.strip_prefix(ATTRIBUTE) {
            self.attributes.push((name.to_vec(), value.to_vec()));
        } else if keyword.starts_with(b"GNU.sparse.") {
            return Err(LayerError::damaged(
                "it holds a sparse file, whose holes are not read",
            ));
        }
        Ok(())
    }
}

/// Checks a global header. It may hold comments, but must not change entries, because container tools ignore it.
pub(super) fn check_global(records: &[u8]) -> Result<(), LayerError> {
    let mut extended = Extended::default();
    extended.records(records)?;
    let Extended {
        name: None,
        target: None,
        size: None,
        user: None,
        group: None,
        modified: None,
        ..
    } = extended
    else {
        return Err(LayerError::damaged("a global pax header changes entries"));
    };
    match extended.attributes.is_empty() {
        true => Ok(()),
        false => Err(LayerError::damaged("a global pax header changes entries")),
    }
}

/// The first record's keyword and value, and the rest. A value may contain any byte, including line feeds and NUL.
fn next_record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().take(8).position(|&byte| byte == b' ')?;
    let length = usize::try_from(decimal(&records[..space]).ok()?).ok()?;
    let (record, after) = records.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], after))
}

fn decimal(digits: &[u8]) -> Result<u64, LayerError> {
    let digits = std::str::from_utf8(digits).ok();
    digits
        .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .ok_or(LayerError::damaged("a number of a pax record is malformed"))
}

/// Seconds since 1970 as a decimal fraction, before 1970 with a minus. Digits beyond nanoseconds are dropped.
fn time(text: &[u8]) -> Result<(i64, u32), LayerError> {
    const NANOS: u32 = 1_000_000_000;
    let malformed = || LayerError::damaged("a time of a pax record is malformed");
    let (is_negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let dot = text.iter().position(|&byte| byte == b'.');
    let (whole, fraction) = match dot {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b""[..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(malformed());
    }
    let seconds = i64::try_from(decimal(whole)?).map_err(|_| malformed())?;
    let digits = fraction.iter().chain(std::iter::repeat(&b'0')).take(9);
    let nanos = digits.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    Ok(match (is_negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, NANOS - nanos),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_fractions_of_seconds() {
        let check = |text: &str, expected: Option<(i64, u32)>| {
            assert_eq!(time(text.as_bytes()).ok(), expected, "{text}");
        };
        check("12", Some((12, 0)));
        check("12.5", Some((12, 500_000_000)));
        check("12.0000000019", Some((12, 1)));
        check("-1", Some((-1, 0)));
        check("-0.25", Some((-1, 750_000_000)));
        for text in ["x", "1.x", "1.-5", "99999999999999999999", "--1"] {
            check(text, None);
        }
    }

    #[test]
    fn records_are_counted_by_their_lengths() {
        let check = |records: &[u8], expected: bool| {
            let read = Extended::default().records(records);
            assert_eq!(read.is_ok(), expected, "{records:?}");
        };
        check(b"8 a=b\n\n\n", true);
        check(b"6 a=b\n", true);
        check(b"6 a=b\n9 path=x\n", true);
        check(b"6 a=b\n8 path=x\n", false);
        check(b"10 path=x\n", true);
        check(b"999999999 path=x\n", false);
        check(b"7 a=b\n", false);
        check(b"22 GNU.sparse.major=1\n", false);
    }
}
