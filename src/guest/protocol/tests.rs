use std::num::NonZeroU32;

use serde_json::{Value, json};

use super::*;

const ID: &str = "3f2504e0-4f89-41d3-9a0c-0305e82c3301";
const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// One example of every frame, as it stands on the wire.
fn examples() -> Vec<Value> {
    let details = json!({
        "fs_hash": DIGEST, "fs_hash_baseline": "sha256:not-configured", "fs_hash_match": false,
        "open_fd_count": 3, "open_fd_count_baseline": 0,
        "vmm_api_state": "running", "expected_vmm_api_state": "running", "divergence_action": "halt",
    });
    vec![
        json!({"type": "ToolDispatch", "command_id": "c1", "tool": "echo", "params": {"message": "hi"}, "deadline_ms": 5000}),
        json!({"type": "ToolResult", "command_id": "c1", "exit_code": 0, "stdout": "hi\n", "stderr": "", "evidence_hash": null}),
        json!({"type": "ToolResult", "command_id": "c1", "exit_code": -1, "stdout": "", "stderr": "", "evidence_hash": DIGEST}),
        json!({"type": "EvidenceChunk", "command_id": "c1", "seq": 1, "chunk_data": "aGk=", "chunk_size": 2, "is_terminal": true}),
        json!({"type": "GuestQuery", "query_id": ID, "query_kind": "OpenFdCount", "ts": "2026-01-02T03:04:05Z"}),
        json!({"type": "GuestResponse", "query_id": ID, "query_kind": "OpenFdCount", "result": {"open_fd_count": 7}, "ts": "2026-01-02T03:04:05Z"}),
        json!({"type": "GuestResponse", "query_id": ID, "query_kind": "MemUsage", "result": {"bytes_used": 1, "bytes_total": 2}, "ts": "2026-01-02T03:04:05Z"}),
        json!({"type": "GuestResponse", "query_id": ID, "query_kind": "ProcessList", "result": {"processes": [{"name": "init", "pid": 1}]}, "ts": "2026-01-02T03:04:05Z"}),
        json!({"type": "ResetSignal", "reset_id": "r1", "reason": "on_command_id_mismatch"}),
        json!({"type": "ResetAck", "reset_id": "r1", "reset_complete_at": "2026-01-02T03:04:05Z", "golden_hash": DIGEST, "verification_passed": false, "verification_details": details}),
        json!({"type": "ErrorEvent", "code": "UNKNOWN_FRAME", "message": "what?"}),
        json!({"type": "Hello", "protocol": 1, "build_id": "0123456789abcdef", "extensions": ["nonce", "reseed", "clock", "telepathy"]}),
        json!({"type": "Hello", "protocol": 1, "build_id": "0123456789abcdef", "extensions": [], "nonce": "n"}),
        json!({"type": "Imprint", "request_id": ID, "nonce": "n"}),
        json!({"type": "Imprinted", "request_id": ID}),
        json!({"type": "Renew", "request_id": ID, "seed": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "unix_nanos": 1_767_323_045_000_000_000_u64}),
        json!({"type": "Renewed", "request_id": ID, "nonce": null, "reseeded": true, "clock_set": false, "clock_offset_ms": -3}),
        json!({"type": "OpenRun", "command_id": "c1", "tool": "sh", "params": {"script": "cat"}, "deadline_ms": 5000, "stdin": "piped", "env": {"LANG": "C"}, "cwd": "/work"}),
        json!({"type": "OpenRun", "command_id": "c1", "tool": "sh", "params": {}, "deadline_ms": 0, "stdin": "none", "env": {}, "cwd": null}),
        json!({"type": "OpenPush", "transfer_id": ID, "path": "/work", "limits": {"entries": 1, "bytes": 2}}),
        json!({"type": "OpenPull", "transfer_id": ID, "path": "x", "limits": {"entries": 1, "bytes": 2}}),
        json!({"type": "Opened"}),
        json!({"type": "WarmDispatch", "command_id": "c1", "tool": "echo", "params": {"message": "hi"}, "deadline_ms": 5000}),
    ]
}

fn decode(body: &Value) -> Result<Frame, DecodeError> {
    Frame::decode(body.to_string().as_bytes())
}

/// `body` with `field` set to `value`.
fn with(mut body: Value, field: &str, value: Value) -> Value {
    body[field] = value;
    body
}

