//! Placeholders: `${NAME}` in a cassette stands for a text that differs from run to run.

use serde_json::Value;

use super::cassette::{Answer, Exchange, RequestBody, ResponseBody};

/// Applies `change` to every text of an exchange.
pub(super) fn rewrite(exchange: &mut Exchange, change: &mut impl FnMut(&mut String)) {
    change(&mut exchange.request.path);
    match &mut exchange.request.body {
        RequestBody::Json(json) => rewrite_json(json, change),
        RequestBody::Text(text) => change(text),
        RequestBody::None | RequestBody::Length(_) => {}
    }
    if let Answer::Response(response) = &mut exchange.answer {
        match &mut response.body {
            ResponseBody::Json(json) => rewrite_json(json, change),
            ResponseBody::Text(text) => change(text),
            ResponseBody::Empty => {}
        }
    }
}

/// The keys of objects belong to the API and are not changed.
fn rewrite_json(json: &mut Value, change: &mut impl FnMut(&mut String)) {
    match json {
        Value::String(text) => change(text),
        Value::Array(items) => items.iter_mut().for_each(|item| rewrite_json(item, change)),
        Value::Object(fields) => fields
            .values_mut()
            .for_each(|value| rewrite_json(value, change)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Replaces each placeholder with the result of `value_of` for its name. The error is the first name without a value.
pub(super) fn fill<'a>(
    text: &str,
    value_of: impl Fn(&str) -> Option<&'a str>,
) -> Result<String, String> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, name, after)) = next_placeholder(rest) {
        filled.push_str(before);
        filled.push_str(value_of(name).ok_or_else(|| name.to_owned())?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// Whether a part of the text has the form of a placeholder.
pub(super) fn has_placeholder(text: &str) -> bool {
    next_placeholder(text).is_some()
}

/// Whether the whole text is one placeholder.
pub(super) fn is_placeholder(text: &str) -> bool {
    matches!(next_placeholder(text), Some(("", _, "")))
}

/// Returns the text before the first placeholder, its name, and the text after it.
fn next_placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let mut from = 0;
    while let Some(found) = text[from..].find("${") {
        let start = from + found;
        let inside = &text[start + 2..];
        let end = inside.find(|c: char| !is_name(c)).unwrap_or(inside.len());
        if end > 0 && inside[end..].starts_with('}') {
            return Some((&text[..start], &inside[..end], &inside[end + 1..]));
        }
        from = start + 2;
    }
    None
}

/// Whether a character may be in a placeholder's name.
fn is_name(c: char) -> bool {
    c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let filled = fill(text, |name| match name {
            "RUN" => Some("/tmp/x"),
            "RUN_2" => Some("/y"),
            _ => None,
        });
        assert_eq!(
            filled.as_deref().map_err(String::as_str),
            expected,
            "{text}"
        );
    }

    #[test]
    fn only_placeholders_are_replaced() {
        check("", Ok(""));
        check("file://${RUN}/a${RUN_2}", Ok("file:///tmp/x/a/y"));
        check("${RUN", Ok("${RUN"));
        check("$${run}${}${", Ok("$${run}${}${"));
        check("${a${RUN}", Ok("${a/tmp/x"));
        check("${OTHER}", Err("OTHER"));
    }
}
