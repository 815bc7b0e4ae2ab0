//! An error in a log line is logged with its causes, and `chv_sandbox::causes` is the only code that walks them.
//!
//! This test reads tokens and doesn't know types. A name counts as that of an error if its file binds it like one:
//! `Err(name)`, a closure of `map_err` and its like, or `name: ..Error`. `error` and `err` always count.

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, TokenTree};

use super::scan::{inside, is_ident, is_punct, tokens};
use super::{assert_none, rust_files};

/// The file of the helper, which alone may ask an error for its source.
const HELPER: &str = "src/causes.rs";

/// The macros of `tracing`. Those of the levels also exist with the suffix `_span`.
const LOG_MACROS: &[&str] = &["trace", "debug", "info", "warn", "error", "event", "span"];

fn is_log_macro(name: &str) -> bool {
    LOG_MACROS.contains(&name.strip_suffix("_span").unwrap_or(name))
}

#[test]
fn an_error_in_a_log_line_carries_its_causes() {
    let mut found = Vec::new();
    let mut lines = 0;
    for file in rust_files(&["src"]) {
        let tokens = tokens(&file.text);
        lines += log_lines(&tokens).len();
        let bare = bare_errors(&tokens).into_iter();
        found.extend(bare.map(|line| format!("{}: {line}", file.path)));
    }
    assert!(lines > 50, "the log lines were not found");
    assert_none(found, "log `error = %Causes(&error)`");
}

#[test]
fn causes_are_walked_in_one_place() {
    let mut found = Vec::new();
    for file in rust_files(&["src"]) {
        let walks = asks_for_a_source(&tokens(&file.text));
        assert!(walks || file.path != HELPER, "the helper has moved");
        if walks && file.path != HELPER {
            found.push(file.path);
        }
    }
    assert_none(found, "use `Causes`, or its `iter`");
}

/// The tokens between the brackets of each log macro.
fn log_lines(tokens: &[TokenTree]) -> Vec<Vec<TokenTree>> {
    let mut lines = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        match (token, tokens.get(index + 2)) {
            (TokenTree::Ident(name), Some(TokenTree::Group(group)))
                if is_punct(tokens.get(index + 1), '!') && is_log_macro(&name.to_string()) =>
            {
                lines.push(inside(group));
            }
            (TokenTree::Group(group), _) => lines.extend(log_lines(&inside(group))),
            _ => {}
        }
    }
    lines
}

/// The log lines that show an error without its causes.
fn bare_errors(tokens: &[TokenTree]) -> Vec<String> {
    let mut names = BTreeSet::from(["error".to_owned(), "err".to_owned()]);
    collect_error_names(tokens, &mut names);
    log_lines(tokens)
        .iter()
        .filter(|line| {
            shows_one_of(&names, line)
                || line
                    .split(|token| is_punct(Some(token), ','))
                    .any(is_error_field_without_helper)
        })
        .map(|line| {
            let tokens = line.iter().cloned();
            tokens.collect::<proc_macro2::TokenStream>().to_string()
        })
        .collect()
}

/// Whether a log line shows one of these names outside `Causes(..)`.
fn shows_one_of(names: &BTreeSet<String>, line: &[TokenTree]) -> bool {
    line.iter().enumerate().any(|(index, token)| {
        let previous = index.checked_sub(1).and_then(|index| line.get(index));
        match token {
            // A field of another value is only recognised by the names `error` and `err`.
            TokenTree::Ident(ident) if is_punct(previous, '.') => {
                ident == "error" || ident == "err"
            }
            TokenTree::Ident(ident) => {
                names.contains(&ident.to_string()) && !is_label(&line[index..])
            }
            TokenTree::Group(group) => {
                !is_ident(previous, "Causes") && shows_one_of(names, &inside(group))
            }
            TokenTree::Literal(literal) => {
                let text = literal.to_string();
                let mut arguments = text.split('{').skip(1);
                arguments.any(|rest| {
                    let name = rest.split(['}', ':']).next().unwrap_or_default();
                    names.contains(name)
                })
            }
            TokenTree::Punct(_) => false,
        }
    })
}

