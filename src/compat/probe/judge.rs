//! Compares the observed behaviour of a server with a contract.

use std::collections::BTreeSet;

use super::battery;
use super::call::{endpoint, name};
use super::connections;
use super::fields::Field;
use super::findings::Findings;
use super::outline::{Outline, success_schema};
use super::recording::Recording;
use super::rules::{self, Rule};
use super::{compare, routes};
use crate::compat::Finding;
use crate::replay::{Answer, Exchange, RecordedResponse, ResponseBody};
use crate::spec::{Contract, MismatchKind};

/// The observed behaviour of a server.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The recordings of the scenarios.
    pub recordings: Vec<Recording>,
    /// How the server treats each field of each request.
    pub fields: Vec<Field>,
    /// The number of connections that the server accepts at once, if it was counted.
    pub connections: Option<usize>,
}

/// Returns the differences between `observed` and the contract `base`. If `recorded` is given, `observed` is also
/// compared with this recording of the release.
pub fn judge(observed: &Observed, base: &Contract, recorded: Option<&Outline>) -> Vec<Finding> {
    let mut findings = Findings::default();
    let live = Outline::of(&observed.recordings, base);
    routes::judge(&live, base, recorded, &mut findings);
    for recording in &observed.recordings {
        for exchange in &recording.cassette.exchanges {
            response(exchange, base, recording.scenario, &mut findings);
        }
    }
    if let Some(recorded) = recorded {
        for recording in &observed.recordings {
            compare::scenario(recording, &live, recorded, base, &mut findings);
        }
    }
    fields(&observed.fields, base, &mut findings);
    if let Some(count) = observed.connections {
        compare::limit(
            (count, connections::RECORDED),
            ("/servers", ""),
            "connections at once",
            &mut findings,
        );
    }
    findings.into_vec()
}

/// Compares a response with the contract.
fn response(exchange: &Exchange, base: &Contract, scenario: &str, findings: &mut Findings) {
    let call = format!("{} {}", exchange.request.method, exchange.request.path);
    let Some((pointer, endpoint)) = endpoint(base, &call) else {
        return;
    };
    let Answer::Response(response) = &exchange.answer else {
        return;
    };
    let RecordedResponse { status, body, .. } = response;
    let name = name(&call);
    let pointer = format!("{pointer}/responses/{status}");
    let is_success = (200..300).contains(status);
    let documented = endpoint.responses.get(status);
    let mut add = |rule: Rule, message| findings.add(rule, pointer.clone(), name, message);
    match (documented, is_success) {
        (None, true) => add(
            rules::SUCCESS_STATUS,
            format!(
                "{name} succeeds with status {status} (scenario {scenario}), which the contract does not have"
            ),
        ),
        // The path is not served. `routes::judge` reports that.
        (None, false) if *status == 404 && super::outline::is_unknown_route(&call, response) => {}
        (None, false) => add(
            rules::ERROR_STATUS,
            format!(
                "{name} fails with status {status} (scenario {scenario}), which the contract does not have"
            ),
        ),
        (Some(documented), true) => match body {
            ResponseBody::Empty if !documented.content.is_empty() => add(
                rules::BODY_MISSING,
                format!("{name} answers {status} without the body that the contract has"),
            ),
            ResponseBody::Empty => {}
            _ if documented.content.is_empty() => add(
                rules::BODY_ADDED,
                format!("{name} answers {status} with a body, and the contract has none"),
            ),
            ResponseBody::Text(_) => add(
                rules::NOT_JSON,
                format!("{name} answers {status} with a body that is not JSON"),
            ),
            ResponseBody::Json(value) => {
                let Some(schema) = success_schema(base, &call, *status) else {
                    return;
                };
                let pointer = format!("{pointer}/content/application~1json/schema");
                for mismatch in base.validate(schema, &pointer, value) {
                    let rule = match &mismatch.kind {
                        MismatchKind::Type { .. } => rules::TYPE,
                        MismatchKind::Null => rules::NULL,
                        MismatchKind::NullOptional => rules::NULL_OPTIONAL,
                        MismatchKind::Value { .. } => rules::ENUM_VALUE,
                        MismatchKind::Range { .. } => rules::RANGE,
                        MismatchKind::Missing { .. } => rules::REQUIRED_MISSING,
                        MismatchKind::Unexpected { .. } => rules::FIELD_UNDOCUMENTED,
                    };
                    let message = format!(
                        "in the answer to {name}, {}: {}",
                        mismatch.place, mismatch.kind
                    );
                    findings.add(rule, mismatch.pointer, name, message);
                }
            }
        },
        (Some(_), false) => {}
    }
}

/// Fields for which a server refuses a value that the contract allows, for a known reason: the operation, the place and
/// the reason.
const REFUSED_FOR_A_REASON: &[(&str, &str, &str)] = &[(
    "vm.restore",
    "/net_fds/0/num_fds",
    "the same number of descriptors has to be sent with the request",
)];

/// Reports how the server treats the fields of requests.
fn fields(fields: &[Field], base: &Contract, findings: &mut Findings) {
    let known = super::field_bodies::places(base);
    for field in fields {
        let Field {
            operation, place, ..
        } = field;
        let name = place.rsplit('/').next().unwrap_or_default();
        let mut add = |rule: Rule, said: String| {
            findings.add(
                rule,
                &field.pointer,
                operation,
                format!("{operation} {said}"),
            );
        };
        if !known.contains(&(format!("/{operation}"), place.clone())) {
            if field.read == Some(true) {
                let release = base.release;
                let said = format!(
                    "reads `{name}` ({place}), which the contract of {release} does not have"
                );
                add(rules::FIELD_KNOWN, said);
            }
            continue;
        }
        if field.read == Some(false) {
            // A field within an ignored field is ignored too, and is not reported again.
            let within = |lost: &&Field| {
                lost.operation == *operation && place.starts_with(&format!("{}/", lost.place))
            };
            if fields
                .iter()
                .filter(|other| other.read == Some(false))
                .any(|lost| within(&lost))
            {
                continue;
            }
            let said = format!("ignores `{name}` ({place}) without an error");
            add(rules::FIELD_LOST, said);
            continue;
        }
        match (field.required, field.required_by_contract) {
            (Some(true), false) => {
                let said = format!(
                    "is refused without `{name}` ({place}), which the contract does not require"
                );
                add(rules::FIELD_REQUIRED, said);
            }
            (Some(false), true) => {
                let said = format!("does not require `{name}` ({place}), and the contract does");
                add(rules::FIELD_OPTIONAL, said);
            }
            _ => {}
        }
        let is_expected = REFUSED_FOR_A_REASON
            .iter()
            .any(|(of, at, _)| of == operation && at == place);
        if !field.refused.is_empty() && !is_expected {
            let values = field.refused.join(", ");
            let said = format!("does not take {values} for `{name}` ({place})");
            add(rules::FIELD_REFUSED, said);
        }
    }
}

/// Returns the paths that are served, as the scenario `routes` found them: `/vm.boot`.
pub(super) fn served(recordings: &[Recording]) -> BTreeSet<String> {
    let routes = recordings
        .iter()
        .filter(|recording| recording.scenario == battery::ROUTES);
    let exchanges = routes.flat_map(|recording| &recording.cassette.exchanges);
    exchanges
        .filter(|exchange| {
            matches!(&exchange.answer, Answer::Response(response) if response.status != 404)
        })
        .filter_map(|exchange| exchange.request.path.strip_prefix("/api/v1"))
        .map(str::to_owned)
        .collect()
}
