//! Compares endpoints, methods, bodies and statuses.

use std::collections::{BTreeMap, BTreeSet};

use super::media::{Change, Matched};
use super::pairs::Comparison;
use super::place::Place;
use super::rename;
use super::routes::{self, Methods};
use super::statuses::{Coverage, Key};
use crate::compat::Direction;
use crate::compat::rules::{Action, Area};
use crate::spec::{Content, Endpoint, Method, escaped};

/// Compares everything in the paths of the two contracts.
pub(super) fn compare(comparison: &mut Comparison<'_>) {
    let (base, revision) = comparison.contracts;
    let kept = routes::kept(base, revision);
    let (old, new) = (routes::paths(base), routes::paths(revision));
    let still_there: BTreeSet<&str> = kept.values().copied().collect();
    let gone: Vec<&str> = without(&old, |path| kept.contains_key(path));
    let come: Vec<&str> = without(&new, |path| still_there.contains(path));
    let renamed = rename::by_content(&gone, &come, |one, other| {
        let (one, other) = (&base.paths[one], &revision.paths[other]);
        one.keys().eq(other.keys())
            && one
                .values()
                .zip(other.values())
                .all(|(one, other)| comparison.same_endpoint(one, other))
    });
    for path in &gone {
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
    for path in &come {
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
    for (before, after) in kept {
        methods(comparison, (before, old[before]), (after, new[after]));
    }
}

/// Returns the paths for which `known` is false.
fn without<'c>(
    paths: &BTreeMap<&'c str, &'c Methods>,
    known: impl Fn(&str) -> bool,
) -> Vec<&'c str> {
    let paths = paths.keys().copied();
    paths.filter(|path| !known(path)).collect()
}

/// Returns the name of the operation of a path: `vm.create`.
fn name(path: &str) -> &str {
    path.strip_prefix('/').unwrap_or(path)
}

fn pointer(path: &str) -> String {
    format!("/paths/{}", escaped(path))
}

fn methods<'c>(
    comparison: &mut Comparison<'c>,
    (path, base): (&'c str, &'c Methods),
    (new_path, revision): (&'c str, &'c Methods),
) {
    let kept: Vec<Method> = base
        .keys()
        .filter(|method| revision.contains_key(method))
        .copied()
        .collect();
    let ways = [
        (base, revision, path, Action::Removed, "takes no"),
        (revision, base, new_path, Action::Added, "takes"),
    ];
    for (these, those, at, action, verb) in ways {
        for method in these.keys().filter(|method| !those.contains_key(method)) {
            let place = format!("{}/{}", pointer(at), method.key());
            let message = match action {
                Action::Removed => format!("`{at}` {verb} {method} any more"),
                _ => format!("`{at}` {verb} {method} too now"),
            };
            let change = (Area::Method, action);
            comparison.note(name(path), Direction::Request, change, place, message);
        }
    }
    for method in &kept {
        // A path has one method. Only if several methods stay does the name of the operation include its method.
        let operation = match kept.len() {
            1 => name(path).to_owned(),
            _ => format!("{method} {}", name(path)),
        };
        let mut endpoint = Both {
            comparison,
            operation,
            old: pointer(path) + "/" + method.key(),
            new: pointer(new_path) + "/" + method.key(),
        };
        endpoint.base_paths((path, &base[method]), (new_path, &revision[method]));
        endpoint.compare(&base[method], &revision[method]);
    }
}

/// An endpoint that both contracts have.
struct Both<'a, 'c> {
    comparison: &'a mut Comparison<'c>,
    operation: String,
    /// The JSON pointer of the endpoint in the base.
    old: String,
    /// The JSON pointer of the endpoint in the revision.
    new: String,
}

/// The bodies that an endpoint sends or receives in both contracts.
struct Bodies<'c> {
    direction: Direction,
    /// The pointer of the body below the endpoint, and its name for readers, in the base.
    old: (String, String),
    /// The same in the revision.
    new: (String, String),
    base: &'c Content,
    revision: &'c Content,
}