#[test]
fn every_frame_keeps_its_wire_shape() {
    let mut seen = std::collections::BTreeSet::new();
    for body in examples() {
        let frame = decode(&body).unwrap_or_else(|error| panic!("{body}: {error:?}"));
        assert_eq!(frame.name(), body["type"]);
        seen.insert(frame.name());
        assert_eq!(serde_json::to_value(&frame).unwrap(), body);
    }
    assert_eq!(
        seen.len(),
        FrameType::ALL.len(),
        "every frame has an example"
    );
}

#[test]
fn the_type_may_come_last() {
    for mut body in examples() {
        let name = body.as_object_mut().unwrap().remove("type").unwrap();
        let text = body.to_string();
        let fields = text.strip_suffix('}').unwrap();
        let comma = if fields == "{" { "" } else { "," };
        let text = format!("{fields}{comma}\"type\":{name}}}");
        assert_eq!(Frame::decode(text.as_bytes()).unwrap().name(), name);
    }
}

#[test]
fn every_object_is_closed() {
    for body in examples() {
        refused(&with(body.clone(), "surprise", json!(1)));
        for (field, value) in body.as_object().unwrap() {
            // `params` and `env` have the caller's own names.
            if value.is_object() && field != "params" && field != "env" {
                refused(&with(
                    body.clone(),
                    field,
                    with(value.clone(), "surprise", json!(1)),
                ));
            }
        }
    }
}

#[test]
fn every_field_is_needed_unless_it_may_be_null() {
    for body in examples() {
        for field in body.as_object().unwrap().keys() {
            let mut lacking = body.clone();
            lacking.as_object_mut().unwrap().remove(field);
            let may_lack = matches!(field.as_str(), "evidence_hash" | "nonce" | "cwd")
                && body["type"] != "Imprint";
            assert_eq!(decode(&lacking).is_ok(), may_lack, "{lacking}");
        }
    }
}

#[test]
fn an_array_in_place_of_an_object_is_refused() {
    refused(&json!(["ErrorEvent", "code", "message"]));
    for body in examples() {
        for (field, value) in body.as_object().unwrap() {
            if let (Some(object), true) = (value.as_object(), field != "params") {
                let values = object.values().cloned().collect();
                refused(&with(body.clone(), field, Value::Array(values)));
            }
        }
    }
    let processes = json!({"processes": [["init", 1]]});
    refused(&with(examples().swap_remove(7), "result", processes));
}

fn refused(body: &Value) {
    if let Ok(frame) = decode(body) {
        panic!("{body} was read as {frame:?}");
    }
}

#[test]
fn values_stay_in_their_ranges() {
    let example = |name: &str| {
        let mut examples = examples().into_iter();
        examples.find(|body| body["type"] == name).unwrap()
    };
    let response = |kind: &str, result: Value| {
        with(
            with(example("GuestResponse"), "query_kind", json!(kind)),
            "result",
            result,
        )
    };
    let check = |body: Value, accepted: bool| {
        assert_eq!(decode(&body).is_ok(), accepted, "{body:.300}");
    };

    for (tool, accepted) in [(0, false), (1, true), (256, true), (257, false)] {
        check(
            with(example("ToolDispatch"), "tool", json!("é".repeat(tool))),
            accepted,
        );
    }
    check(
        with(example("ToolDispatch"), "deadline_ms", json!(-1)),
        false,
    );
    check(
        with(
            example("ToolResult"),
            "exit_code",
            json!(i64::from(i32::MAX) + 1),
        ),
        false,
    );
    check(with(example("ToolResult"), "exit_code", json!(1.0)), false);
    check(with(example("EvidenceChunk"), "seq", json!(-1)), false);
    check(
        with(example("EvidenceChunk"), "chunk_data", json!("aGk")),
        false,
    );
    for (bytes, accepted) in [(MAX_EVIDENCE_CHUNK, true), (MAX_EVIDENCE_CHUNK + 1, false)] {
        use base64::Engine as _;
        let data = base64::engine::general_purpose::STANDARD.encode(vec![0; bytes]);
        check(
            with(example("EvidenceChunk"), "chunk_data", json!(data)),
            accepted,
        );
    }
    let version_1 = "c232ab00-9414-11ec-b3c8-9f6bdeced846";
    for name in ["GuestQuery", "GuestResponse"] {
        check(with(example(name), "query_id", json!(version_1)), false);
        check(with(example(name), "query_kind", json!("Uptime")), false);
        check(with(example(name), "ts", json!("yesterday")), false);
    }
    check(response("OpenFdCount", json!({"open_fd_count": -1})), false);
    check(
        response("OpenFdCount", json!({"bytes_used": 1, "bytes_total": 2})),
        false,
    );
    check(response("MemUsage", json!({"open_fd_count": 1})), false);
    for (count, accepted) in [(0, true), (MAX_PROCESSES, true), (MAX_PROCESSES + 1, false)] {
        let processes = vec![json!({"name": "a", "pid": 1}); count];
        check(
            response("ProcessList", json!({"processes": processes})),
            accepted,
        );
    }
    check(
        response(
            "ProcessList",
            json!({"processes": [{"name": "a", "pid": 0}]}),
        ),
        false,
    );
    check(
        with(example("ResetSignal"), "reason", json!("boredom")),
        false,
    );
    for digest in [
        "",
        "sha256:",
        "sha256:E3",
        "md5:not-configured",
        &DIGEST.to_uppercase(),
        &DIGEST[..70],
    ] {
        check(
            with(example("ResetAck"), "golden_hash", json!(digest)),
            false,
        );
    }
    check(
        with(example("Hello"), "extensions", json!(vec!["x"; 64])),
        true,
    );
    check(
        with(example("Hello"), "extensions", json!(vec!["x"; 65])),
        false,
    );
    check(with(example("Renew"), "seed", json!("AAAA")), false);
    check(with(example("Renew"), "unix_nanos", json!(-1)), false);
}

