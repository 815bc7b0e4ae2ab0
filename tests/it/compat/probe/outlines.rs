//! The outlines in the library must be those of the cassettes. `UPDATE=1 cargo test outlines` writes them.

use std::fs;
use std::path::{Path, PathBuf};

use chv_sandbox::compat::probe::{Outline, battery, recorded};
use chv_sandbox::spec::{Release, supported};

use super::recordings;

#[test]
fn outlines_are_those_of_the_cassettes() {
    for release in recorded::releases() {
        let contract = supported::contract(release).expect("a contract of each recorded release");
        let outline = Outline::of(&recordings(release), &contract);
        let (file, text) = (file(release), text(&outline));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&file, &text).unwrap();
        }
        assert!(
            fs::read_to_string(&file).unwrap() == text,
            "{} is not of the cassettes: run `UPDATE=1 cargo test outlines`",
            file.display()
        );
        let read: Outline = serde_json::from_str(&text).unwrap();
        assert_eq!(read, outline, "{release}");
    }
}

#[test]
fn every_outline_is_inside_the_library() {
    for release in recorded::releases() {
        let outline = recorded::outline(release).unwrap();
        assert_eq!(outline.scenarios.len(), battery::all().len(), "{release}");
    }
}

#[test]
fn every_recorded_release_is_listed() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = fs::read_dir(package.join("fixtures")).unwrap();
    let mut found: Vec<Release> = folders
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .collect();
    found.sort();
    assert_eq!(
        found,
        recorded::releases().collect::<Vec<_>>(),
        "the list is in src/compat/probe/recorded.rs"
    );
}

fn file(release: Release) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/compat/probe/outlines")
        .join(format!("{release}.json"))
}

/// The outline as JSON, with one line for each body and each step.
fn text(outline: &Outline) -> String {
    let lines = |items: Vec<String>, indent: &str| items.join(&format!(",\n{indent}"));
    fn json(value: &impl serde::Serialize) -> String {
        serde_json::to_string(value).unwrap()
    }
    let bodies = outline.bodies.iter().map(json).collect();
    let scenarios = outline.scenarios.iter().map(|(name, steps)| {
        let steps = steps.iter().map(json).collect();
        format!("\"{name}\": [\n      {}\n    ]", lines(steps, "      "))
    });
    format!(
        "{{\n  \"bodies\": [\n    {}\n  ],\n  \"scenarios\": {{\n    {}\n  }}\n}}\n",
        lines(bodies, "    "),
        lines(scenarios.collect(), "    ")
    )
}
