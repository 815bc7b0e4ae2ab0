//! Compares the paths that a server serves with those of a contract.

use super::battery::ROUTES;
use super::findings::Findings;
use super::outline::{Outline, Played};
use super::rules;
use crate::spec::Contract;

/// Compares the paths that are served with those of the contract.
pub(super) fn judge(
    live: &Outline,
    base: &Contract,
    recorded: Option<&Outline>,
    findings: &mut Findings,
) {
    for (path, served) in routes(live) {
        let name = path.trim_start_matches('/');
        let pointer = format!("/paths/~1{name}");
        match (base.paths.contains_key(path), served) {
            (true, false) => {
                let was_served = recorded
                    .and_then(|recorded| routes(recorded).find(|(known, _)| *known == path))
                    .is_none_or(|(_, served)| served);
                let (rule, message) = match was_served {
                    true => (rules::ROUTE_MISSING, format!("{name} is not served")),
                    false => (
                        rules::ROUTE_NOT_BUILT,
                        format!(
                            "{name} is not served, nor was it by the recorded build of the release"
                        ),
                    ),
                };
                findings.add(rule, pointer, name, message);
            }
            (false, true) => findings.add(
                rules::ROUTE_ADDED,
                pointer,
                name,
                format!("{name} is served, and the contract does not have it"),
            ),
            (true, true) | (false, false) => {}
        }
    }
}

/// Returns the paths that the scenario tried, and whether each is served.
fn routes(outline: &Outline) -> impl Iterator<Item = (&str, bool)> {
    let steps = outline.scenarios.get(ROUTES).into_iter().flatten();
    steps.filter_map(|Played { call, answer }| {
        let path = call.strip_prefix("PATCH /api/v1")?;
        Some((path, answer.as_ref()?.status != 404))
    })
}
