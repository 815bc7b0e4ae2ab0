//! Compares the observed behaviour of a server with the recording of a release, step by step.

use super::battery::{LIMITS, ROUTES};
use super::call::{endpoint, name};
use super::findings::Findings;
use super::outline::{Form, Outcome, Outline, Played, differences};
use super::recording::{Recording, Unreached};
use super::rules;
use crate::spec::{Contract, Schema, Shape};

/// Compares a scenario with its recording.
pub(super) fn scenario(
    recording: &Recording,
    live: &Outline,
    recorded: &Outline,
    base: &Contract,
    findings: &mut Findings,
) {
    let scenario = recording.scenario;
    let (Some(seen), Some(known)) = (
        live.scenarios.get(scenario),
        recorded.scenarios.get(scenario),
    ) else {
        return;
    };
    for (index, (known, seen)) in known.iter().zip(seen).enumerate() {
        if seen.call != known.call {
            return;
        }
        let step = Step {
            known,
            seen,
            at: format!("scenario {scenario}, step {}", index + 1),
            base,
        };
        match &recording.unreached {
            // `routes::judge` compares the served paths with the contract.
            _ if scenario == ROUTES && known.call.starts_with("PATCH ") => {}
            // The last step failed, and the following steps need it.
            Some(unreached) if index + 1 == recording.cassette.exchanges.len() => {
                step.unreached(unreached, findings);
            }
            _ if scenario == LIMITS => body_limit(known, seen, sent(recording, index), findings),
            _ => step.compare((recorded, live), findings),
        }
    }
}

struct Step<'a> {
    known: &'a Played,
    seen: &'a Played,
    at: String,
    base: &'a Contract,
}

impl Step<'_> {
    fn compare(&self, (recorded, live): (&Outline, &Outline), findings: &mut Findings) {
        let call = &self.known.call;
        let name = name(call);
        let at = &self.at;
        let (known, seen) = match (&self.known.answer, &self.seen.answer) {
            (Some(known), Some(seen)) => (known, seen),
            (Some(known), None) if !known.is_vmm_gone() => {
                let message = format!(
                    "the VMM ends at {name} ({at}); it answered {}",
                    known.status
                );
                findings.add(rules::VMM_GONE, self.pointer(known.status), name, message);
                return;
            }
            _ => return,
        };
        let pointer = self.pointer(seen.status);
        match (known.is_success(), seen.is_success()) {
            // The path is not served. `routes::judge` compares that with the contract.
            (true, false) if seen.kind.as_deref() == Some("NotSupported") => {}
            (true, false) => {
                let was = known.status;
                let now = seen.describe();
                let message = format!("{name} is refused ({at}): it answered {was}, and now {now}");
                findings.add(rules::REFUSED, pointer, name, message);
            }
            (false, true) => {
                let was = known.describe();
                let message = format!("{name} succeeds ({at}): it answered {was}");
                findings.add(rules::ACCEPTED, pointer, name, message);
            }
            (false, false) => self.errors(known, seen, pointer, findings),
            (true, true) => {
                if known.status != seen.status {
                    let (was, now) = (known.status, seen.status);
                    let message = format!("{name} succeeds with {now} ({at}), and did with {was}");
                    findings.add(rules::STATUS_CHANGED, pointer, name, message);
                }
                if let (Some(known_body), Some(seen_body)) =
                    (recorded.body(known.form), live.body(seen.form))
                {
                    let found = differences(known_body, seen_body);
                    for differing in found {
                        let place = &differing.place;
                        let pointer = self.field(known.status, place);
                        let (rule, message) = match &differing.now {
                            None => (
                                rules::FIELD_MISSING,
                                format!("{name} does not emit {place} ({at})"),
                            ),
                            Some(now) => (
                                rules::FIELD_TYPE,
                                format!(
                                    "{name} emits {place} as {} ({at}); it was {}",
                                    type_name(now),
                                    type_name(&differing.before)
                                ),
                            ),
                        };
                        findings.add(rule, pointer, name, message);
                    }
                }
            }
        }
    }

    fn unreached(&self, unreached: &Unreached, findings: &mut Findings) {
        let Unreached { what, said } = unreached;
        let name = name(&self.known.call);
        let pointer = match &self.seen.answer {
            Some(answer) => self.pointer(answer.status),
            None => self.endpoint(),
        };
        let message = format!("{what} can't be reached ({}): {said}", self.at);
        findings.add(rules::UNREACHED, pointer, name, message);
    }

    fn errors(&self, known: &Outcome, seen: &Outcome, pointer: String, findings: &mut Findings) {
        let name = name(&self.known.call);
        let at = &self.at;
        let not_served = |outcome: &Outcome| outcome.kind.as_deref() == Some("NotSupported");
        if not_served(seen) || not_served(known) {
            return;
        }
        let (was, now) = (known.describe(), seen.describe());
        if seen.is_vmm_gone() && !known.is_vmm_gone() {
            let message = format!("the VMM ends at {name} ({at}); it answered {was}");
            findings.add(rules::VMM_GONE, pointer, name, message);
            return;
        }
        if known.kind != seen.kind {
            let message = format!("{name} fails with {now} ({at}), and did with {was}");
            findings.add(rules::ERROR_KIND, pointer.clone(), name, message);
        } else if known.status != seen.status {
            let message = format!("{name} fails with {now} ({at}), and did with {was}");
            findings.add(rules::STATUS_CHANGED, pointer.clone(), name, message);
        }
        if known.form != seen.form {
            let message = format!(
                "an error of {name} is {} ({at}), and was {}",
                form_name(seen.form),
                form_name(known.form)
            );
            findings.add(rules::ERROR_SHAPE, pointer, name, message);
        }
    }

    /// Returns the JSON pointer of the response with this status, or the one that it would have.
    fn pointer(&self, status: u16) -> String {
        format!("{}/responses/{status}", self.endpoint())
    }

    fn endpoint(&self) -> String {
        let call = &self.known.call;
        let documented = endpoint(self.base, call);
        documented.map_or_else(
            || format!("/paths/~1{}", name(call).replace('/', "~1")),
            |(pointer, _)| pointer,
        )
    }

    /// Returns the JSON pointer of the field at `place` of an answer, or the one that it would have.
    fn field(&self, status: u16, place: &str) -> String {
        let mut pointer = self.pointer(status);
        let documented = endpoint(self.base, &self.known.call).and_then(|(_, endpoint)| {
            endpoint
                .responses
                .get(&status)?
                .content
                .get("application/json")
        });
        let Some(mut schema) = documented else {
            return format!("{pointer}{place}");
        };
        pointer.push_str("/content/application~1json/schema");
        for key in place.split('/').skip(1) {
            let (resolved, at): (&Schema, String) = self.base.resolve(schema, &pointer);
            let (next, keyword) = match &resolved.shape {
                Shape::Object { properties, .. } => {
                    (properties.get(key), format!("properties/{key}"))
                }
                Shape::Array(items) => (Some(&**items), "items".to_owned()),
                Shape::Map(values) => (Some(&**values), "additionalProperties".to_owned()),
                _ => (None, key.to_owned()),
            };
            pointer = format!("{at}/{keyword}");
            match next {
                Some(next) => schema = next,
                None => break,
            }
        }
        pointer
    }
}

