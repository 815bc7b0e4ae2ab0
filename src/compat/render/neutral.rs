//! Text from outside, without what a terminal or a page would obey.

/// `text` with control characters, line ends among them, and marks that turn the direction of writing or take no room
/// shown by their number.
pub fn neutral(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if obeyed(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

fn obeyed(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_obeyed_is_shown() {
        let check = |text: &str, expected: &str| assert_eq!(neutral(text), expected);
        check("vm.create", "vm.create");
        check("größe ✓", "größe ✓");
        check("\u{1b}[31mred", "\\u{1b}[31mred");
        check("a\r\nb", "a\\u{d}\\u{a}b");
        check("\u{9b}31m", "\\u{9b}31m");
        check("user\u{202e}nimda", "user\\u{202e}nimda");
        check("\u{200b}", "\\u{200b}");
    }
}
