//! Reads the mappings of a document so that no keyword is overlooked: [`Place`] is a value with its JSON pointer, and
//! [`Fields`] are the keywords of one mapping.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{Invalid, Problem};

/// Escapes `key` as one step of a JSON pointer.
pub(crate) fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// A value in a document, with its JSON pointer.
#[derive(Clone)]
pub(super) struct Place<'a> {
    pub(super) value: &'a Value,
    pub(super) pointer: String,
}

impl<'a> Place<'a> {
    pub(super) fn root(value: &'a Value) -> Self {
        Place {
            value,
            pointer: String::new(),
        }
    }

    /// Returns the place with the value `value` at `key` below this one.
    pub(super) fn child(&self, key: &str, value: &'a Value) -> Place<'a> {
        Place {
            value,
            pointer: format!("{}/{}", self.pointer, escaped(key)),
        }
    }

    pub(super) fn invalid(&self, problem: Problem) -> Invalid {
        Invalid {
            pointer: self.pointer.clone(),
            problem,
        }
    }

    fn expected(&self, expected: &'static str) -> Invalid {
        let found = match self.value {
            Value::Null => "nothing".to_owned(),
            Value::Array(_) => "a list".to_owned(),
            Value::Object(_) => "a mapping".to_owned(),
            // The value may be long: its beginning is enough to recognise it.
            scalar => format!("`{:.60}`", scalar.to_string()),
        };
        self.invalid(Problem::Expected { expected, found })
    }

    pub(super) fn mapping(&self) -> Result<&'a Map<String, Value>, Invalid> {
        self.value
            .as_object()
            .ok_or_else(|| self.expected("a mapping"))
    }

    /// Returns the entries of a mapping whose keys are not keywords.
    pub(super) fn entries(&self) -> Result<impl Iterator<Item = (&'a str, Place<'a>)>, Invalid> {
        let mapping = self.mapping()?;
        Ok(mapping
            .iter()
            .map(|(key, value)| (key.as_str(), self.child(key, value))))
    }

    /// Returns the keywords of the mapping, to be taken one by one.
    pub(super) fn fields(&self) -> Result<Fields<'a>, Invalid> {
        Ok(Fields {
            mapping: self.mapping()?,
            place: self.clone(),
            taken: BTreeSet::new(),
        })
    }

    pub(super) fn text(&self) -> Result<&'a str, Invalid> {
        self.value.as_str().ok_or_else(|| self.expected("a text"))
    }

    pub(super) fn flag(&self) -> Result<bool, Invalid> {
        self.value
            .as_bool()
            .ok_or_else(|| self.expected("true or false"))
    }

    pub(super) fn number(&self) -> Result<&'a serde_json::Number, Invalid> {
        self.value
            .as_number()
            .ok_or_else(|| self.expected("a number"))
    }

    /// Reads a length or a number of items, which may be written with a fraction of zero (`10.0`).
    pub(super) fn count(&self) -> Result<u64, Invalid> {
        // An `f64` holds every whole number up to 2^53 exactly.
        let exact = |number: &f64| {
            number.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(number)
        };
        let written = || {
            self.value
                .as_f64()
                .filter(exact)
                .map(|number| number as u64)
        };
        self.value
            .as_u64()
            .or_else(written)
            .ok_or_else(|| self.expected("a whole number that is not negative"))
    }

    /// Returns the items of a list.
    pub(super) fn list(&self) -> Result<impl Iterator<Item = Place<'a>>, Invalid> {
        let list = self
            .value
            .as_array()
            .ok_or_else(|| self.expected("a list"))?;
        Ok(list
            .iter()
            .enumerate()
            .map(|(index, value)| self.child(&index.to_string(), value)))
    }

    /// Reads a list of strings without repetition.
    pub(super) fn texts(&self) -> Result<BTreeSet<String>, Invalid> {
        self.texts_or_null(false)
    }

    /// As [`texts`](Place::texts). If the value is `nullable`, the list may also hold `null`.
    pub(super) fn texts_or_null(&self, nullable: bool) -> Result<BTreeSet<String>, Invalid> {
        if !self.value.is_array() {
            return Err(self.expected("a list of texts"));
        }
        let mut texts = BTreeSet::new();
        for place in self.list()? {
            if nullable && place.value.is_null() {
                continue;
            }
            if !texts.insert(place.text()?.to_owned()) {
                return Err(place.expected("a text that is not in the list before"));
            }
        }
        Ok(texts)
    }

    pub(super) fn status(&self, key: &str) -> Result<u16, Invalid> {
        // `u16::from_str` also accepts a sign and leading zeros, so one status could have two spellings.
        let digits = key.bytes().all(|byte| byte.is_ascii_digit()) && key.len() == 3;
        digits
            .then(|| key.parse().ok())
            .flatten()
            .filter(|status| (100..600).contains(status))
            .ok_or_else(|| {
                let found = format!("`{key:.60}`");
                self.invalid(Problem::Expected {
                    expected: "an HTTP status as the key",
                    found,
                })
            })
    }
}

/// The keywords of one mapping. [`finish`](Fields::finish) fails if a keyword was not taken. Extensions (`x-internal`)
/// are ignored, because OpenAPI gives them no meaning.
pub(super) struct Fields<'a> {
    mapping: &'a Map<String, Value>,
    place: Place<'a>,
    taken: BTreeSet<&'static str>,
}

impl<'a> Fields<'a> {
    pub(super) fn take(&mut self, keyword: &'static str) -> Option<Place<'a>> {
        self.taken.insert(keyword);
        self.mapping
            .get(keyword)
            .map(|value| self.place.child(keyword, value))
    }

    pub(super) fn need(&mut self, keyword: &'static str) -> Result<Place<'a>, Invalid> {
        self.take(keyword)
            .ok_or_else(|| self.place.invalid(Problem::MissingKeyword(keyword)))
    }

    /// Takes keywords that carry no fact of the contract, with any value.
    pub(super) fn drop_prose(&mut self, keywords: &'static [&'static str]) {
        self.taken.extend(keywords);
    }

    pub(super) fn finish(self) -> Result<(), Invalid> {
        match self
            .mapping
            .keys()
            .find(|key| !self.taken.contains(key.as_str()) && !key.starts_with("x-"))
        {
            None => Ok(()),
            Some(keyword) => Err(self.place.invalid(Problem::UnknownKeyword(keyword.clone()))),
        }
    }
}
