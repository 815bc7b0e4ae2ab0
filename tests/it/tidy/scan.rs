//! Reads from the tokens of a Rust file which modules it refers to and which macros it calls. Comments, documentation
//! and strings don't count.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The top-level modules of the package that `text` reaches by a path: through `crate::`, through the library's
/// name, or through enough `super::` to arrive at the root.
///
/// `depth` is how many modules deep the file is: 1 for `src/overlay/mod.rs`, 2 for `src/overlay/hash.rs`.
pub(super) fn modules_used(text: &str, depth: usize) -> Vec<String> {
    let mut used = Vec::new();
    collect_modules(&tokens(text), depth, &mut used);
    used
}

/// The names of the macros that `text` calls, without those in its `mod tests` and in functions with `#[cfg(test)]`.
pub(super) fn macros_outside_tests(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    collect_macros(&tokens(text), &mut names);
    names
}

pub(super) fn tokens(text: &str) -> Vec<TokenTree> {
    let stream: TokenStream = text.parse().expect("the file compiles");
    stream.into_iter().collect()
}

pub(super) fn inside(group: &proc_macro2::Group) -> Vec<TokenTree> {
    group.stream().into_iter().collect()
}

pub(super) fn is_ident(token: Option<&TokenTree>, name: &str) -> bool {
    matches!(token, Some(TokenTree::Ident(ident)) if ident == name)
}

pub(super) fn is_punct(token: Option<&TokenTree>, character: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == character)
}

fn starts_with_colons(tokens: &[TokenTree]) -> bool {
    is_punct(tokens.first(), ':') && is_punct(tokens.get(1), ':')
}

fn collect_modules(tokens: &[TokenTree], depth: usize, used: &mut Vec<String>) {
    for (index, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Ident(ident) if ident == "crate" || ident == "chv_sandbox" => {
                collect_heads(&tokens[index + 1..], used);
            }
            TokenTree::Ident(ident) if ident == "super" => {
                // Only at the beginning of a run of `super::`; otherwise the run would be counted again from its
                // middle.
                let continues = index >= 3
                    && is_ident(tokens.get(index - 3), "super")
                    && starts_with_colons(&tokens[index - 2..]);
                let mut rest = &tokens[index + 1..];
                let mut climbed = 1;
                while starts_with_colons(rest) && is_ident(rest.get(2), "super") {
                    climbed += 1;
                    rest = &rest[3..];
                }
                if !continues && climbed >= depth {
                    collect_heads(rest, used);
                }
            }
            TokenTree::Group(group) => {
                let is_module = group.delimiter() == Delimiter::Brace
                    && index >= 2
                    && is_ident(tokens.get(index - 2), "mod");
                collect_modules(&inside(group), depth + usize::from(is_module), used);
            }
            _ => {}
        }
    }
}

/// Adds the names after the root of a path: one name, or several in braces.
fn collect_heads(rest: &[TokenTree], used: &mut Vec<String>) {
    if !starts_with_colons(rest) {
        return;
    }
    match rest.get(2) {
        Some(TokenTree::Ident(ident)) => used.push(ident.to_string()),
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
            let branches = inside(group);
            for branch in branches.split(|token| is_punct(Some(token), ',')) {
                if let Some(TokenTree::Ident(head)) = branch.first() {
                    used.push(head.to_string());
                }
            }
        }
        _ => {}
    }
}

fn collect_macros(tokens: &[TokenTree], names: &mut Vec<String>) {
    let mut for_tests = false;
    for (index, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Ident(ident) if !for_tests && is_punct(tokens.get(index + 1), '!') => {
                names.push(ident.to_string());
            }
            TokenTree::Group(group) if is_cfg_test(group) => for_tests = true,
            TokenTree::Group(group) if !for_tests => collect_macros(&inside(group), names),
            // The body of an item that is only for tests, or the end of such an item: a function's arguments and result
            // come before its body.
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => for_tests = false,
            TokenTree::Punct(punct) if punct.as_char() == ';' => for_tests = false,
            _ => {}
        }
    }
}

fn is_cfg_test(group: &proc_macro2::Group) -> bool {
    group.delimiter() == Delimiter::Bracket
        && group.stream().to_string().replace(' ', "") == "cfg(test)"
}

#[test]
fn paths_to_the_root_are_found() {
    let check = |text: &str, depth: usize, expected: &[&str]| {
        assert_eq!(modules_used(text, depth), expected, "{text}");
    };
    check("use crate::vmm::Vmm;", 1, &["vmm"]);
    check(
        "use crate::{api::{self, Request}, client};",
        1,
        &["api", "client"],
    );
    check(
        "fn f() -> chv_sandbox::golden::Manifest { crate::cli::run() }",
        1,
        &["golden", "cli"],
    );
    check("use super::Error;", 1, &["Error"]);
    check("use super::Error;", 2, &[]);
    check("use super::super::sandbox::State;", 2, &["sandbox"]);
    check("use super::super::correct::Place;", 3, &[]);
    check("use super::super::{machine, vmm};", 2, &["machine", "vmm"]);
    check("mod tests { use super::super::vmm; }", 1, &["vmm"]);
    check(
        "mod tests { use super::*; use super::super::read; }",
        2,
        &[],
    );
    check(
        "//! See [`vmm`](crate::vmm).\n/* crate::vmm */ const A: &str = \"crate::vmm\";",
        1,
        &[],
    );
    check("pub(crate) fn f() {}", 1, &[]);
}

#[test]
fn macros_are_found_outside_tests() {
    let check = |text: &str, expected: &[&str]| {
        assert_eq!(macros_outside_tests(text), expected, "{text}");
    };
    check("fn f() { if a { println!(\"a\") } }", &["println"]);
    check("// println!()\nfn f() { g(\"println!\") }", &[]);
    check(
        "#[cfg(test)] mod tests { fn f() { println!() } } fn g() { print!() }",
        &["print"],
    );
    check(
        "#[cfg(test)] #[expect(x)] fn f(a: [u8; 2]) { println!() } fn g() { print!() }",
        &["print"],
    );
    check("#[cfg(test)] mod tests; fn g() { print!() }", &["print"]);
}
