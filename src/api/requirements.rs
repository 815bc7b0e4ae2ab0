//! What a request uses that not every supported release has ([`Requirement`]).
//!
//! A server ignores a field that it doesn't know, and says nothing. So the JSON text of a request's body is compared
//! with the table of [`support`](super::support) before it is sent, whether a type or the caller made that text. Each
//! operation, field and value that not every supported release knows is a requirement. A request without requirements
//! suits every server. Its walk allocates nothing.
//!
//! The server itself refuses a body that isn't JSON, a value of the wrong kind and a missing field, so these are no
//! requirements. A field that is `null` counts as absent.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::support::{Field, Kind, Object, Support, newest};
use super::{Operation, Release};
use crate::causes::Causes;

/// An operation, a field or a value of a request that not every supported release knows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Requirement {
    /// The operation's name, the JSON pointer of a field, or a value with its pointer.
    pub what: String,
    /// The releases that know it; none if no supported release does.
    pub support: Option<Support>,
}

impl Requirement {
    /// Whether a server of this release knows it.
    ///
    /// A server that is newer than every supported release counts as the newest of them. It is taken to know whatever
    /// no supported release knows, since a newer release may have added that.
    pub fn is_met_by(&self, server: Release) -> bool {
        match self.support {
            Some(support) => support.includes(server),
            None => server > newest(),
        }
    }
}

/// The requirements of a request, in the order of its body.
pub(super) fn of(operation: Operation, body: Option<&[u8]>) -> Vec<Requirement> {
    let mut requirements = Vec::new();
    if !operation.support().is_universal() {
        requirements.push(Requirement {
            what: operation.name().to_owned(),
            support: Some(operation.support()),
        });
    }
    if let (Some(object), Some(body)) = (operation.body(), body) {
        let walk = Walk {
            kind: Kind::Object(object),
            own: operation.support(),
            around: operation.support(),
            place: &Place::Body,
            requirements: &mut requirements,
        };
        let mut json = serde_json::Deserializer::from_slice(body);
        if let Err(error) = walk.deserialize(&mut json) {
            tracing::trace!(
                %operation, error = %Causes(&error),
                "the body can't be walked: it is the server's to refuse"
            );
        }
    }
    requirements
}

/// The place of a value, as a list from the value up to the whole body.
enum Place<'a> {
    Body,
    Below(&'a Place<'a>, &'a str),
    Item(&'a Place<'a>, usize),
}

impl fmt::Display for Place<'_> {
    /// As a JSON pointer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Body => Ok(()),
            Place::Below(parent, key) => {
                let key = match key.contains(['~', '/']) {
                    true => Cow::Owned(key.replace('~', "~0").replace('/', "~1")),
                    false => Cow::Borrowed(*key),
                };
                write!(f, "{parent}/{key}")
            }
            Place::Item(parent, index) => write!(f, "{parent}/{index}"),
        }
    }
}

/// One value of the walk.
struct Walk<'a> {
    /// The kind of the value.
    kind: Kind,
    /// The releases that know its field.
    own: Support,
    /// The releases that know the object around it. A requirement of that object isn't repeated for its fields.
    around: Support,
    place: &'a Place<'a>,
    requirements: &'a mut Vec<Requirement>,
}

impl Walk<'_> {
    /// Adds the requirement of this field, which has a value.
    fn present(&mut self) {
        if !self.own.is_universal() && self.own != self.around {
            self.requirements.push(Requirement {
                what: self.place.to_string(),
                support: Some(self.own),
            });
        }
    }

    fn below<'b>(&'b mut self, kind: Kind, own: Support, place: &'b Place<'b>) -> Walk<'b> {
        Walk {
            kind,
            own,
            around: self.own,
            place,
            requirements: self.requirements,
        }
    }

    fn unknown(&mut self, place: &Place<'_>) {
        self.requirements.push(Requirement {
            what: place.to_string(),
            support: None,
        });
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.kind {
            Kind::Leaf if self.own == self.around => {
                deserializer.deserialize_ignored_any(IgnoredAny).map(drop)
            }
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(mut self, _: bool) -> Result<(), E> {
        self.present();
        Ok(())
    }

    fn visit_u64<E>(mut self, _: u64) -> Result<(), E> {
        self.present();
        Ok(())
    }

    fn visit_i64<E>(mut self, _: i64) -> Result<(), E> {
        self.present();
        Ok(())
    }

    fn visit_f64<E>(mut self, _: f64) -> Result<(), E> {
        self.present();
        Ok(())
    }

    fn visit_str<E: Error>(mut self, text: &str) -> Result<(), E> {
        self.present();
        let Kind::Enumeration(enumeration) = self.kind else {
            return Ok(());
        };
        let support = enumeration.value(text).map(|value| value.support);
        if support.is_none_or(|support| !support.is_universal() && support != self.own) {
            self.requirements.push(Requirement {
                what: format!("{text:?} at {}", self.place),
                support,
            });
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        self.present();
        let Kind::List(kind) = self.kind else {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        let (own, parent) = (self.own, self.place);
        for index in 0.. {
            let place = Place::Item(parent, index);
            if items
                .next_element_seed(self.below(*kind, own, &place))?
                .is_none()
            {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        self.present();
        let (own, parent) = (self.own, self.place);
        match self.kind {
            Kind::Object(object) => {
                while let Some(name) = entries.next_key_seed(Name(object))? {
                    match name {
                        Ok(field) => {
                            let place = Place::Below(parent, field.name);
                            let walk = self.below(field.kind, field.support, &place);
                            entries.next_value_seed(walk)?;
                        }
                        Err(name) => {
                            if entries.next_value_seed(HasValue)? {
                                self.unknown(&Place::Below(parent, &name));
                            }
                        }
                    }
                }
            }
            Kind::Map(kind) => {
                while let Some(key) = entries.next_key::<Cow<'_, str>>()? {
                    let place = Place::Below(parent, &key);
                    entries.next_value_seed(self.below(*kind, own, &place))?;
                }
            }
            _ => while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {},
        }
        Ok(())
    }
}

/// Reads a key as a field of the object, or as a text if the object has no field of that name.
struct Name<'a>(&'a Object);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Result<&'static Field, String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Result<&'static Field, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.field(name).ok_or_else(|| name.to_owned()))
    }
}

/// Whether a value isn't `null`.
struct HasValue;

impl<'de> DeserializeSeed<'de> for HasValue {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        let value: Option<IgnoredAny> = serde::Deserialize::deserialize(deserializer)?;
        Ok(value.is_some())
    }
}
