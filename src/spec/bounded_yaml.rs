//! Parses a document into a tree of JSON values, within limits on size and time.
//!
//! The upstream document has 41 KiB and a few thousand nodes. The limits allow twenty times as much.

use std::fmt;
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::Error;
use crate::files::{ReadError, read_file_or_pipe};

/// The maximum size of a document, in bytes: 1 MiB.
pub const MAX_DOCUMENT_BYTES: u64 = 1024 * 1024;

/// Reads the whole file at `path`, which may have at most [`MAX_DOCUMENT_BYTES`]. The path may lead to a pipe, whose
/// writer must close it within 5 seconds.
pub(super) fn bytes(path: &Path) -> Result<Vec<u8>, Error> {
    read_file_or_pipe(path, MAX_DOCUMENT_BYTES).map_err(|error| match error {
        ReadError::TooLarge { limit, .. } => Error::TooLarge {
            path: path.to_owned(),
            limit,
        },
        error => Error::File {
            verb: "read",
            path: path.to_owned(),
            source: error.into(),
        },
    })
}

/// Parses YAML, of which JSON is a part. Keys become strings. A repeated key is an error, also if it is once written as
/// a number and once as a string (`200` and `"200"`).
pub(super) fn parse(bytes: &[u8]) -> Result<Value, serde_saphyr::Error> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 200_000,
            max_nodes: 100_000,
            max_depth: 64,
            max_documents: 1,
            max_aliases: 100,
            max_anchors: 100,
            max_recorded_anchor_events: 10_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 10_000,
            max_replay_stack_depth: 8,
            max_alias_expansions_per_anchor: 100,
        },
        merge_keys: serde_saphyr::options::MergeKeyPolicy::Error,
        // The enum value `Off` must stay a string; YAML 1.1 reads it as `false`.
        strict_booleans: true,
    };
    serde_saphyr::from_slice_with_options::<Tree>(bytes, options).map(|tree| tree.0)
}

/// Parses JSON with the same result as [`parse`], but many times as fast and without its limits. It is for the
/// documents inside the library, which are trusted.
pub(super) fn parse_json(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice::<Tree>(bytes).map(|tree| tree.0)
}

/// A [`Value`] whose deserialization refuses repeated keys.
struct Tree(Value);

impl<'de> serde::Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of an API document")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        // Gives equal numbers the same representation, whether the parser reads them as `u64` or as `i64`.
        Ok(Tree(
            u64::try_from(value).map_or_else(|_| value.into(), Value::from),
        ))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Tree, E> {
        let number =
            Number::from_f64(value).ok_or_else(|| E::custom("a number that is not finite"))?;
        Ok(Tree(Value::Number(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(Tree(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree(Value::Array(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key_seed(Key)? {
            let Tree(value) = entries.next_value()?;
            if map.contains_key(&key) {
                return Err(A::Error::custom(format_args!("key `{key}` occurs twice")));
            }
            map.insert(key, value);
        }
        map.sort_keys();
        Ok(Tree(Value::Object(map)))
    }
}

/// A key as a string. A status may be written as a number or in quotes.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Key {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key that is a text or a whole number")
    }

    fn visit_u64<E>(self, key: u64) -> Result<String, E> {
        Ok(key.to_string())
    }

    fn visit_i64<E>(self, key: i64) -> Result<String, E> {
        Ok(key.to_string())
    }

    fn visit_str<E>(self, key: &str) -> Result<String, E> {
        Ok(key.to_owned())
    }
}
