//! Decides whether something that is gone and something that is new are the same under another name.
//!
//! This does not change the level of a finding, because a client still uses the old name. Only the message says it.

use std::collections::BTreeMap;

/// The new name of each old name.
pub(super) type Renamed<'n> = BTreeMap<&'n str, &'n str>;

/// Appends the new name to `message`, if there is one.
pub(super) fn to(message: String, name: &str, renamed: &Renamed<'_>) -> String {
    match renamed.get(name) {
        None => message,
        Some(name) => format!("{message}: probably renamed to `{name:.60}`"),
    }
}

/// Appends the old name to `message`, if there is one.
pub(super) fn from(message: String, name: &str, renamed: &Renamed<'_>) -> String {
    match renamed.iter().find(|(_, new)| **new == name) {
        None => message,
        Some((old, _)) => format!("{message}: probably the new name of `{old:.60}`"),
    }
}

/// Pairs names whose items have the same content. A pair is made only if it is evident: the names are similar, or
/// nothing else is gone or new.
pub(super) fn by_content<'n>(
    gone: &[&'n str],
    come: &[&'n str],
    same: impl Fn(&str, &str) -> bool,
) -> Renamed<'n> {
    let mut found = pairs(gone, come, |old, new| alike(old, new) && same(old, new));
    let mut gone = gone.iter().filter(|old| !found.contains_key(*old));
    let mut come = come
        .iter()
        .filter(|new| !found.values().any(|found| found == *new));
    if let (Some(old), None, Some(new), None) = (gone.next(), gone.next(), come.next(), come.next())
        && same(old, new)
    {
        found.insert(old, new);
    }
    found
}

/// Pairs similar names of items that have no content.
pub(super) fn by_name<'n>(gone: &[&'n str], come: &[&'n str]) -> Renamed<'n> {
    pairs(gone, come, alike)
}

/// The maximum number of names on each side. With more names no pairs are made.
const MAX_TRIED: usize = 32;

/// Returns the pairs in which each name matches exactly one name of the other side.
fn pairs<'n>(
    gone: &[&'n str],
    come: &[&'n str],
    matches: impl Fn(&str, &str) -> bool,
) -> Renamed<'n> {
    if gone.len() > MAX_TRIED || come.len() > MAX_TRIED {
        return Renamed::new();
    }
    let found: Vec<(&str, &str)> = gone
        .iter()
        .flat_map(|old| come.iter().map(move |new| (*old, *new)))
        .filter(|(old, new)| matches(old, new))
        .collect();
    let alone = |(old, new): &(&str, &str)| {
        let of_either = found
            .iter()
            .filter(|(one, other)| one == old || other == new);
        of_either.count() == 1
    };
    found.iter().copied().filter(alone).collect()
}

/// Whether two names have most of their letters in common: one is the other with words before or after it, or they
/// differ in less than a third of their letters.
fn alike(one: &str, other: &str) -> bool {
    let letters = |name: &str| -> Vec<char> {
        name.chars()
            .take(64)
            .filter(|letter| letter.is_alphanumeric())
            .flat_map(char::to_lowercase)
            .collect()
    };
    let (one, other) = (letters(one), letters(other));
    let (short, long) = match one.len() < other.len() {
        true => (one, other),
        false => (other, one),
    };
    if short.len() < 3 {
        return short == long;
    }
    long.windows(short.len()).any(|part| part == short)
        || 3 * common(&short, &long) > 2 * long.len()
}

/// Returns the length of the longest common subsequence of letters.
fn common(one: &[char], other: &[char]) -> usize {
    let mut lengths = vec![0; other.len() + 1];
    for letter in one {
        let mut diagonal = 0;
        for (index, candidate) in other.iter().enumerate() {
            let above = lengths[index + 1];
            lengths[index + 1] = match letter == candidate {
                true => diagonal + 1,
                false => above.max(lengths[index]),
            };
            diagonal = above;
        }
    }
    lengths[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_alike_when_most_of_them_is_the_same() {
        fn check(one: &str, other: &str, expected: bool) {
            assert_eq!(alike(one, other), expected, "{one} {other}");
            assert_eq!(alike(other, one), expected, "{other} {one}");
        }
        check("affinity", "queue_affinity", true);
        check("/vmm.nmi", "/vm.nmi", true);
        check("iommu_address_width", "iommu_address_width_bits", true);
        check("generic-vhost-user", "generic_vhost_user", true);
        check("VirtioMem", "virtio_mem", true);
        check("path", "socket", false);
        check("sgx_epc", "user_devices", false);
        check("id", "uuid", false);
        check("ip", "mac", false);
    }

    #[test]
    fn only_an_evident_rename_is_reported() {
        fn check(gone: &[&str], come: &[&str], expected: &[(&str, &str)]) {
            let found = by_content(gone, come, |_, _| true);
            assert_eq!(
                found,
                expected.iter().copied().collect(),
                "{gone:?} {come:?}"
            );
        }
        check(&["a"], &["z"], &[("a", "z")]);
        check(&["a", "b"], &["y", "z"], &[]);
        check(
            &["affinity", "b", "c"],
            &["queue_affinity", "z"],
            &[("affinity", "queue_affinity")],
        );
        check(&["affinity"], &["queue_affinity", "affinities"], &[]);
        check(
            &["queue_size", "virtio_id"],
            &["queue_sizes", "device_type"],
            &[("queue_size", "queue_sizes"), ("virtio_id", "device_type")],
        );
        check(&[], &["z"], &[]);
        assert!(by_content(&["a"], &["z"], |_, _| false).is_empty());
    }
}
