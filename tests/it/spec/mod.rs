//! Reading a contract: which documents are refused, which facts are kept, and how corrections change them.

pub(crate) mod contracts;
pub(crate) mod corrections;
mod supported;

use std::error::Error as _;
use std::fs;
use std::path::Path;

use chv_sandbox::causes::Causes;
use chv_sandbox::spec::{self, Error, MAX_DOCUMENT_BYTES, Release, Shape, Sources};

/// A small document with every fact that a contract keeps, and with prose, which a contract drops.
const DOCUMENT: &str = r##"
openapi: 3.0.1
info:
  title: PROSE
  description: PROSE
  license: { name: PROSE, url: "http://PROSE" }
  version: 0.3.0
servers:
  - url: http://localhost/api/v1
paths:
  /vm.add-thing:
    put:
      summary: PROSE
      operationId: PROSE
      requestBody:
        description: PROSE
        required: true
        content:
          application/json:
            schema:
              $ref: "#/components/schemas/Thing"
      responses:
        200:
          description: PROSE
          content:
            application/json:
              schema:
                $ref: "#/components/schemas/Thing"
        "204":
          description: PROSE
components:
  schemas:
    Thing:
      description: PROSE
      required: [size]
      type: object
      properties:
        size: { type: integer, format: int64, minimum: 1, maximum: 18446744073709551615 }
        mode: { $ref: "#/components/schemas/Mode" }
        description: { type: string, nullable: true, deprecated: true }
        counters: { type: object, additionalProperties: { type: integer, format: int64 } }
        parts: { type: array, items: { type: boolean, default: false } }
        anything: {}
    Mode:
      type: string
      enum: [Off, "On"]
      default: Off
"##;

fn release() -> Release {
    "v53.0".parse().unwrap()
}

/// Reads `document` as a file.
fn read(document: impl AsRef<[u8]>) -> Result<spec::Contract, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("document.yaml");
    fs::write(&path, document).unwrap();
    spec::read_import(&path, release())
}

/// An error with its causes, in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    Causes(error).to_string()
}

#[test]
fn facts_are_kept_and_prose_is_not() {
    let contract = read(DOCUMENT).unwrap();
    let text = contract.canonical();
    assert!(!text.contains("PROSE"), "{text}");
    let Shape::Object {
        properties,
        required,
    } = &contract.schemas["Thing"].shape
    else {
        panic!("a thing is an object");
    };
    assert!(
        properties.contains_key("description"),
        "a property of that name is no prose"
    );
    assert!(required.contains("size"));
    assert_eq!(contract.schemas["Mode"].default, Some("Off".into()));
    let statuses: Vec<u16> = contract.paths["/vm.add-thing"][&spec::Method::Put]
        .responses
        .keys()
        .copied()
        .collect();
    assert_eq!(statuses, [200, 204]);
}

#[test]
fn the_canonical_form_is_read_back_to_the_same_bytes() {
    fn check(contract: &spec::Contract) {
        let text = contract.canonical();
        let again = read(&text).unwrap();
        assert_eq!(&again, contract);
        assert_eq!(again.canonical(), text);
    }
    check(&read(DOCUMENT).unwrap());
    let servers = "  - url: http://localhost/api/v1\n";
    assert!(DOCUMENT.contains(servers));
    let many = "  - url: /{v}\n    variables: { v: { default: v1, enum: [v1, v2] } }\n  - url: http://a/b\n";
    let contract = read(DOCUMENT.replacen(servers, many, 1)).unwrap();
    assert_eq!(contract.servers, ["/v1", "/v2", "http://a/b"]);
    check(&contract);
    let of_endpoint = "    put:\n      servers: [{ url: /own }]\n";
    check(&read(DOCUMENT.replacen("    put:\n", of_endpoint, 1)).unwrap());
    let none = read(DOCUMENT.replacen(&format!("servers:\n{servers}"), "", 1)).unwrap();
    assert_eq!(none.servers, ["/"]);
    check(&none);
    check(&spec::read(&corrections::api_spec().join("v53.0.json")).unwrap());
}

