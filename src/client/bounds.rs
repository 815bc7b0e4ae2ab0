//! The limits of an answer: its length, and the number of its values.
//!
//! Both limits are far above what a server of any release answers. The second limit exists because a decoded value
//! takes more memory than its text: `{}` has two bytes, and the disk's configuration that is decoded from it has
//! hundreds.

use crate::api::Operation;

/// In bytes. Most answers are a line, an error's message chain, or empty.
const ANSWER: usize = 1 << 20;

/// In bytes. The answer to `vm.info` has the VM's configuration and device tree, about 2 KiB for a device. 16 PCI
/// segments have room for 496 devices, so the largest VM's answer has 1 MiB.
const VM_INFO: usize = 4 << 20;

/// The most objects and lists. The answer about the largest VM has some 6,000.
const MOST_CONTAINERS: usize = 1 << 14;

/// The most values of any kind. The answer about the largest VM has some 40,000.
const MOST_VALUES: usize = 1 << 17;

/// The length up to which the body of an answer to `operation` is read, in bytes.
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

/// Counts the values of JSON text without decoding it. Text that isn't JSON may pass or be refused: the parser refuses
/// it anyway.
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
        // Brackets and commas within a string don't count.
        let text = format!("\"\\\\\\\"{}\"", "[{,".repeat(MOST_VALUES));
        check(&text, Ok(()));
        check(&text[..text.len() - 1], Ok(()));
    }

    /// The most containers, decoded into lists that have grown to twice their length, take less than half of the 64 MiB
    /// that the module's documentation promises.
    #[test]
    fn the_most_containers_fit_the_memory_that_is_promised() {
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
