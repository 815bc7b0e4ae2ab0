//! Files that are generated from the cassettes: the matrix of releases, and the index of the recorded operations.
//!
//! Both are committed and compared with the fixtures; `UPDATE=1 cargo test from_fixtures` writes them anew.

mod index;
mod matrix;
mod used;

use std::fs;
use std::path::{Path, PathBuf};

use chv_sandbox::replay::Cassette;

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every cassette with its name, which is the file's name without its extension.
fn cassettes() -> Vec<(String, Cassette)> {
    let fixtures = package().join("fixtures");
    let folders = entries(&fixtures)
        .into_iter()
        .filter(|path| path.is_dir() && is_release(path));
    let mut files: Vec<PathBuf> = folders.flat_map(|folder| entries(&folder)).collect();
    files.extend(entries(&fixtures).into_iter().filter(|path| path.is_file()));
    files.retain(|path| path.extension().is_some_and(|ending| ending == "json"));
    assert!(files.len() > 20, "the cassettes were not found");
    let read = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, Cassette::read(path).unwrap())
    };
    files.into_iter().map(read).collect()
}

fn is_release(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.parse::<chv_sandbox::spec::Release>().is_ok())
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    entries
}

/// Compares the file at `path` in the package with `text`, or writes it if `UPDATE` is set.
fn assert_fresh(path: &str, text: &str) {
    let file = package().join(path);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&file, text).unwrap();
    }
    assert!(
        fs::read_to_string(&file).is_ok_and(|committed| committed == text),
        "{path} is not what the fixtures say: run `UPDATE=1 cargo test from_fixtures`"
    );
}