impl Outcome {
    fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    fn is_vmm_gone(&self) -> bool {
        self.kind.as_deref() == Some("VmmGone")
    }

    fn describe(&self) -> String {
        match &self.kind {
            Some(kind) => format!("{} ({kind})", self.status),
            None => self.status.to_string(),
        }
    }
}

fn form_name(form: Form) -> &'static str {
    match form {
        Form::Empty => "empty",
        Form::Chain => "a list of texts",
        Form::Text => "plain text",
        Form::Http => "the HTTP layer's own",
        Form::Body(_) => "JSON of another form",
    }
}

fn type_name(types: &serde_json::Value) -> &str {
    match types {
        serde_json::Value::String(name) => name,
        serde_json::Value::Array(_) => "array",
        serde_json::Value::Object(_) => "object",
        _ => "null",
    }
}

/// Returns the size of the body that the step at `index` sent, in bytes.
fn sent(recording: &Recording, index: usize) -> usize {
    let scenarios = super::battery::all();
    let scenario = scenarios
        .iter()
        .find(|scenario| scenario.name == recording.scenario);
    match scenario
        .and_then(|scenario| scenario.steps.get(index))
        .map(|step| &step.ask)
    {
        Some(super::battery::Ask::Wire { body, .. }) => body.len(),
        _ => 0,
    }
}

/// Reports a body that only one of the two servers accepts.
fn body_limit(known: &Played, seen: &Played, sent: usize, findings: &mut Findings) {
    let taken = |played: &Played| {
        let answer = played.answer.as_ref();
        answer.is_some_and(Outcome::is_success)
    };
    // The steps between only delete the VM.
    if !known.call.ends_with("/vm.create") {
        return;
    }
    let (rule, message) = match (taken(known), taken(seen)) {
        (true, false) => (
            rules::LIMIT_LOWER,
            format!("a body of {sent} bytes is refused, and was taken"),
        ),
        (false, true) => (
            rules::LIMIT_HIGHER,
            format!("a body of {sent} bytes is taken, and was refused"),
        ),
        _ => return,
    };
    findings.add(
        rule,
        "/paths/~1vm.create/put/requestBody",
        "vm.create",
        message,
    );
}

/// Reports a number of things that the server accepts, if it differs from the recorded release.
pub(super) fn limit(
    (seen, known): (usize, usize),
    (pointer, operation): (&str, &str),
    what: &str,
    findings: &mut Findings,
) {
    let rule = match seen.cmp(&known) {
        std::cmp::Ordering::Less => rules::LIMIT_LOWER,
        std::cmp::Ordering::Greater => rules::LIMIT_HIGHER,
        std::cmp::Ordering::Equal => return,
    };
    let message = format!("{seen} {what} are taken, and {known} were");
    findings.add(rule, pointer, operation, message);
}
