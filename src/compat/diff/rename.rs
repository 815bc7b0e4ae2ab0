//! Whether something that is gone and something that is new are one thing with another name.
//!
//! This changes no judgement, because a client still uses the old name; it only lets the message say so.

use std::collections::BTreeMap;

/// What was renamed to what.
pub(super) type Renamed<'n> = BTreeMap<&'n str, &'n str>;

/// `message`, with the new name if there is one.
pub(super) fn to(message: String, name: &str, renamed: &Renamed<'_>) -> String {
    match renamed.get(name) {
        None => message,
        Some(name) => format!("{message}: renamed, it seems, to `{name:.60}`"),
    }
}

/// `message`, with the old name if there is one.
pub(super) fn from(message: String, name: &str, renamed: &Renamed<'_>) -> String {
    match renamed.iter().find(|(_, new)| **new == name) {
        None => message,
        Some((old, _)) => format!("{message}: the new name, it seems, of `{old:.60}`"),
    }
}

/// Pairs names whose things have the same content. It has to be evident: the names are alike, or but for those
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

/// Pairs names that are alike, of things that have no content but their name.
pub(super) fn by_name<'n>(gone: &[&'n str], come: &[&'n str]) -> Renamed<'n> {
    pairs(gone, come, alike)
}

/// How many names are tried: with more on both sides nothing is evident.
const MAX_TRIED: usize = 32;

/// The names that match one on the other side, and only one, which matches no other.
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

/// Whether two names share most of what they are made of: one is the other with words before or behind, or they differ
/// in less than a third of their letters.
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

/// The length of the longest sequence of letters that both have in this order.
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
    fn a_rename_is_evident_or_not_said() {
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