/// Whether the first token names a field: `name = ..`.
fn is_label(tokens: &[TokenTree]) -> bool {
    is_punct(tokens.get(1), '=') && !is_punct(tokens.get(2), '=')
}

/// Whether a field is called `error` and its value does not come from the helper, whatever the name of the value is.
fn is_error_field_without_helper(field: &[TokenTree]) -> bool {
    let is_error = is_ident(field.first(), "error") || is_ident(field.first(), "err");
    is_error && is_label(field) && !mentions(field, "Causes")
}

fn mentions(tokens: &[TokenTree], name: &str) -> bool {
    tokens.iter().any(|token| match token {
        TokenTree::Group(group) => mentions(&inside(group), name),
        token => is_ident(Some(token), name),
    })
}

/// Collects the names that are bound to errors.
fn collect_error_names(tokens: &[TokenTree], names: &mut BTreeSet<String>) {
    for (index, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Ident(ident) => {
                let name = ident.to_string();
                if let Some(TokenTree::Group(group)) = tokens.get(index + 1) {
                    names.extend(bound_to_error(&name, &inside(group)));
                }
                let rest = &tokens[index + 1..];
                let is_typed = is_punct(rest.first(), ':') && !is_punct(rest.get(1), ':');
                let is_path = index > 0 && is_punct(tokens.get(index - 1), ':');
                if is_typed && !is_path && is_error_type(&rest[1..]) {
                    names.insert(name);
                }
            }
            TokenTree::Group(group) => collect_error_names(&inside(group), names),
            _ => {}
        }
    }
}

/// The name in `Err(name)`, `Err(name @ ..)` or `map_err(|name| ..)`. `before` is the word before the brackets.
fn bound_to_error(before: &str, arguments: &[TokenTree]) -> Option<String> {
    let is_closure = before.ends_with("_err") || before == "unwrap_or_else";
    let binding = match arguments.first() {
        Some(bar) if is_closure && is_punct(Some(bar), '|') => &arguments[1..],
        _ if before == "Err" => arguments,
        _ => return None,
    };
    let is_keyword =
        |token: &&TokenTree| is_ident(Some(token), "ref") || is_ident(Some(token), "mut");
    let skipped = binding.iter().take_while(is_keyword).count();
    let binding = &binding[skipped..];
    let ends = match binding.get(1) {
        None => true,
        end => {
            ['|', '@', ':'].iter().any(|mark| is_punct(end, *mark))
                && !is_punct(binding.get(2), ':')
        }
    };
    match binding.first() {
        Some(TokenTree::Ident(name)) if ends && name != "_" => Some(name.to_string()),
        _ => None,
    }
}

/// Whether the tokens begin with a type that is an error, or with a reference to one: `io::Error`, `&Errno`, `&(dyn
/// Error + 'static)`.
fn is_error_type(tokens: &[TokenTree]) -> bool {
    let mut last = None;
    for token in tokens {
        match token {
            TokenTree::Ident(ident) if ident == "mut" || ident == "dyn" => {}
            TokenTree::Ident(ident) => last = Some(ident.to_string()),
            TokenTree::Punct(punct) if "&:".contains(punct.as_char()) => {}
            TokenTree::Punct(punct) if punct.as_char() == '\'' => {}
            TokenTree::Group(group)
                if last.is_none() && group.delimiter() == Delimiter::Parenthesis =>
            {
                return is_error_type(&inside(group));
            }
            // `Error::new(..)` and `Error { .. }` are values and not types.
            _ => break,
        }
    }
    last.is_some_and(|name| name.ends_with("Error") || name == "Errno")
}

