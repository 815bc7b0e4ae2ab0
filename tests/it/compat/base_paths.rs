//! The base path of a server is compared, wherever a document gives it. The rest of the server's address is not.

use super::{compare, lines, parse, served};

const PLAIN: &str = "put: { responses: { 204: { description: Done } } }";

/// The findings between documents with these servers, for the endpoint `/vm.set`.
#[track_caller]
fn check_servers(old: &str, new: &str, expected: &[&str]) {
    let paths = format!("/vm.set: {{ {PLAIN} }}");
    let found = compare(&served(old, &paths), &served(new, &paths));
    assert_eq!(lines(&found), expected, "{old} to {new}: {found:#?}");
}

const GONE: &str = "Breaking base-path-removed /servers [vm.set]";
const NEW: &str = "Info base-path-added /servers [vm.set]";

#[test]
fn base_paths_are_compared_and_hosts_are_not() {
    let at = |url: &str| format!("servers: [{{ url: \"{url}\" }}]");
    let check = |old: &str, new: &str, expected: &[&str]| {
        check_servers(&at(old), &at(new), expected);
    };
    let other = &[GONE, NEW];
    check("http://localhost/api/v1", "http://localhost/api/v2", other);
    check("http://localhost/api/v1", "http://localhost", other);
    check("http://localhost/api/v1", "http://localhost/api/V1", other);
    check("/api/v1", "/api", other);
    check(
        "http://localhost/api/v1",
        "https://example.org:8080/api/v1/",
        &[],
    );
    check("http://localhost/api/v1", "/api/v1", &[]);
    check("http://localhost/api/v1", "api/v1", &[]);
    check("http://localhost", "/", &[]);
}

#[test]
fn every_address_of_a_document_counts() {
    let one = "servers: [{ url: /api/v1 }]";
    let two = "servers: [{ url: /api/v2 }, { url: /api/v1 }]";
    check_servers(one, two, &[NEW]);
    check_servers(two, one, &[GONE]);
    check_servers(two, "servers: [{ url: /api/v1 }, { url: /api/v2 }]", &[]);
    // A document without servers is served at the root.
    check_servers("", "servers: [{ url: / }]", &[]);
    check_servers("servers: []", "", &[]);
    check_servers("", one, &[GONE, NEW]);
    check_servers(one, "", &[GONE, NEW]);
}

#[test]
fn variables_stand_for_their_values() {
    let with = |variables: &str| {
        format!(
            "servers: [{{ url: \"http://{{host}}/{{api}}/v1\", variables: {{ host: {{ default: localhost }}, {variables} }} }}]"
        )
    };
    let fixed = "servers: [{ url: /api/v1 }]";
    check_servers(fixed, &with("api: { default: api }"), &[]);
    check_servers(fixed, &with("api: { default: rest }"), &[GONE, NEW]);
    check_servers(
        fixed,
        &with("api: { default: rest, enum: [rest, api] }"),
        &[NEW],
    );
    check_servers(
        &with("api: { default: rest, enum: [rest, api] }"),
        fixed,
        &[GONE],
    );
}

#[test]
fn an_endpoint_may_have_an_address_of_its_own() {
    let of = |path: &str, operation: &str| {
        let paths = format!(
            "/vm.get: {{ {PLAIN} }}, /vm.set: {{ {path} put: {{ {operation} responses: {{ 204: {{ description: Done }} }} }} }}"
        );
        served("servers: [{ url: /api/v1 }]", &paths)
    };
    let plain = of("", "");
    let own = [
        of("servers: [{ url: /api/v2 }],", ""),
        of("", "servers: [{ url: /api/v2 }],"),
    ];
    let place = "/paths/~1vm.set/put/servers";
    for own in &own {
        let expected = [
            format!("Breaking base-path-removed {place} [vm.set]"),
            format!("Info base-path-added {place} [vm.set]"),
        ];
        assert_eq!(lines(&compare(&plain, own)), expected);
        assert_eq!(lines(&compare(own, &plain)), expected);
    }
    assert_eq!(compare(&own[0], &own[1]), []);
    assert_eq!(compare(&plain, &of("servers: [{ url: /api/v1 }],", "")), []);
    // The operation's own servers take precedence over those of the path.
    let both = of(
        "servers: [{ url: /api/v3 }],",
        "servers: [{ url: /api/v2 }],",
    );
    assert_eq!(compare(&both, &own[1]), []);
}

#[test]
fn a_part_of_the_address_may_move_into_the_paths() {
    let at = |server: &str, path: &str| {
        served(
            &format!("servers: [{{ url: {server} }}]"),
            &format!("{path}: {{ {PLAIN} }}"),
        )
    };
    let base = at("/api/v1", "/vm.set");
    for (server, path) in [("/api", "/v1/vm.set"), ("/", "/api/v1/vm.set")] {
        assert_eq!(compare(&base, &at(server, path)), [], "{server} {path}");
        assert_eq!(compare(&at(server, path), &base), [], "{server} {path}");
    }
    let elsewhere = lines(&compare(&base, &at("/api", "/v2/vm.set")));
    assert!(elsewhere.contains(&"Breaking endpoint-removed /paths/~1vm.set [vm.set]".to_owned()));
}

#[test]
fn an_address_that_is_not_understood_is_refused() {
    fn check(servers: &str, expected: &str) {
        let error = parse(&served(servers, "")).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains(expected), "{source}");
    }
    check(
        "servers: [{ url: \"/{api}\" }]",
        "/servers/0/url: expected variables that `variables` describes, found `api`",
    );
    check(
        "servers: [{ url: \"/{api\" }]",
        "/servers/0/url: expected a `}`",
    );
    check(
        "servers: [{ url: \"/{api}\", variables: { api: { enum: [a] } } }]",
        "`default` is missing",
    );
    check("servers: [{ host: x }]", "`url` is missing");
    check("servers: /api", "expected a list");
    let ten = "{ default: a, enum: [a, b, c, d, e, f, g, h, i, j] }";
    let hundred =
        "servers: [{ url: \"/{a}/{b}\", variables: { a: TEN, b: TEN } }]".replace("TEN", ten);
    check(&hundred, "/servers/0/url: expected at most 64 addresses");
    let servers: Vec<String> = (0..65).map(|n| format!("{{ url: /{n} }}")).collect();
    let many = format!("servers: [{}]", servers.join(", "));
    check(&many, "/servers: expected at most 64 addresses");
}
