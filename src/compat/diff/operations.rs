//! Endpoints, methods, bodies and statuses.

use std::collections::BTreeMap;

use super::pairs::Comparison;
use super::place::Place;
use super::rename;
use crate::compat::Direction;
use crate::compat::rules::{Action, Area};
use crate::spec::{Content, Endpoint, Method, escaped};

type Methods = BTreeMap<Method, Endpoint>;

/// Compares everything that the two contracts' paths hold.
pub(super) fn compare(comparison: &mut Comparison<'_>) {
    let (base, revision) = comparison.contracts;
    // A path without a method is no endpoint.
    let in_base = |path: &String| base.paths.get(path).filter(|methods| !methods.is_empty());
    let in_revision = |path: &String| {
        revision
            .paths
            .get(path)
            .filter(|methods| !methods.is_empty())
    };
    let gone: Vec<(&str, &Methods)> = base
        .paths
        .keys()
        .filter(|path| in_revision(path).is_none())
        .filter_map(|path| Some((path.as_str(), in_base(path)?)))
        .collect();
    let come: Vec<(&str, &Methods)> = revision
        .paths
        .keys()
        .filter(|path| in_base(path).is_none())
        .filter_map(|path| Some((path.as_str(), in_revision(path)?)))
        .collect();
    let renamed = rename::by_content(&names_of(&gone), &names_of(&come), |old, new| {
        let (old, new) = (&base.paths[old], &revision.paths[new]);
        old.keys().eq(new.keys())
            && old
                .values()
                .zip(new.values())
                .all(|(old, new)| comparison.same_endpoint(old, new))
    });
    for (path, _) in &gone {
        let message = rename::to(format!("the endpoint `{path}` is gone"), path, &renamed);
        let change = (Area::Endpoint, Action::Removed);
        comparison.note(
            name(path),
            Direction::Request,
            change,
            pointer(path),
            message,
        );
    }
    for (path, _) in &come {
        let message = format!("the endpoint `{path}` is new");
        let message = rename::from(message, path, &renamed);
        let change = (Area::Endpoint, Action::Added);
        comparison.note(
            name(path),
            Direction::Request,
            change,
            pointer(path),
            message,
        );
    }
    for path in base.paths.keys() {
        if let Some((old, new)) = in_base(path).zip(in_revision(path)) {
            methods(comparison, path, old, new);
        }
    }
}

fn names_of<'n>(paths: &[(&'n str, &Methods)]) -> Vec<&'n str> {
    paths.iter().map(|(path, _)| *path).collect()
}

/// The name of the operation behind a path: `vm.create`.
fn name(path: &str) -> &str {
    path.strip_prefix('/').unwrap_or(path)
}

fn pointer(path: &str) -> String {
    format!("/paths/{}", escaped(path))
}

fn methods<'c>(
    comparison: &mut Comparison<'c>,
    path: &str,
    base: &'c Methods,
    revision: &'c Methods,
) {
    let kept: Vec<Method> = base
        .keys()
        .filter(|method| revision.contains_key(method))
        .copied()
        .collect();
    let ways = [
        (base, revision, Action::Removed, "takes no"),
        (revision, base, Action::Added, "takes"),
    ];
    for (these, those, action, verb) in ways {
        for method in these.keys().filter(|method| !those.contains_key(method)) {
            let place = format!("{}/{}", pointer(path), method.key());
            let message = match action {
                Action::Removed => format!("`{path}` {verb} {method} any more"),
                _ => format!("`{path}` {verb} {method} too now"),
            };
            let change = (Area::Method, action);
            comparison.note(name(path), Direction::Request, change, place, message);
        }
    }
    for method in &kept {
        // One method is what a path has; only where several stay do they have to be told apart.
        let operation = match kept.len() {
            1 => name(path).to_owned(),
            _ => format!("{method} {}", name(path)),
        };
        let mut endpoint = Both {
            comparison,
            operation,
            pointer: format!("{}/{}", pointer(path), method.key()),
        };
        endpoint.compare(&base[method], &revision[method]);
    }
}

/// An endpoint that both contracts have.
struct Both<'a, 'c> {
    comparison: &'a mut Comparison<'c>,
    operation: String,
    pointer: String,
}