/// Whether this calls `.source()` or names `Error::source`.
fn asks_for_a_source(tokens: &[TokenTree]) -> bool {
    tokens.iter().enumerate().any(|(index, token)| match token {
        TokenTree::Ident(ident) if ident == "source" => {
            let previous = index.checked_sub(1).and_then(|index| tokens.get(index));
            let is_call = matches!(
                tokens.get(index + 1),
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis
            );
            let of_error = index >= 3 && is_ident(tokens.get(index - 3), "Error");
            is_call && is_punct(previous, '.') || of_error && is_punct(previous, ':')
        }
        TokenTree::Group(group) => asks_for_a_source(&inside(group)),
        _ => false,
    })
}

#[test]
fn an_error_without_its_causes_is_found() {
    let check = |text: &str, expected: usize| {
        assert_eq!(bare_errors(&tokens(text)).len(), expected, "{text}");
    };
    let logs = |binding: &str, arguments: &str, expected: usize| {
        check(
            &format!("fn f() {{ {binding}; tracing::warn!({arguments}, \"x\") }}"),
            expected,
        );
    };
    logs("", "%error", 1);
    logs("", "?error", 1);
    logs("", "error", 1);
    logs("", "pid, why = %error", 1);
    logs("", "why = error.to_string()", 1);
    logs("", "why = %sanitize::line(&error.to_string(), 9)", 1);
    logs("", "error = %why", 1);
    logs("", "error = %Causes(&error)", 0);
    logs("", "error = %crate::causes::Causes(&*error)", 0);
    logs(
        "",
        "error = %sanitize::line(&Causes(&error).to_string(), 9)",
        0,
    );
    logs("", "why = %Causes(&error), %error", 1);
    logs("", "why = %self.error", 1);
    logs("if let Err(why) = g() {}", "source = self.why", 0);
    logs("", "%why", 0);
    logs("if let Err(why) = g() {}", "%why", 1);
    logs("if let Err(ref why) = g() {}", "%why", 1);
    logs("if let Err(why @ E::A { .. }) = g() {}", "%why", 1);
    logs("if let Err(why::A) = g() {}", "%why", 0);
    logs("g().map_err(|why| h(why))", "%why", 1);
    logs("g().unwrap_or_else(|why: E| h(why))", "%why", 1);
    logs("let why: io::Error = g()", "%why", 1);
    logs("let g = |why: &vmm::Error| h()", "%why", 1);
    logs("let g = |why: &(dyn Error + 'static)| h()", "%why", 1);
    logs("let why: &str = g()", "%why", 0);
    logs("let why: ErrorKind = g()", "%why", 0);
    logs("if let Err(why) = g() {}", "why = %Causes(&why)", 0);
    check("fn f() { tracing::error!(\"it failed: {error}\") }", 1);
    check("fn f() { tracing::error!(\"it failed: {error:?}\") }", 1);
    check("fn f() { error!(\"it failed: {}\", error) }", 1);
    check(
        "fn f() { tracing::error!(\"it failed: {}\", Causes(&error)) }",
        0,
    );
    check(
        "fn f() { g().inspect_err(|why| tracing::debug!(%why, \"x\")) }",
        1,
    );
    check("fn f() { tracing::info_span!(\"x\", %error) }", 1);
    check("fn f() { panic!(\"{error}\") }", 0);
    check("// tracing::warn!(%error)\nfn f() {}", 0);
}

#[test]
fn a_call_of_source_is_found() {
    let check = |text: &str, expected: bool| {
        assert_eq!(asks_for_a_source(&tokens(text)), expected, "{text}");
    };
    check("fn f() { while let Some(e) = g { g = e.source(); } }", true);
    check("fn f() { successors(Some(e), |e| e.source()) }", true);
    check("fn f() { successors(Some(e), Error::source) }", true);
    check("fn f() { e.source().map(Error::to_string) }", true);
    check("fn f() { std::error::Error::source(&e) }", true);
    check("fn f() { g(event.source, Io { source: a, path }) }", false);
    check("use super::source::Piece; fn source() {}", false);
    check("/// See [`source()`].\nfn f() { \"e.source()\" }", false);
}