impl<'c> Both<'_, 'c> {
    /// Adds a finding at a place below the endpoint. The place of a removed item is in the base, and any other is in
    /// the revision.
    fn note(&mut self, direction: Direction, change: (Area, Action), below: &str, message: String) {
        let endpoint = match change.1 {
            Action::Removed => &self.old,
            _ => &self.new,
        };
        let path = format!("{endpoint}{below}");
        self.comparison
            .note(&self.operation, direction, change, path, message);
    }

    /// Compares the base paths at which the endpoint is served.
    fn base_paths(&mut self, old: (&str, &Endpoint), new: (&str, &Endpoint)) {
        let (base, revision) = self.comparison.contracts;
        let before = routes::addresses(base, old.0, old.1);
        let after = routes::addresses(revision, new.0, new.1);
        if before == after {
            return;
        }
        let of_document = old.1.servers.is_empty() && new.1.servers.is_empty();
        let owner = match of_document {
            true => String::new(),
            false => format!(" of `{}`", self.operation),
        };
        let (was, is) = (base.base_paths(old.1), revision.base_paths(new.1));
        let ways = [
            (was, old.0, &after, Action::Removed, "is gone"),
            (is, new.0, &before, Action::Added, "is new"),
        ];
        for (these, path, known, action, manner) in ways {
            let those: Vec<String> = these
                .iter()
                .filter(|base| !known.contains(&format!("{base}{path}")))
                .map(|base| match base.as_str() {
                    "" => "`/`".to_owned(),
                    base => format!("`{base:.60}`"),
                })
                .collect();
            if those.is_empty() {
                continue;
            }
            let message = format!("the base path {}{owner} {manner}", those.join(", "));
            let change = (Area::BasePath, action);
            match of_document {
                true => self.comparison.note(
                    &self.operation,
                    Direction::Request,
                    change,
                    "/servers".to_owned(),
                    message,
                ),
                false => self.note(Direction::Request, change, "/servers", message),
            }
        }
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
        let Coverage { shared, gone, come } = Coverage::of(base, revision);
        for (key, change) in gone.into_iter().chain(come) {
            let message = match change.1 {
                Action::Added => format!("`{name}` answers also {key}"),
                Action::Narrowed => format!("`{name}` answers only some statuses of {key} now"),
                _ => format!("`{name}` no longer answers {key}"),
            };
            self.note(Direction::Response, change, &below(key), message);
        }
        for (old, new) in shared {
            self.answer(
                (old, &old.response(base).content),
                (new, &new.response(revision).content),
            );
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
        let place = ("/requestBody".to_owned(), format!("{name} request"));
        self.content(Bodies {
            direction: Direction::Request,
            old: place.clone(),
            new: place,
            base: &old.content,
            revision: &new.content,
        });
    }

    fn answer(&mut self, (old, base): (Key, &'c Content), (new, revision): (Key, &'c Content)) {
        let change = match (base.is_empty(), revision.is_empty()) {
            (true, false) => Some((new, Action::Added, "has a body now")),
            (false, true) => Some((old, Action::Removed, "has no body any more")),
            _ => None,
        };
        if let Some((key, action, manner)) = change {
            let message = format!("the response {new} of `{}` {manner}", self.operation);
            let below = below(key) + "/content";
            return self.note(Direction::Response, (Area::Body, action), &below, message);
        }
        let place = |key: Key| (below(key), format!("{} {key}", self.operation));
        self.content(Bodies {
            direction: Direction::Response,
            old: place(old),
            new: place(new),
            base,
            revision,
        });
    }

    /// Compares the content of bodies of the same endpoint and status.
    fn content(&mut self, bodies: Bodies<'c>) {
        let Bodies {
            direction,
            old,
            new,
            base,
            revision,
        } = bodies;
        let Matched { pairs, changes } = Matched::of(base, revision);
        let below = |place: &str, key: &str| format!("{place}/content/{}", escaped(key));
        for change in changes {
            let (action, message, below) = match change {
                Change::Removed(was) => (
                    Action::Removed,
                    format!("`{}` is not `{was}` any more", old.1),
                    below(&old.0, was),
                ),
                Change::Added(is) => (
                    Action::Added,
                    format!("`{}` is now also `{is}`", new.1),
                    below(&new.0, is),
                ),
                Change::Narrowed { was, is } => (
                    Action::Narrowed,
                    format!("`{}` is `{is}` now, and no longer any `{was}`", new.1),
                    below(&new.0, is),
                ),
                Change::Widened { was, is } => (
                    Action::Widened,
                    format!("`{}` is any `{is}` now, and was `{was}`", new.1),
                    below(&new.0, is),
                ),
            };
            self.note(direction, (Area::MediaType, action), &below, message);
        }
        for (was, is) in pairs {
            let place = |endpoint: &str, (place, name): &(String, String), schema, key: &str| {
                let pointer = format!("{endpoint}{}/schema", below(place, key));
                Place::root(schema, pointer, name.clone())
            };
            let base = place(&self.old, &old, &base[was], was);
            let revision = place(&self.new, &new, &revision[is], is);
            self.comparison
                .begin(&self.operation, direction, base, revision);
        }
    }
}

/// Returns the pointer of a response below its endpoint.
fn below(key: Key) -> String {
    format!("/responses/{key}")
}