impl<'c> Both<'_, 'c> {
    fn note(&mut self, direction: Direction, change: (Area, Action), below: &str, message: String) {
        let path = format!("{}{below}", self.pointer);
        self.comparison
            .note(&self.operation, direction, change, path, message);
    }

    fn compare(&mut self, base: &'c Endpoint, revision: &'c Endpoint) {
        let name = self.operation.clone();
        if base.deprecated != revision.deprecated {
            let (action, manner) = match revision.deprecated {
                true => (Action::Added, "deprecated now"),
                false => (Action::Removed, "no longer deprecated"),
            };
            let change = (Area::Deprecation, action);
            let message = format!("the endpoint `{name}` is {manner}");
            self.note(Direction::Request, change, "", message);
        }
        self.body(base, revision);
        let (old, new) = (base.all_responses(), revision.all_responses());
        let ways = [
            (&old, &new, Action::Removed, "no longer answers"),
            (&new, &old, Action::Added, "answers also"),
        ];
        for (these, those, action, verb) in ways {
            for status in these.keys().filter(|status| !those.contains_key(*status)) {
                let area = match status.starts_with('2') {
                    true => Area::SuccessStatus,
                    false => Area::ErrorStatus,
                };
                let message = format!("`{name}` {verb} {status}");
                let below = format!("/responses/{}", escaped(status));
                self.note(Direction::Response, (area, action), &below, message);
            }
        }
        for (status, response) in &new {
            if let Some(before) = old.get(status) {
                self.answer(status, &before.content, &response.content);
            }
        }
    }

    fn body(&mut self, base: &'c Endpoint, revision: &'c Endpoint) {
        let name = self.operation.clone();
        let mut note = |change, manner: &str| {
            let message = format!("the request body of `{name}` is {manner}");
            self.note(Direction::Request, change, "/requestBody", message);
        };
        let (old, new) = match (&base.body, &revision.body) {
            (None, None) => return,
            (Some(_), None) => return note((Area::Body, Action::Removed), "gone"),
            (None, Some(body)) if body.required => {
                return note((Area::RequiredBody, Action::Added), "new and required");
            }
            (None, Some(_)) => return note((Area::Body, Action::Added), "new"),
            (Some(old), Some(new)) => (old, new),
        };
        match (old.required, new.required) {
            (false, true) => note((Area::BodyRequired, Action::Added), "required now"),
            (true, false) => note((Area::BodyRequired, Action::Removed), "no longer required"),
            _ => {}
        }
        let named = format!("{name} request");
        self.content(
            Direction::Request,
            "/requestBody",
            &named,
            &old.content,
            &new.content,
        );
    }

    fn answer(&mut self, status: &str, old: &'c Content, new: &'c Content) {
        let below = format!("/responses/{}", escaped(status));
        let named = format!("{} {status}", self.operation);
        let change = match (old.is_empty(), new.is_empty()) {
            (true, false) => Some((Action::Added, "has a body now")),
            (false, true) => Some((Action::Removed, "has no body any more")),
            _ => None,
        };
        if let Some((action, manner)) = change {
            let message = format!("the response {status} of `{}` {manner}", self.operation);
            let below = format!("{below}/content");
            return self.note(Direction::Response, (Area::Body, action), &below, message);
        }
        self.content(Direction::Response, &below, &named, old, new);
    }

    /// Compares what bodies of the same endpoint and status hold.
    fn content(
        &mut self,
        direction: Direction,
        below: &str,
        named: &str,
        old: &'c Content,
        new: &'c Content,
    ) {
        let ways = [
            (old, new, Action::Removed, "is not"),
            (new, old, Action::Added, "is now also"),
        ];
        for (these, those, action, verb) in ways {
            for media_type in these.keys().filter(|key| !those.contains_key(*key)) {
                let message = match action {
                    Action::Removed => format!("`{named}` {verb} `{media_type}` any more"),
                    _ => format!("`{named}` {verb} `{media_type}`"),
                };
                let below = format!("{below}/content/{}", escaped(media_type));
                self.note(direction, (Area::MediaType, action), &below, message);
            }
        }
        for (media_type, schema) in new {
            if let Some(before) = old.get(media_type) {
                let pointer = format!(
                    "{}{below}/content/{}/schema",
                    self.pointer,
                    escaped(media_type)
                );
                let place = |schema| Place::root(schema, pointer.clone(), named.to_owned());
                let (base, revision) = (place(before), place(schema));
                self.comparison
                    .begin(&self.operation, direction, base, revision);
            }
        }
    }
}
