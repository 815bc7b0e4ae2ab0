//! Writes JSON for readers and for diffs: a value that fits on one line is written on one line.

use serde_json::Value;

/// The maximum length of a line with more than one value, in bytes.
const WIDTH: usize = 110;

/// Appends `value` to `out`. The current line already has `indent` spaces and `before` further bytes.
pub(super) fn write(out: &mut String, value: &Value, indent: usize, before: usize) {
    let flat = flat(value);
    if indent + before + flat.len() < WIDTH {
        return out.push_str(&flat);
    }
    match value {
        Value::Array(items) => block(out, ['[', ']'], indent, items, |out, item| {
            write(out, item, indent + 2, 0);
        }),
        Value::Object(fields) => block(out, ['{', '}'], indent, fields, |out, (name, value)| {
            let name = format!("{}: ", Value::from(name.as_str()));
            out.push_str(&name);
            write(out, value, indent + 2, name.len());
        }),
        _ => out.push_str(&flat),
    }
}

/// Writes the items of a list or an object, each on a line of its own.
fn block<T>(
    out: &mut String,
    [open, close]: [char; 2],
    indent: usize,
    items: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut String, T),
) {
    out.push(open);
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        line(out, indent + 2);
        write(out, item);
    }
    line(out, indent);
    out.push(close);
}

fn line(out: &mut String, indent: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n(' ', indent));
}

/// Returns the value on one line.
fn flat(value: &Value) -> String {
    let list = |items: Vec<String>| items.join(", ");
    match value {
        Value::Array(items) => format!("[{}]", list(items.iter().map(flat).collect())),
        Value::Object(fields) if fields.is_empty() => "{}".to_owned(),
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| {
                format!("{}: {}", Value::from(name.as_str()), flat(value))
            };
            format!("{{ {} }}", list(fields.iter().map(field).collect()))
        }
        scalar => scalar.to_string(),
    }
}
