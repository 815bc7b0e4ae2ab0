//! Reads an object that may have fields which its type doesn't have.
//!
//! serde's `flatten` would read such a field into a tree first, at a multiple of its text. The implementations here
//! keep such a field as text in the type's `unknown`.

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::forward_to_deserialize_any;

/// Implements [`Deserialize`] for a struct with the field `unknown`, from its other fields and their names on the wire.
/// A field that may be absent has to be an [`Option`].
macro_rules! open_object {
    ($type:ident { $($field:ident: $name:literal),* $(,)? }) => {
        impl<'de> ::serde::Deserialize<'de> for $type {
            fn deserialize<D: ::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> ::std::result::Result<Self, D::Error> {
                struct Fields;

                impl<'de> ::serde::de::Visitor<'de> for Fields {
                    type Value = $type;

                    fn expecting(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                        f.write_str(concat!("an object, ", stringify!($type)))
                    }

                    fn visit_map<A: ::serde::de::MapAccess<'de>>(
                        self,
                        mut map: A,
                    ) -> ::std::result::Result<$type, A::Error> {
                        $(let mut $field = None;)*
                        let mut unknown = $crate::api::UnknownFields::default();
                        while let Some($crate::api::raw::Name(name)) = map.next_key()? {
                            match &*name {
                                $($name if $field.is_some() => {
                                    return Err(::serde::de::Error::duplicate_field($name));
                                })*
                                $($name => $field = Some(map.next_value()?),)*
                                name => {
                                    let value: Box<::serde_json::value::RawValue> = map.next_value()?;
                                    unknown.push(name, &value);
                                }
                            }
                        }
                        Ok($type {
                            $($field: $crate::api::open_object::present($field, $name)?,)*
                            unknown,
                        })
                    }
                }

                deserializer.deserialize_map(Fields)
            }
        }
    };
}

pub(super) use open_object;

/// The field's value; of an absent field `None`, or an error when its type isn't an [`Option`].
pub(super) fn present<'de, T: Deserialize<'de>, E: Error>(
    value: Option<T>,
    name: &'static str,
) -> Result<T, E> {
    match value {
        Some(value) => Ok(value),
        None => T::deserialize(Absent(name, std::marker::PhantomData)),
    }
}

/// The deserializer that an absent field is read from.
struct Absent<E>(&'static str, std::marker::PhantomData<E>);

impl<'de, E: Error> Deserializer<'de> for Absent<E> {
    type Error = E;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, E> {
        Err(E::missing_field(self.0))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        visitor.visit_none()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::api::UnknownFields;

    #[derive(Debug, PartialEq)]
    struct Sample {
        size: u64,
        kind: Option<String>,
        unknown: UnknownFields,
    }

    open_object! { Sample { size: "size", kind: "type" } }

    #[test]
    fn known_fields_are_read_and_the_others_kept() {
        let text = r#"{"a":{"b":[1,2]},"type":"t","size":7,"\u0061b":null}"#;
        let sample: Sample = serde_json::from_str(text).unwrap();
        assert_eq!((sample.size, sample.kind.as_deref()), (7, Some("t")));
        let unknown = serde_json::to_string(&sample.unknown).unwrap();
        assert_eq!(unknown, r#"{"a":{"b":[1,2]},"ab":null}"#);
        // From a tree as from a text.
        let tree: Value = serde_json::from_str(text).unwrap();
        let again: Sample = serde_json::from_value(tree).unwrap();
        assert_eq!((again.size, again.kind), (7, Some("t".to_owned())));
        assert_eq!(
            serde_json::to_value(&again.unknown).unwrap(),
            json!({ "a": { "b": [1, 2] }, "ab": null })
        );
    }

    #[test]
    fn each_fault_has_its_message() {
        #[track_caller]
        fn check(text: &str, expected: &str) {
            let error = serde_json::from_str::<Sample>(text)
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        check("{}", "missing field `size`");
        check(r#"{"size":1,"size":1}"#, "duplicate field `size`");
        check(r#"{"size":"x"}"#, "expected u64");
        check("[1]", "expected an object, Sample");
        check(r#"{"size":1,"a":[}"#, "expected value");
        let sample: Sample = serde_json::from_str(r#"{"size":1,"type":null}"#).unwrap();
        assert!(sample.kind.is_none() && sample.unknown.is_empty());
    }
}
