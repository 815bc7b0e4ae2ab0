//! Opening an image: all of its files must be there, and its manifest is read strictly.

use std::{fs, path::Path};

use chv_sandbox::image::{Error, Image};

/// Opens an image of small files that were made without packing, after `change`.
fn opened(change: impl FnOnce(&Path, &mut serde_json::Value)) -> Result<Image, Error> {
    let dir = tempfile::tempdir().expect("a directory");
    let record = serde_json::json!({"size": 1, "sha256": format!("sha256:{}", "0".repeat(64))});
    let mut manifest = serde_json::json!({
        "format": 1, "cmdline": "quiet", "kernel_release": "6.1.0", "guest_build_id": "id", "modules": [],
        "kernel": record, "initramfs": record, "root": record, "overlay": record,
    });
    for file in ["kernel", "initramfs", "root.img", "overlay.img"] {
        fs::write(dir.path().join(file), "x").expect("written");
    }
    change(dir.path(), &mut manifest);
    if !manifest.is_null() {
        fs::write(dir.path().join("image.json"), manifest.to_string()).expect("written");
    }
    Image::open(dir.path())
}

#[test]
fn an_image_that_is_not_whole_is_not_opened() {
    fn check(change: impl FnOnce(&Path, &mut serde_json::Value), expected: &str) {
        let error = opened(change).expect_err("must be refused");
        let source = std::error::Error::source(&error)
            .map(ToString::to_string)
            .unwrap_or_default();
        let text = format!("{error}: {source}");
        assert!(text.contains(expected), "{expected:?} is not in: {text}");
    }

    let image = opened(|_, _| {}).expect("whole");
    assert_eq!(
        (image.cmdline(), image.manifest().kernel_release.as_deref()),
        ("quiet", Some("6.1.0"))
    );

    check(
        |_, json| *json = serde_json::Value::Null,
        "has no image.json",
    );
    for file in ["kernel", "initramfs", "root.img", "overlay.img"] {
        check(
            |dir, _| fs::remove_file(dir.join(file)).expect("removed"),
            &format!("has no {file}"),
        );
    }
    check(
        |dir, _| {
            fs::remove_file(dir.join("kernel")).expect("removed");
            fs::create_dir(dir.join("kernel")).expect("made");
        },
        "not a regular file",
    );
    check(
        |dir, _| fs::write(dir.join("root.img"), "xx").expect("written"),
        "has size 2, and its manifest says 1",
    );
    check(|_, json| json["format"] = 2.into(), "format is 2");
    check(|_, json| json["more"] = 2.into(), "unknown field `more`");
    check(
        |_, json| json["root"]["more"] = 2.into(),
        "unknown field `more`",
    );
    check(
        |_, json| json["root"]["sha256"] = "sha256:00".into(),
        "is not a digest",
    );
    check(
        |_, json| json["root"]["size"] = (-1).into(),
        "invalid value",
    );
    check(
        |_, json| json["guest_build_id"] = "".into(),
        "guest_build_id",
    );
    check(
        |_, json| json["cmdline"] = "a\u{0}".into(),
        "control character",
    );
    check(
        |_, json| drop(json.as_object_mut().expect("an object").remove("overlay")),
        "missing field `overlay`",
    );
    check(
        |_, json| json["cmdline"] = "x".repeat(70_000).into(),
        "at most 65536",
    );
    check(
        |dir, json| {
            let text = json
                .to_string()
                .replacen("\"format\":1", "\"format\":1,\"format\":1", 1);
            fs::write(dir.join("image.json"), text).expect("written");
            *json = serde_json::Value::Null;
        },
        "duplicate field `format`",
    );
}
