//! Wrappers that read a type from a JSON object only: [`Closed`], and [`Tagged`] for an object with a `type`.
//!
//! serde's derive is not strict enough for the protocol in two ways. A derived struct can also be read from an array.
//! And `deny_unknown_fields` refuses the `type` that names a frame; serde's internally tagged enums accept it, but
//! buffer the whole object as a tree first, which multiplies the memory that a hostile frame costs. These wrappers read
//! straight from the text.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{CowStrDeserializer, MapAccessDeserializer};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, de};

/// A `T` that is read from an object, never from an array.
pub(super) struct Closed<T>(pub(super) T);

/// A `T` that is read from an object, never from an array, and without the object's field `type`.
pub(super) struct Tagged<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Closed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_map(Object::<T>(PhantomData))
            .map(Closed)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Tagged<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_map(TaggedObject::<T>(PhantomData))
            .map(Tagged)
    }
}

struct Object<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

struct TaggedObject<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for TaggedObject<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(WithoutType {
            map,
            has_type: false,
        }))
    }
}

/// The entries of an object without its field `type`. A second `type` is an error.
struct WithoutType<A> {
    map: A,
    has_type: bool,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for WithoutType<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        while let Some(Key(key)) = self.map.next_key()? {
            if key != "type" {
                let key: CowStrDeserializer<'_, A::Error> = key.into_deserializer();
                return seed.deserialize(key).map(Some);
            }
            if self.has_type {
                return Err(de::Error::duplicate_field("type"));
            }
            self.has_type = true;
            let IgnoredAny = self.map.next_value()?;
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

/// A key, borrowed from the text if it has no escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads a list of at most `N` items. A longer list is refused at item `N + 1`, and the rest isn't read.
pub(super) fn at_most<'de, const N: usize, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct List<const N: usize, T>(PhantomData<T>);

    impl<'de, const N: usize, T: Deserialize<'de>> Visitor<'de> for List<N, T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {N}")
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = list.next_element()? {
                if items.len() == N {
                    return Err(de::Error::invalid_length(N + 1, &self));
                }
                items.push(item);
            }
            Ok(items)
        }
    }

    deserializer.deserialize_seq(List::<N, T>(PhantomData))
}

/// Reads a random UUID (version 4).
pub(super) fn uuid_v4<'de, D: Deserializer<'de>>(deserializer: D) -> Result<uuid::Uuid, D::Error> {
    let id = uuid::Uuid::deserialize(deserializer)?;
    match id.get_version() {
        Some(uuid::Version::Random) => Ok(id),
        _ => Err(de::Error::custom(format_args!(
            "{id} is not a UUID of version 4"
        ))),
    }
}