#[test]
fn constructs_that_are_not_understood_are_refused_with_their_place() {
    /// Replaces `old` in the document. The error has to name `pointer` and `problem`.
    fn check(old: &str, new: &str, pointer: &str, problem: &str) {
        assert!(DOCUMENT.contains(old), "{old}");
        let error = read(DOCUMENT.replacen(old, new, 1)).unwrap_err();
        let Error::Invalid { source, .. } = &error else {
            panic!("{}", chain(&error));
        };
        assert_eq!(source.pointer, pointer, "{source}");
        assert!(source.problem.to_string().contains(problem), "{source}");
    }
    let thing = "/components/schemas/Thing";
    check("openapi: 3.0.1", "swagger: 2.0", "", "`openapi` is missing");
    check(
        "openapi: 3.0.1",
        "openapi: 3.1.0",
        "/openapi",
        "expected OpenAPI 3.0",
    );
    check("info:", "information:", "", "`info` is missing");
    check(
        "openapi: 3.0.1",
        "openapi: 3.0.1\nwebhooks: {}",
        "",
        "`webhooks` is not known",
    );
    check(
        "type: boolean, default",
        "type: boolean, oneOf: [], default",
        &format!("{thing}/properties/parts/items"),
        "`oneOf`",
    );
    check(
        "minimum: 1",
        "exclusiveMinimum: 1",
        &format!("{thing}/properties/size/exclusiveMinimum"),
        "expected true or false",
    );
    check(
        "minimum: 1",
        "minimum: one",
        &format!("{thing}/properties/size/minimum"),
        "expected a number",
    );
    check(
        "type: string\n",
        "type: 'enum [Off, On]'\n",
        "/components/schemas/Mode/type",
        "expected a type",
    );
    check(
        "[Off, \"On\"]",
        "[Off, \"Off\"]",
        "/components/schemas/Mode/enum/1",
        "not in the list before",
    );
    check(
        "[Off, \"On\"]",
        "[Off, 1]",
        "/components/schemas/Mode/enum/1",
        "expected a text",
    );
    check(
        "[size]",
        "size",
        &format!("{thing}/required"),
        "expected a list of texts",
    );
    check(
        "type: object, additional",
        "type: object, required: [x], additional",
        &format!("{thing}/properties/counters"),
        "cannot be combined with",
    );
    check(
        "items: { type: boolean, default: false }",
        "minItems: 1",
        &format!("{thing}/properties/parts"),
        "`items` is missing",
    );
    check(
        "schemas/Mode\" }",
        "schemas/Mood\" }",
        &format!("{thing}/properties/mode"),
        "leads to no schema",
    );
    check(
        "#/components/schemas/Mode",
        "other.yaml#/Mode",
        &format!("{thing}/properties/mode/$ref"),
        "leads to no schema",
    );
    check(
        "$ref: \"#/components/schemas/Mode\"",
        "$ref: \"#/components/schemas/Mode\", default: Off",
        &format!("{thing}/properties/mode"),
        "`default`",
    );
    check(
        "200:",
        "2xx:",
        "/paths/~1vm.add-thing/put/responses/2xx",
        "expected an HTTP status",
    );
    check(
        "200:",
        "\"0200\":",
        "/paths/~1vm.add-thing/put/responses/0200",
        "expected an HTTP status",
    );
    check(
        "200:",
        "999:",
        "/paths/~1vm.add-thing/put/responses/999",
        "expected an HTTP status",
    );
    check(
        "    put:",
        "    parameters: []\n    put:",
        "/paths/~1vm.add-thing",
        "`parameters`",
    );
    check(
        "      responses:",
        "      security: []\n      responses:",
        "/paths/~1vm.add-thing/put",
        "`security`",
    );
    check(
        "  schemas:",
        "  securitySchemes: {}\n  schemas:",
        "/components",
        "`securitySchemes`",
    );
    check(
        "    Mode:\n",
        "    Chain: { $ref: \"#/components/schemas/Link\" }\n    Link: { $ref: \"#/components/schemas/Chain\" }\n    Mode:\n",
        "/components/schemas/Chain",
        "form a cycle",
    );
}