#[test]
fn an_error_says_which_rule_a_frame_breaks() {
    let check = |body: &[u8], expected: &str| {
        let error = Frame::decode(body).unwrap_err();
        let text = crate::causes::Causes(&error).to_string();
        assert!(text.contains(expected), "{text:?} says {expected:?}");
    };
    check(b"\xff{}", "not UTF-8");
    check(
        b"{\"type\":\"ErrorEvent\",\"code\":\"\xed\xa0\x80\",\"message\":\"\"}",
        "not UTF-8",
    );
    check(b"", "EOF");
    check(b"{", "EOF");
    check(b"null", "expected struct Tag");
    check(b"{}", "missing field `type`");
    check(br#"{"type":"Nonsense"}"#, "\"Nonsense\" is not known");
    check(br#"{"type":1}"#, "invalid type: integer");
    check(
        br#"{"type":"ErrorEvent","type":"ErrorEvent","code":"","message":""}"#,
        "duplicate field `type`",
    );
    check(
        br#"{"type":"ErrorEvent","code":"","code":"","message":""}"#,
        "duplicate field `code`",
    );
    check(
        br#"{"type":"ErrorEvent","code":"","message":"","x":1}"#,
        "unknown field `x`",
    );
    check(
        br#"{"type":"ErrorEvent","code":"","message":""} "x""#,
        "trailing characters",
    );
    let deep = format!(
        r#"{{"type":"ToolDispatch","params":{}{}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    check(deep.as_bytes(), "recursion limit");
    let field = format!(r#"{{"type":"ErrorEvent","\n{}":1}}"#, "y".repeat(1 << 20));
    let error = Frame::decode(field.as_bytes()).unwrap_err();
    assert!(
        matches!(&error, DecodeError::NotAFrame { reason } if reason.chars().count() == 200 && !reason.contains('\n')),
        "{error:.300}"
    );
    let long = format!(r#"{{"type":"{}"}}"#, "y".repeat(1 << 20));
    let error = Frame::decode(long.as_bytes()).unwrap_err();
    assert!(matches!(error, DecodeError::UnknownType { name } if name.len() == 64));
}

#[test]
fn a_response_says_its_kind_once() {
    let reading = QueryResult::ProcessList(ProcessList {
        processes: vec![GuestProcess {
            name: "init".into(),
            pid: NonZeroU32::MIN,
        }],
    });
    assert_eq!(reading.kind(), QueryKind::ProcessList);
}

#[test]
fn a_hello_says_what_it_supports() {
    let hello = Hello::of_this_build();
    assert!(hello.is_same_build());
    assert!(
        Extension::ALL
            .iter()
            .all(|&extension| hello.supports(extension))
    );
    let older = Hello {
        extensions: vec!["clock".into()],
        build_id: String::new(),
        ..hello
    };
    assert!(older.supports(Extension::Clock) && !older.supports(Extension::Nonce));
    assert!(!older.is_same_build());
}

#[test]
fn a_seed_is_not_shown() {
    assert_eq!(format!("{:?}", Seed([7; 32])), "Seed(..)");
}
