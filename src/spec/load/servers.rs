//! Reads the addresses in a document's `servers`.

use std::collections::BTreeMap;

use super::super::fields::Place;
use super::super::{Invalid, Problem};
use super::{PROSE, is_extension};

/// The address that OpenAPI gives to a document without `servers`.
const DEFAULT: &str = "/";

/// The maximum number of addresses of one list, after its variables were replaced. It bounds the work of a comparison,
/// which combines each endpoint with all of its addresses.
const MAX_ADDRESSES: usize = 64;

/// Returns the addresses of a document whose `servers` are at `place`.
pub(super) fn of_document(place: Option<Place<'_>>) -> Result<Vec<String>, Invalid> {
    let mut addresses = place
        .map(|place| addresses(&place))
        .transpose()?
        .unwrap_or_default();
    if addresses.is_empty() {
        addresses.push(DEFAULT.to_owned());
    }
    Ok(addresses)
}

/// Returns the addresses in the list at `place`, in order and without repetition. Each variable is replaced by each of
/// its values.
pub(super) fn addresses(place: &Place<'_>) -> Result<Vec<String>, Invalid> {
    let mut addresses = Vec::new();
    for server in place.list()? {
        for address in of_server(&server)? {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.len() > MAX_ADDRESSES {
            return Err(too_many(place));
        }
    }
    Ok(addresses)
}

fn of_server(place: &Place<'_>) -> Result<Vec<String>, Invalid> {
    let mut server = place.fields()?;
    server.drop_prose(PROSE);
    let url = server.need("url")?;
    let variables: BTreeMap<&str, Vec<&str>> = match server.take("variables") {
        None => BTreeMap::new(),
        Some(variables) => variables
            .entries()?
            .filter(|(name, _)| !is_extension(name))
            .map(|(name, variable)| Ok((name, values(&variable)?)))
            .collect::<Result<_, Invalid>>()?,
    };
    server.finish()?;
    expand(&url, &variables)
}

fn too_many(place: &Place<'_>) -> Invalid {
    let found = "more".to_owned();
    place.invalid(Problem::Expected {
        expected: "at most 64 addresses",
        found,
    })
}

/// Returns the values of a variable: the default first, then the others that it lists.
fn values<'a>(place: &Place<'a>) -> Result<Vec<&'a str>, Invalid> {
    let mut variable = place.fields()?;
    variable.drop_prose(PROSE);
    let mut values = vec![variable.need("default")?.text()?];
    if let Some(listed) = variable.take("enum") {
        for value in listed.list()? {
            let value = value.text()?;
            if !values.contains(&value) {
                values.push(value);
            }
            if values.len() > MAX_ADDRESSES {
                return Err(too_many(place));
            }
        }
    }
    variable.finish()?;
    Ok(values)
}

/// Returns the URL at `url` once for each combination of the values of its `{variable}`s.
fn expand(url: &Place<'_>, variables: &BTreeMap<&str, Vec<&str>>) -> Result<Vec<String>, Invalid> {
    let expected = |expected, found| url.invalid(Problem::Expected { expected, found });
    let mut addresses = vec![String::new()];
    let mut rest = url.text()?;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or_else(|| {
            let found = format!("`{rest:.60}`");
            expected("a `}` after each `{`", found)
        })?;
        let values = variables.get(name).ok_or_else(|| {
            let found = format!("`{name:.60}`");
            expected("variables that `variables` describes", found)
        })?;
        addresses = addresses
            .iter()
            .flat_map(|address| {
                values
                    .iter()
                    .map(move |value| format!("{address}{before}{value}"))
            })
            .take(MAX_ADDRESSES + 1)
            .collect();
        if addresses.len() > MAX_ADDRESSES {
            return Err(too_many(url));
        }
        rest = after;
    }
    addresses
        .iter_mut()
        .for_each(|address| address.push_str(rest));
    Ok(addresses)
}