#[test]
fn a_document_that_is_no_mapping_is_refused() {
    fn check(document: &str) {
        let error = read(document).unwrap_err();
        assert!(
            chain(&error).contains("at the root: expected a mapping"),
            "{}",
            chain(&error)
        );
    }
    check("");
    check("just a text");
    check("- a\n- list");
    check("53");
}

#[test]
fn the_parser_refuses_malformed_duplicate_and_excessive_input() {
    fn check(document: impl AsRef<[u8]>, problem: &str) {
        let error = read(document).unwrap_err();
        assert!(matches!(error, Error::Syntax { .. }), "{error:?}");
        assert!(chain(&error).contains(problem), "{}", chain(&error));
    }
    check("a: [1, 2", "");
    check("\u{0}\u{1}\u{2}", "");
    check([0xff, 0xfe, 0x80, 0x81], "");
    check("a: 1\n---\na: 2", "");
    check("a: .nan", "");
    check("a: 1\na: 2", "duplicate");
    check(DOCUMENT.replacen("\"204\":", "\"200\":", 1), "200");
    check(DOCUMENT.replacen("    Mode:", "    Thing:", 1), "Thing");
    check("base: &b { x: 1 }\ninfo:\n  <<: *b\n", "merge");
    check("[".repeat(2_000) + &"]".repeat(2_000), "");
    check(
        (0..100)
            .map(|depth| format!("{}a:\n", " ".repeat(depth)))
            .collect::<String>(),
        "",
    );
    check("- x\n".repeat(200_000), "");
    check(alias_bomb(), "");
}

/// Ten levels of ten references each: ten thousand million values from 400 bytes.
fn alias_bomb() -> String {
    let mut bomb = "a0: &a0 [x]\n".to_owned();
    for level in 1..=10 {
        let below = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb += &format!("a{level}: &a{level} [{below}]\n");
    }
    bomb
}

#[test]
fn a_file_that_is_too_large_is_not_parsed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.yaml");
    let file = fs::File::create(&path).unwrap();
    file.set_len(MAX_DOCUMENT_BYTES + 1).unwrap();
    assert!(matches!(spec::read(&path), Err(Error::TooLarge { .. })));
    // The size of an endless file can't be looked up first.
    assert!(matches!(
        spec::read(Path::new("/dev/zero")),
        Err(Error::TooLarge { .. })
    ));
    let absent = spec::read(&folder.path().join("absent.yaml")).unwrap_err();
    assert!(absent.to_string().contains("absent.yaml") && absent.source().is_some());
}

#[test]
fn an_import_writes_the_contract_and_its_source() {
    let folder = tempfile::tempdir().unwrap();
    let (upstream, into) = (
        folder.path().join("upstream.yaml"),
        folder.path().join("api-spec"),
    );
    fs::write(&upstream, DOCUMENT).unwrap();
    let commit = "9ed824d6d08df3e96f7d5f50795d9449ac99f431".to_owned();
    let (_, path) = spec::import(&upstream, release(), Some(commit.clone()), &into).unwrap();
    assert_eq!(path, into.join("v53.0.json"));
    let first = fs::read(&path).unwrap();
    let source = &Sources::read(&into).unwrap().release["v53.0"];
    assert_eq!(
        (source.tag, source.commit.as_ref()),
        (release(), Some(&commit))
    );
    assert_eq!(source.sha256.len(), 64);

    // Another release is written beside the first. A contract in canonical form is a valid source too.
    spec::import(&path, "v54.0".parse().unwrap(), None, &into).unwrap();
    assert_eq!(Sources::read(&into).unwrap().release.len(), 2);
    let (_, again) = spec::import(&path, release(), None, &into).unwrap();
    assert_eq!(fs::read(again).unwrap(), first);

    // A document that is refused changes no file.
    let listed = fs::read(into.join("sources.toml")).unwrap();
    fs::write(&upstream, "openapi: 3.0.1").unwrap();
    assert!(spec::import(&upstream, release(), None, &into).is_err());
    assert_eq!(fs::read(into.join("sources.toml")).unwrap(), listed);
    assert_eq!(fs::read(&path).unwrap(), first);
    assert_eq!(
        fs::read_dir(&into).unwrap().count(),
        3,
        "two contracts and their sources, nothing else"
    );
}
