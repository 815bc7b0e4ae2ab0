//! The generator of `src/api/generated/` and `src/client/generated/`: from the contracts in `api-spec/`, after their
//! corrections.
//!
//! The output is committed. The test generates it in memory and fails if a file differs. `UPDATE=1 cargo test codegen`
//! rewrites the files. The text is formatted by `prettyplease`, so it does not depend on the rustfmt of the toolchain.

mod api;
mod calls;
mod enums;
mod field_words;
mod layout;
mod method_words;
mod methods;
mod names;
mod operation;
mod structs;
mod support;
mod type_words;
mod types;
mod union;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use api::Api;
use chv_sandbox::spec::Shape;
use quote::quote;

type Generator = fn(&Api) -> BTreeMap<PathBuf, String>;

/// The folders of generated files, each with the function that makes its files by their path below it.
const FOLDERS: &[(&str, Generator)] = &[
    ("src/api/generated", requests),
    ("src/client/generated", methods),
];

fn requests(api: &Api) -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    let mut add = |path: &str, text: String| files.insert(PathBuf::from(path), text);
    add(
        "operation.rs",
        layout::file("The operations of the API.", operation::items(api)),
    );
    add(
        "calls.rs",
        layout::file(
            "One function an operation, each building a request.",
            calls::items(api),
        ),
    );
    add(
        "support.rs",
        layout::file(
            "The releases that know each operation and each field and value of its body.",
            support::items(api),
        ),
    );
    for (module, about, items) in types::modules(api) {
        add(&format!("types/{module}.rs"), layout::file(about, items));
    }
    let modules = types::MODULES
        .iter()
        .map(|(module, _)| names::ident(module));
    let uses = modules.clone();
    add(
        "types/mod.rs",
        layout::file(
            "The types of the API's bodies, named as their schemas.",
            vec![
                quote! { #(mod #modules;)* },
                quote! { #(pub use #uses::*;)* },
            ],
        ),
    );
    add(
        "mod.rs",
        layout::file(
            &format!(
                "The API of {} to {} in one, after the corrections of `api-spec/corrections.toml`.",
                api.releases[0], api.contract.release
            ),
            vec![
                quote! {
                    mod calls;
                    mod operation;
                    mod support;
                    pub mod types;
                },
                quote! {
                    pub use calls::*;
                    pub use operation::Operation;
                    pub use support::SUPPORTED;
                },
            ],
        ),
    );
    files
}

fn methods(api: &Api) -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    let mut modules = Vec::new();
    for (module, about, items) in methods::files(api) {
        let path = PathBuf::from(format!("{module}.rs"));
        files.insert(path, layout::file(about, items));
        modules.push(names::ident(module));
    }
    let text = layout::file(
        "The client's methods: one for each operation of the API.",
        vec![quote! { #(mod #modules;)* }],
    );
    files.insert(PathBuf::from("mod.rs"), text);
    files
}

#[test]
fn codegen_is_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let api = Api::read(&root.join("api-spec"));
    for (folder, generate) in FOLDERS {
        check_folder(root, folder, &generate(&api));
    }
}

#[test]
fn only_types_and_fields_that_exist_have_words() {
    let api = Api::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("api-spec"));
    for name in type_words::all() {
        assert!(
            api.contract.schemas.contains_key(name),
            "no release has {name}: delete its words"
        );
    }
    for (owner, field) in field_words::all() {
        let schema = api.contract.schemas.get(owner).map(|schema| &schema.shape);
        assert!(
            matches!(schema, Some(Shape::Object { properties, .. }) if properties.contains_key(field)),
            "no release has {owner}.{field}: delete its words"
        );
    }
}

/// Fails unless the files of `folder` are exactly the generated ones. Writes those first where `UPDATE` is set.
fn check_folder(root: &Path, name: &str, generated: &BTreeMap<PathBuf, String>) {
    let folder = root.join(name);
    if std::env::var_os("UPDATE").is_some() {
        for (path, text) in generated {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().expect("a file is in a folder"))
                .expect("the folder can be made");
            fs::write(path, text).expect("the file can be written");
        }
    }
    let mut committed = BTreeMap::new();
    collect(&folder, &folder, &mut committed);
    for (path, text) in generated {
        assert!(
            committed.remove(path).as_ref() == Some(text),
            "{name}/{} is not what the generator writes: run `UPDATE=1 cargo test codegen`",
            path.display()
        );
    }
    assert!(
        committed.is_empty(),
        "these files are not output of the generator: {:?}",
        committed.keys()
    );
}

/// Reads the files below `folder`, by their path below `root`.
fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(folder).expect("the folder can be listed") {
        let path = entry.expect("the folder can be listed").path();
        if path.is_dir() {
            collect(root, &path, files);
        } else {
            let name = path
                .strip_prefix(root)
                .expect("it is below the root")
                .to_owned();
            files.insert(
                name,
                fs::read_to_string(&path).expect("generated files are text"),
            );
        }
    }
}
