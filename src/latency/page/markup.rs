//! [`Markup`]: writes HTML in which every element is closed and every text is escaped.

use std::fmt::Display;

use crate::sanitize;

/// The most characters of a text that are written; no real text of a report is that long.
const LONGEST: usize = 8192;

/// HTML that is well-formed XML, too. All text is escaped, because reports may quote guests.
#[derive(Default)]
pub(super) struct Markup {
    html: String,
    /// How many ids were given.
    ids: usize,
}

/// An attribute: its name and its value.
pub(super) type Attribute<'a> = (&'a str, &'a dyn Display);

impl Markup {
    /// An element whose content `inside` writes.
    pub(super) fn element(
        &mut self,
        name: &'static str,
        attributes: &[Attribute<'_>],
        inside: impl FnOnce(&mut Markup),
    ) {
        self.begin(name, attributes);
        self.html.push('>');
        inside(self);
        self.html.push_str("</");
        self.html.push_str(name);
        self.html.push('>');
    }

    /// An element without content.
    pub(super) fn empty(&mut self, name: &'static str, attributes: &[Attribute<'_>]) {
        self.begin(name, attributes);
        self.html.push_str(" />");
    }

    /// An element with a text.
    pub(super) fn text_element(
        &mut self,
        name: &'static str,
        attributes: &[Attribute<'_>],
        text: impl Display,
    ) {
        self.element(name, attributes, |markup| markup.text(text));
    }

    pub(super) fn text(&mut self, text: impl Display) {
        self.escape(&text.to_string());
    }

    /// A line feed, so that the page can be read as a file.
    pub(super) fn line(&mut self) {
        self.html.push('\n');
    }

    /// Constant HTML of this program, without escaping.
    pub(super) fn own(&mut self, html: &'static str) {
        self.html.push_str(html);
    }

    /// An id that no other element has.
    pub(super) fn id(&mut self) -> String {
        self.ids += 1;
        format!("n{}", self.ids)
    }

    pub(super) fn finish(self) -> String {
        self.html
    }

    fn begin(&mut self, name: &'static str, attributes: &[Attribute<'_>]) {
        self.html.push('<');
        self.html.push_str(name);
        for (name, value) in attributes {
            self.html.push(' ');
            self.html.push_str(name);
            self.html.push_str("=\"");
            self.escape(&value.to_string());
            self.html.push('"');
        }
    }

    fn escape(&mut self, text: &str) {
        for character in sanitize::line(text, LONGEST).chars() {
            match character {
                '&' => self.html.push_str("&amp;"),
                '<' => self.html.push_str("&lt;"),
                '>' => self.html.push_str("&gt;"),
                '"' => self.html.push_str("&quot;"),
                '\'' => self.html.push_str("&#39;"),
                _ => self.html.push(character),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_attributes_are_escaped_and_elements_closed() {
        let mut markup = Markup::default();
        markup.element("p", &[("title", &"a\"b'><")], |markup| {
            markup.text("<script>&\u{1b}[2J\u{202e}\0");
            markup.empty("br", &[]);
        });
        let expected = "<p title=\"a&quot;b&#39;&gt;&lt;\">&lt;script&gt;&amp;\\u{1b}[2J\\u{202e}\\0<br /></p>";
        assert_eq!(markup.finish(), expected);
    }
}
