//! Every small change of every endpoint of a real contract gives the findings of its kind, and no other.

use chv_sandbox::spec::{Contract, Endpoint, Response};

use super::{contract, findings, lines};

/// A change to one endpoint. It returns `false`, and changes nothing, where it does not fit.
type Change = fn(&mut Endpoint) -> bool;

const JSON: &str = "application/json";

/// Moves the first success to the entry `key`.
fn success_as(endpoint: &mut Endpoint, key: &str) -> bool {
    let status = first_success(endpoint);
    let response = endpoint.responses.remove(&status).unwrap();
    endpoint.fallbacks.insert(key.to_owned(), response);
    true
}

fn first_success(endpoint: &Endpoint) -> u16 {
    let success = endpoint.responses.range(200..300).next();
    *success.expect("every endpoint may succeed").0
}

/// Changes the media type of the JSON that the endpoint takes or answers.
fn media_type(endpoint: &mut Endpoint, request: bool, to: &str) -> bool {
    let contents = match request {
        true => endpoint
            .body
            .iter_mut()
            .map(|body| &mut body.content)
            .collect(),
        false => {
            let responses = endpoint.responses.values_mut();
            responses
                .map(|response| &mut response.content)
                .collect::<Vec<_>>()
        }
    };
    let mut changed = false;
    for content in contents {
        if let Some(schema) = content.remove(JSON) {
            content.insert(to.to_owned(), schema);
            changed = true;
        }
    }
    changed
}

/// The findings of each change, there and back: level, rule and place below the endpoint. `STATUS` stands for the
/// status of the first success.
const CHANGES: &[(Change, &[&str], &[&str])] = &[
    (
        |endpoint| success_as(endpoint, "2XX"),
        &["Info success-status-added /responses/2XX"],
        &["Info success-status-narrowed /responses/2XX"],
    ),
    (
        |endpoint| success_as(endpoint, "default"),
        &["Info error-status-added /responses/default"],
        &["Info error-status-removed /responses/default"],
    ),
    (
        |endpoint| {
            let status = first_success(endpoint);
            let response = endpoint.responses[&status].clone();
            endpoint.fallbacks.insert("2XX".to_owned(), response);
            true
        },
        &["Info success-status-added /responses/2XX"],
        &["Info success-status-narrowed /responses/2XX"],
    ),
    (
        |endpoint| {
            let status = first_success(endpoint);
            endpoint.responses.remove(&status).is_some()
        },
        &["Breaking success-status-removed /responses/STATUS"],
        &["Info success-status-added /responses/STATUS"],
    ),
    (
        |endpoint| {
            let teapot = endpoint.responses.insert(418, Response::default());
            teapot.is_none()
        },
        &["Info error-status-added /responses/418"],
        &["Info error-status-removed /responses/418"],
    ),
    (
        |endpoint| media_type(endpoint, true, "Application/JSON; charset=\"UTF-8\""),
        &[],
        &[],
    ),
    (
        |endpoint| media_type(endpoint, false, "Application/JSON; charset=\"UTF-8\""),
        &[],
        &[],
    ),
    (
        |endpoint| media_type(endpoint, true, "application/*"),
        &["Info request-media-type-widened /requestBody/content/application~1*"],
        &["Breaking request-media-type-narrowed /requestBody/content/application~1json"],
    ),
    (
        |endpoint| {
            // For another status than 200 the body would belong to that other status.
            first_success(endpoint) == 200 && media_type(endpoint, false, "application/*")
        },
        &["Breaking response-media-type-widened /responses/200/content/application~1*"],
        &["Info response-media-type-narrowed /responses/200/content/application~1json"],
    ),
    (
        |endpoint| {
            endpoint.servers = vec!["/api/v2".to_owned()];
            true
        },
        &[
            "Breaking base-path-removed /servers",
            "Info base-path-added /servers",
        ],
        &[
            "Breaking base-path-removed /servers",
            "Info base-path-added /servers",
        ],
    ),
    (
        |endpoint| {
            endpoint.servers = vec!["https://vm.example/api/v1/".to_owned()];
            true
        },
        &[],
        &[],
    ),
];

/// The one method of each path, with the JSON pointer to it.
fn endpoints(contract: &Contract) -> Vec<(String, String)> {
    let paths = contract.paths.iter();
    paths
        .map(|(path, methods)| {
            let (method, _) = methods.first_key_value().unwrap();
            let pointer = format!("/paths/~1{}/{}", &path[1..], method.key());
            (path.clone(), pointer)
        })
        .collect()
}

#[test]
fn each_change_of_an_endpoint_gives_the_findings_of_its_kind() {
    let base = contract("v53.0");
    let mut tried = vec![0; CHANGES.len()];
    for (path, pointer) in endpoints(&base) {
        for (index, (change, there, back)) in CHANGES.iter().enumerate() {
            let mut revision = base.clone();
            let methods = revision.paths.get_mut(&path).unwrap();
            let endpoint = methods.values_mut().next().unwrap();
            let status = first_success(endpoint).to_string();
            if !change(endpoint) {
                continue;
            }
            tried[index] += 1;
            let name = &path[1..];
            let check = |from: &Contract, to: &Contract, expected: &[&str]| {
                let found = findings(from, to);
                let expected: Vec<String> = expected
                    .iter()
                    .map(|line| {
                        let line = line.replace("STATUS", &status);
                        let (rule, below) = line.rsplit_once(' ').unwrap();
                        format!("{rule} {pointer}{below} [{name}]")
                    })
                    .collect();
                assert_eq!(
                    lines(&found),
                    expected,
                    "{path}, change {index}: {found:#?}"
                );
            };
            check(&base, &revision, there);
            check(&revision, &base, back);
        }
    }
    assert!(tried.iter().all(|tried| *tried > 0), "{tried:?}");
}

#[test]
fn another_base_path_is_one_change_of_every_endpoint() {
    let base = contract("v53.0");
    let mut revision = base.clone();
    revision.servers = vec!["http://localhost/api/v2".to_owned()];
    let names: Vec<&str> = base.paths.keys().map(|path| &path[1..]).collect();
    let names = names.join(", ");
    assert_eq!(
        lines(&findings(&base, &revision)),
        [
            format!("Breaking base-path-removed /servers [{names}]"),
            format!("Info base-path-added /servers [{names}]"),
        ]
    );
}

#[test]
fn a_base_path_may_move_into_the_paths() {
    let base = contract("v53.0");
    let mut revision = base.clone();
    revision.servers = vec!["http://localhost".to_owned()];
    let paths = std::mem::take(&mut revision.paths).into_iter();
    revision.paths = paths
        .map(|(path, methods)| (format!("/api/v1{path}"), methods))
        .collect();
    assert_eq!(findings(&base, &revision), []);
    assert_eq!(findings(&revision, &base), []);
    // Changes at such an endpoint are still found, under the path that a client uses.
    let endpoint = revision.paths.get_mut("/api/v1/vm.resume").unwrap();
    endpoint.values_mut().next().unwrap().responses.clear();
    assert_eq!(
        lines(&findings(&base, &revision)).first().unwrap(),
        "Breaking success-status-removed /paths/~1vm.resume/put/responses/204 [vm.resume]"
    );
}
