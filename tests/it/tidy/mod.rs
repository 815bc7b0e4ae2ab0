//! Rules for every file of the package that no compiler checks: which module may use which, the length of a file, and
//! words that must not be left in one.

mod causes;
mod layers;
mod public_errors;
mod public_items;
mod scan;

use std::fs;
use std::path::{Path, PathBuf};

/// Long enough for one idea with its tests. A longer file has a second idea in it.
const MAX_LINES: usize = 450;

/// The files and folders of the package that people write.
const ROOTS: &[&str] = &[
    "src",
    "tests",
    "benches",
    "fuzz",
    "api-spec",
    "fixtures",
    ".ci",
    "Cargo.toml",
    "README.md",
    "CONTRIBUTING.md",
];

struct SourceFile {
    /// Relative to the package, with `/` as the separator.
    path: String,
    text: String,
}

/// The text files below those of the given roots that exist, in no particular order.
fn files_of(roots: &[&str]) -> Vec<SourceFile> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut waiting: Vec<PathBuf> = roots.iter().map(|root| package.join(root)).collect();
    let mut files = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).unwrap();
            waiting.extend(entries.map(|entry| entry.unwrap().path()));
        } else if let Ok(text) = fs::read_to_string(&path) {
            let path = path.strip_prefix(package).unwrap();
            let path = path.to_str().unwrap().to_owned();
            files.push(SourceFile { path, text });
        }
    }
    files
}

fn rust_files(roots: &[&str]) -> Vec<SourceFile> {
    let mut files = files_of(roots);
    files.retain(|file| file.path.ends_with(".rs"));
    files
}

/// Fails with all findings at once, each on a line of its own.
fn assert_none(mut findings: Vec<String>, rule: &str) {
    findings.sort();
    assert!(findings.is_empty(), "{rule}\n  {}", findings.join("\n  "));
}

#[test]
fn files_are_short_enough_to_read_in_one_sitting() {
    let long = rust_files(&["src", "tests", "benches", "fuzz"])
        .iter()
        .filter(|file| !file.path.starts_with("src/api/generated/"))
        .filter(|file| file.text.lines().count() > MAX_LINES)
        .map(|file| format!("{}: {} lines", file.path, file.text.lines().count()))
        .collect();
    assert_none(long, "look for a second idea hiding in these files");
}

/// Words that must not be left in a file. Each is in two parts, so that this list doesn't find itself.
const LEFT_BEHIND: &[(&str, &str)] = &[
    ("#[al", "low("),
    ("#![al", "low("),
    ("TO", "DO"),
    ("FIX", "ME"),
    ("to", "do!("),
    ("unimple", "mented!("),
    ("db", "g!("),
];

#[test]
fn nothing_is_left_for_later() {
    let mut found = Vec::new();
    for file in rust_files(&["src", "tests", "benches", "fuzz"]) {
        for (start, end) in LEFT_BEHIND {
            let needle = format!("{start}{end}");
            found.extend(lines_with(&file, |line| line.contains(&needle)));
        }
    }
    assert_none(found, "finish these, or expect lints with a reason");
}

/// Directories and hosts of the machines on which the package is worked on.
const PLACES: &[(&str, &str)] = &[
    ("/wo", "rk/"),
    ("/fa", "rm/"),
    ("/ro", "ot/"),
    (".lib", "rary"),
    ("index.crates", ".io"),
    ("static.crates", ".io"),
    ("registry.npm", "js.org"),
    ("pypi", ".org"),
    ("proxy.go", "lang.org"),
];

#[test]
fn no_file_names_the_place_where_it_was_written() {
    let mut found = Vec::new();
    for file in files_of(ROOTS) {
        for (start, end) in PLACES {
            let place = format!("{start}{end}");
            found.extend(lines_with(&file, |line| names_place(line, &place)));
        }
    }
    assert_none(found, "these say where they were written");
}

/// Whether `place` stands in `line` by itself, and not as the end of a longer path.
fn names_place(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "_-.}".contains(c))
    })
}

#[test]
fn a_place_is_told_from_the_end_of_a_path() {
    let place = ["/wo", "rk/"].concat();
    assert!(names_place(&format!("see {place}notes"), &place));
    assert!(names_place(&format!("\"{place}\""), &place));
    assert!(!names_place(&format!("/mnt/overlay{place}x"), &place));
    assert!(!names_place(&format!("${{RUN}}{place}x"), &place));
}

fn lines_with(file: &SourceFile, is_found: impl Fn(&str) -> bool) -> Vec<String> {
    let lines = file.text.lines().enumerate();
    lines
        .filter(|(_, line)| is_found(line))
        .map(|(index, line)| format!("{}:{}: {}", file.path, index + 1, line.trim()))
        .collect()
}

#[test]
fn only_the_programs_print() {
    const PRINTING: &[&str] = &["print", "println", "eprint", "eprintln"];
    let programs = |path: &str| {
        path.starts_with("src/cli/") || path.starts_with("src/bin/") || path == "src/main.rs"
    };
    let mut found = Vec::new();
    for file in rust_files(&["src"]) {
        if !programs(&file.path) {
            for name in scan::macros_outside_tests(&file.text) {
                if PRINTING.contains(&name.as_str()) {
                    found.push(format!("{}: {name}!", file.path));
                }
            }
        }
    }
    assert_none(found, "the library speaks through `tracing`");
}

#[test]
fn the_map_of_the_library_names_each_module() {
    let library = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs"));
    let library = library.unwrap();
    let map: String = library
        .lines()
        .filter(|line| line.starts_with("//!"))
        .collect();
    let missing = library
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .filter(|module| !map.contains(&format!("[`{module}`]")))
        .map(str::to_owned)
        .collect();
    assert_none(missing, "a newcomer looks for these in src/lib.rs");
}
