//! JSON that is kept as its text: values without a type ([`RawJson`]), and fields that a type doesn't have
//! ([`UnknownFields`]).
//!
//! A tree of [`Value`](serde_json::Value) takes up to thirty times the memory of its text, and the VMM chooses what it
//! sends. So a value without a type stays text until the caller parses it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::sanitize;

/// How much of a text `Debug` shows, in characters.
const SHOWN: usize = 1024;

/// A JSON value, kept as its text. Two values are equal when their texts are.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RawJson(Box<RawValue>);

impl RawJson {
    /// The JSON of `value`.
    ///
    /// # Errors
    ///
    /// The serialiser's, when `value` has none.
    pub fn new(value: &impl Serialize) -> Result<RawJson, serde_json::Error> {
        serde_json::value::to_raw_value(value).map(RawJson)
    }

    /// The text.
    pub fn get(&self) -> &str {
        self.0.get()
    }

    /// Reads the value as a `T`.
    ///
    /// # Errors
    ///
    /// The parser's, when it is no `T`.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.get())
    }
}

impl PartialEq for RawJson {
    fn eq(&self, other: &RawJson) -> bool {
        self.get() == other.get()
    }
}

impl Eq for RawJson {}

impl fmt::Debug for RawJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&sanitize::line(self.get(), SHOWN))
    }
}

/// Fields that a type doesn't have, in the order in which they came, kept as the text of one JSON object. Two sets of
/// fields are equal when their texts are.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct UnknownFields {
    /// An object with at least one member, or nothing at all.
    text: String,
}

impl UnknownFields {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The value of the field with this name; the last one if there are several.
    pub fn get(&self, name: &str) -> Option<RawJson> {
        let members = self.members();
        let mut found = members.iter().rev().filter(|(Name(key), _)| key == name);
        found.next().map(|(_, value)| RawJson((*value).to_owned()))
    }

    /// The names and the values, in their order.
    pub fn to_vec(&self) -> Vec<(String, RawJson)> {
        let members = self.members().into_iter();
        members
            .map(|(Name(name), value)| (name.into_owned(), RawJson(value.to_owned())))
            .collect()
    }

    /// Adds a field. A request sends it as it is. A server ignores a field that it doesn't know, so the client refuses
    /// to send it unless the request is [`unchecked`](super::Request::unchecked).
    ///
    /// # Errors
    ///
    /// The serialiser's, when `value` has no JSON.
    pub fn insert(&mut self, name: &str, value: &impl Serialize) -> Result<(), serde_json::Error> {
        self.push(name, &RawJson::new(value)?.0);
        Ok(())
    }

    pub(super) fn push(&mut self, name: &str, value: &RawValue) {
        let name = serde_json::to_string(name).expect("a text has JSON");
        match self.text.pop() {
            None => self.text.push('{'),
            Some(_closing) => self.text.push(','),
        }
        self.text.push_str(&name);
        self.text.push(':');
        self.text.push_str(value.get());
        self.text.push('}');
    }

    fn members(&self) -> Vec<(Name<'_>, &RawValue)> {
        match self.text.as_str() {
            "" => Vec::new(),
            text => {
                let Members(members) =
                    serde_json::from_str(text).expect("it was put together from JSON");
                members
            }
        }
    }
}

impl fmt::Debug for UnknownFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text.as_str() {
            "" => f.write_str("{}"),
            text => f.write_str(&sanitize::line(text, SHOWN)),
        }
    }
}

/// Serialized as a map, which a type flattens into its object.
impl Serialize for UnknownFields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let members = self.members();
        let mut map = serializer.serialize_map(Some(members.len()))?;
        for (Name(name), value) in members {
            map.serialize_entry(&name, value)?;
        }
        map.end()
    }
}

/// A field's name, borrowed where it has no escapes.
#[derive(Deserialize)]
pub(super) struct Name<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// The members of an object.
struct Members<'a>(Vec<(Name<'a>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn fields_come_back_as_they_were_put_in() {
        let mut fields = UnknownFields::default();
        assert!(fields.is_empty() && fields.get("a").is_none() && fields.to_vec().is_empty());
        assert_eq!(serde_json::to_string(&fields).unwrap(), "{}");
        fields.insert("a\"\n", &json!([1, null])).unwrap();
        fields.insert("b", &2).unwrap();
        fields.insert("b", &"three").unwrap();
        assert!(!fields.is_empty());
        assert_eq!(fields.get("a\"\n").unwrap().get(), "[1,null]");
        assert_eq!(
            fields.get("b").unwrap().parse::<String>().unwrap(),
            "three",
            "the last one"
        );
        let names: Vec<String> = fields.to_vec().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a\"\n", "b", "b"]);
        assert_eq!(
            serde_json::to_string(&fields).unwrap(),
            "{\"a\\\"\\n\":[1,null],\"b\":2,\"b\":\"three\"}"
        );
        assert_eq!(
            serde_json::to_value(&fields).unwrap(),
            json!({ "a\"\n": [1, null], "b": "three" })
        );
    }

    #[test]
    fn equality_and_debug_are_those_of_the_text() {
        let read = |text: &str| serde_json::from_str::<RawJson>(text).unwrap();
        assert_eq!(read("{\"a\": 1}"), read("{\"a\": 1}"));
        assert_ne!(read("{\"a\": 1}"), read("{\"a\":1}"));
        assert_eq!(format!("{:?}", read("\"\u{202e}x\"")), "\"\\u{202e}x\"");
        let long = RawJson::new(&"x".repeat(2 * SHOWN)).unwrap();
        assert_eq!(format!("{long:?}").chars().count(), SHOWN);
        let value: RawJson = serde_json::from_value(json!({ "a": [1] })).unwrap();
        assert_eq!(value.parse::<Value>().unwrap(), json!({ "a": [1] }));
    }
}
