//! Statuses and media types are compared by their meaning.

use super::{compare, lines, served};

/// Checks the findings between two endpoints that answer with these statuses. `T` and `I` stand for bodies: a text and
/// a number.
#[track_caller]
fn check_responses(old: &str, new: &str, expected: &[&str]) {
    let endpoint = |answers: &str| {
        let answers: Vec<String> = answers
            .split(' ')
            .map(|answer| {
                let body = |kind: &str| {
                    format!(", content: {{ application/json: {{ schema: {{ {kind} }} }} }}")
                };
                let (status, body) = match answer.split_once(':') {
                    None => (answer, String::new()),
                    Some((status, "T")) => (status, body("type: string")),
                    Some((status, "I")) => (status, body("type: integer")),
                    Some((_, other)) => panic!("no body {other}"),
                };
                format!("{status}: {{ description: Done{body} }}")
            })
            .collect();
        let paths = format!(
            "/vm.set: {{ put: {{ responses: {{ {} }} }} }}",
            answers.join(", ")
        );
        served("", &paths)
    };
    let found: Vec<String> = lines(&compare(&endpoint(old), &endpoint(new)))
        .iter()
        .map(|line| {
            line.replace("/paths/~1vm.set/put/responses/", "")
                .replace("/content/application~1json/schema", "")
                .replace(" [vm.set]", "")
        })
        .collect();
    assert_eq!(found, expected, "{old} to {new}");
}

#[test]
fn a_status_is_compared_with_the_entry_that_covered_it() {
    let check = check_responses;
    check("2XX:T", "200:T", &["Info success-status-narrowed 2XX"]);
    check(
        "2XX:T",
        "200:T 201:T",
        &["Info success-status-narrowed 2XX"],
    );
    check("2XX:T", "200:T 2XX:T", &[]);
    check("200:T 2XX:T", "2XX:T", &[]);
    check("200:T", "2XX:T", &["Info success-status-added 2XX"]);
    check("default:T", "200:T", &["Info error-status-removed default"]);
    check("200:T", "default:T", &["Info error-status-added default"]);
    check("default:T", "2XX:T default:T", &[]);
    check("2XX:T default:T", "200:T default:T", &[]);
    check("404:T", "4XX:T", &["Info error-status-added 4XX"]);
    check("4XX:T", "404:T 429:T", &["Info error-status-removed 4XX"]);

    let changed = |place: &str| format!("Breaking response-type-changed {place}");
    check(
        "2XX:T",
        "200:I",
        &[&changed("200"), "Info success-status-narrowed 2XX"],
    );
    check(
        "200:T",
        "2XX:I",
        &[&changed("2XX"), "Info success-status-added 2XX"],
    );
    check(
        "default:T",
        "200:I",
        &[&changed("200"), "Info error-status-removed default"],
    );
    check(
        "200:T",
        "default:I",
        &[&changed("default"), "Info error-status-added default"],
    );
    check("default:T", "2XX:I default:T", &[&changed("2XX")]);
    check(
        "200:T default:T",
        "200:T 404:I default:T",
        &[&changed("404")],
    );
    check(
        "200:T 404:I default:T",
        "200:T default:T",
        &[&changed("default")],
    );
    // Two entries became one, which is one change at the place where the entry is written.
    check(
        "200:T 201:T",
        "2XX:I",
        &[&changed("2XX"), "Info success-status-added 2XX"],
    );
    check(
        "2XX:T",
        "200:I 201:T",
        &[&changed("200"), "Info success-status-narrowed 2XX"],
    );
    // The entry of a status takes precedence over that of its class.
    check(
        "200:T 2XX:I",
        "200:T 2XX:I default:T",
        &["Info error-status-added default"],
    );
    check("200:T 2XX:I", "200:I 2XX:I", &[&changed("200")]);
}

#[test]
fn a_success_that_is_gone_breaks() {
    let check = check_responses;
    check(
        "200:T 204",
        "200:T",
        &["Breaking success-status-removed 204"],
    );
    check("2XX:T 404", "404", &["Breaking success-status-removed 2XX"]);
    check(
        "default:T",
        "404:T",
        &["Breaking success-status-removed default"],
    );
    check(
        "200:T 2XX:I",
        "200:T",
        &["Info success-status-narrowed 2XX"],
    );
    check(
        "200:T default:I",
        "200:T",
        &["Info error-status-removed default"],
    );
    check("200:T 4XX:I", "200:T", &["Info error-status-removed 4XX"]);
}

