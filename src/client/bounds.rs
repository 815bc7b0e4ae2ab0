//! How much of an answer is taken, and of how many values it may be made.
//!
//! Both limits are far above what a server of any release answers. The second is there because a value costs more memory
//! than its text: `{}` is two bytes, and a disk's configuration of hundreds once it is decoded.

use crate::api::Operation;

/// What most operations answer is a line, an error's message chain, or nothing. In bytes.
const ANSWER: usize = 1 << 20;

/// `vm.info` tells a VM's whole configuration and device tree, about 2 KiB for a device. 16 PCI segments have room for 496
/// devices, so that the largest VM has an answer of 1 MiB. In bytes.
const VM_INFO: usize = 4 << 20;

/// The most objects and lists. The answer above has some 6,000.
const MOST_CONTAINERS: usize = 1 << 14;

/// The most values of any kind. The answer above has some 40,000.
const MOST_VALUES: usize = 1 << 17;

/// The longest body that is taken of an answer to `operation`, in bytes.
pub(super) const fn answer_limit(operation: Operation) -> usize {
    match operation {
        Operation::VmInfo => VM_INFO,
        _ => ANSWER,
    }
}

/// Why an answer isn't decoded although its length is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the answer has more than {MOST_CONTAINERS} objects and lists, or more than {MOST_VALUES} values"
)]
pub(super) struct TooManyValues;

/// Counts the values of JSON text without decoding it. Of what isn't JSON it may pass or refuse any: that is the parser's
/// to tell.
pub(super) fn check_values(json: &[u8]) -> Result<(), TooManyValues> {
    let (mut containers, mut values) = (0, 1);
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            b'{' | b'[' => {
                containers += 1;
                values += 1;
            }
            b',' => values += 1,
            _ => {}
        }
        if containers > MOST_CONTAINERS || values > MOST_VALUES {
            return Err(TooManyValues);
        }
    }
    Ok(())
}

fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::{DeviceConfig, DiskConfig, FsConfig, NetConfig, PmemConfig};

    #[test]
    fn only_as_many_values_are_taken() {
        #[track_caller]
        fn check(json: &str, expected: Result<(), TooManyValues>) {
            assert_eq!(check_values(json.as_bytes()), expected, "{json:.60}");
        }
        let list = |item: &str, count: usize| format!("[{}]", vec![item; count].join(","));
        check("", Ok(()));
        check("{\"a\":[1,{\"b\":null}]}", Ok(()));
        check(&list("{}", MOST_CONTAINERS - 1), Ok(()));
        check(&list("{}", MOST_CONTAINERS), Err(TooManyValues));
        check(&list("1", MOST_VALUES - 2), Ok(()));
        check(&list("1", MOST_VALUES), Err(TooManyValues));
        check(&"[".repeat(MOST_CONTAINERS + 1), Err(TooManyValues));
        // What stands in a text is none.
        let text = format!("\"\\\\\\\"{}\"", "[{,".repeat(MOST_VALUES));
        check(&text, Ok(()));
        check(&text[..text.len() - 1], Ok(()));
    }

    /// The most containers, decoded into lists that have grown to twice their length, stay below half of the 64 MiB that
    /// are promised.
    #[test]
    fn what_a_list_is_decoded_into_is_small_enough() {
        let largest = [
            size_of::<DiskConfig>(),
            size_of::<NetConfig>(),
            size_of::<FsConfig>(),
            size_of::<PmemConfig>(),
            size_of::<DeviceConfig>(),
        ];
        for size in largest {
            assert!(2 * size * MOST_CONTAINERS <= 32 << 20, "{size}");
        }
    }
}