#[test]
fn a_body_may_come_and_go_with_the_entry() {
    let check = check_responses;
    check(
        "2XX:T",
        "200",
        &[
            "Breaking response-body-removed 2XX/content",
            "Info success-status-narrowed 2XX",
        ],
    );
    check(
        "2XX",
        "200:T",
        &[
            "Info response-body-added 200/content",
            "Info success-status-narrowed 2XX",
        ],
    );
    check("200", "200 204", &["Info success-status-added 204"]);
    check("200:T", "200:T 2XX", &["Info success-status-added 2XX"]);
    // A 204 has no body, so a `default` with a body says nothing about it.
    check(
        "200:T default:I",
        "200:T 204 default:I",
        &["Info success-status-added 204"],
    );
    check(
        "200:T 204 default:I",
        "200:T default:I",
        &["Breaking success-status-removed 204"],
    );
    check("200:T default", "200:T 204 default", &[]);
    check(
        "default:T",
        "204",
        &[
            "Breaking success-status-removed default",
            "Info success-status-added 204",
        ],
    );
    check(
        "2XX:T",
        "200:T 204",
        &[
            "Breaking response-body-removed 2XX/content",
            "Info success-status-narrowed 2XX",
        ],
    );
}

/// Checks the findings, in requests and in responses, between bodies with these media types and schemas.
#[track_caller]
fn check_media(old: &[(&str, &str)], new: &[(&str, &str)], expected: &[&str]) {
    let endpoint = |bodies: &[(&str, &str)]| {
        let bodies: Vec<String> = bodies
            .iter()
            .map(|(media, kind)| format!("'{media}': {{ schema: {{ type: {kind} }} }}"))
            .collect();
        let content = format!("content: {{ {} }}", bodies.join(", "));
        served(
            "",
            &format!(
                "/vm.set: {{ put: {{ requestBody: {{ {content} }}, responses: {{ 200: {{ description: Done, {content} }} }} }} }}"
            ),
        )
    };
    let found = compare(&endpoint(old), &endpoint(new));
    let found: Vec<String> = found
        .iter()
        .map(|found| format!("{:?} {}", found.level, found.id))
        .collect();
    let mut sorted = (found.clone(), expected.to_vec());
    sorted.0.sort();
    sorted.1.sort_unstable();
    assert_eq!(sorted.0, sorted.1, "{old:?} to {new:?}");
}

#[test]
fn media_types_are_compared_by_meaning_and_direction() {
    let text = |media| [(media, "string")];
    let check = |old, new, expected: &[&str]| check_media(&text(old), &text(new), expected);
    check("application/json", "application/json; charset=utf-8", &[]);
    check("application/json; charset=utf-8", "APPLICATION/Json", &[]);
    check(
        "text/plain; charset=utf-8",
        "text/plain;charset=\"UTF-8\"",
        &[],
    );
    check("a/b; x=1; y=2", "a/b; y=2; x=1", &[]);
    let narrowed = &[
        "Breaking request-media-type-narrowed",
        "Info response-media-type-narrowed",
    ];
    let widened = &[
        "Info request-media-type-widened",
        "Breaking response-media-type-widened",
    ];
    for (wide, narrow) in [
        ("*/*", "application/json"),
        ("application/*", "application/json; v=1"),
        ("a/b", "a/b; v=1"),
    ] {
        check(wide, narrow, narrowed);
        check(narrow, wide, widened);
    }
    let another = &[
        "Breaking request-media-type-removed",
        "Breaking response-media-type-removed",
        "Info request-media-type-added",
        "Info response-media-type-added",
    ];
    check("a/b; v=1", "a/b; v=2", another);
    check("application/json", "application/vnd.vm+json", another);
    check("application/json", "text/json", another);
}

#[test]
fn schemas_of_one_media_type_are_compared_however_it_is_written() {
    let changed = &[
        "Breaking request-type-changed",
        "Breaking response-type-changed",
    ];
    check_media(
        &[("application/json", "string")],
        &[("Application/JSON; charset=utf-8", "integer")],
        changed,
    );
    let mut widened = changed.to_vec();
    widened.extend([
        "Info request-media-type-widened",
        "Breaking response-media-type-widened",
    ]);
    check_media(
        &[("application/json", "string")],
        &[("*/*", "integer")],
        &widened,
    );
    // The more specific key takes precedence.
    check_media(
        &[("*/*", "string")],
        &[("*/*", "string"), ("application/json", "integer")],
        changed,
    );
    check_media(
        &[("*/*", "string"), ("application/json", "integer")],
        &[
            ("*/*", "string"),
            ("application/json; charset=utf-8", "integer"),
        ],
        &[],
    );
}
