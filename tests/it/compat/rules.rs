//! The rules and their fixtures: `fixtures/compat/<rule>/` has two documents and the findings that they must give.
//!
//! `UPDATE=1` writes the expected findings anew. Read every one of them before it is committed.

use std::collections::BTreeSet;
use std::fs;

use chv_sandbox::compat::Direction::{Request, Response};
use chv_sandbox::compat::rules::{Action, Area, RULES, Rule, rule};
use chv_sandbox::compat::{Direction, Level};

use super::{findings, read, root};

#[test]
fn each_rule_has_its_fixture_and_finds_what_is_expected_there() {
    let folder = root().join("fixtures/compat");
    let fixtures: BTreeSet<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let rules: BTreeSet<String> = RULES.iter().map(|rule| rule.id.to_owned()).collect();
    assert_eq!(fixtures, rules, "fixtures (left) and rules (right)");

    for rule in RULES {
        let fixture = folder.join(rule.id);
        let base = read(&fixture.join("base.yaml"));
        let revision = read(&fixture.join("revision.yaml"));
        let found = findings(&base, &revision);
        let text = serde_json::to_string_pretty(&found).unwrap() + "\n";
        let expected = fixture.join("expected.json");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&expected, &text).unwrap();
        }
        assert_eq!(text, fs::read_to_string(&expected).unwrap(), "{}", rule.id);
        assert!(
            found
                .iter()
                .any(|finding| (finding.id, finding.level, finding.direction)
                    == (rule.id, rule.level, rule.direction)),
            "the fixture of {} does not trigger it",
            rule.id
        );
        for same in [&base, &revision] {
            assert_eq!(findings(same, same), [], "{} against itself", rule.id);
        }
    }
}

#[test]
fn rules_have_unique_names_that_say_what_they_are_about() {
    let mut ids = BTreeSet::new();
    for one in RULES {
        assert!(ids.insert(one.id), "{} is there twice", one.id);
        assert_eq!(
            rule(one.direction, one.area, one.action),
            Some(one),
            "two rules for one change"
        );
        let kebab = one.id.chars().all(|c| c == '-' || c.is_ascii_lowercase());
        assert!(kebab, "{}", one.id);
        assert!(one.why.ends_with('.'), "{}: {}", one.id, one.why);
        let named = match one.direction {
            Request => "request-",
            Response => "response-",
        };
        let of_endpoint = matches!(
            one.area,
            Area::BasePath
                | Area::Endpoint
                | Area::Method
                | Area::SuccessStatus
                | Area::ErrorStatus
        );
        assert_eq!(one.id.starts_with(named), !of_endpoint, "{}", one.id);
    }
}

/// Rules that lack a mirror on purpose: the rule, the mirror that is missing, and the reason.
const WAIVERS: &[(&str, Mirror, &str)] = &[
    ("base-path-removed", Mirror::Direction, CALLED),
    ("base-path-added", Mirror::Direction, CALLED),
    ("endpoint-removed", Mirror::Direction, CALLED),
    ("endpoint-added", Mirror::Direction, CALLED),
    ("method-removed", Mirror::Direction, CALLED),
    ("method-added", Mirror::Direction, CALLED),
    ("success-status-removed", Mirror::Direction, ANSWERED),
    ("success-status-added", Mirror::Direction, ANSWERED),
    ("success-status-narrowed", Mirror::Direction, ANSWERED),
    ("success-status-narrowed", Mirror::Action, MORE),
    ("error-status-removed", Mirror::Direction, ANSWERED),
    ("error-status-added", Mirror::Direction, ANSWERED),
    ("request-required-body-added", Mirror::Direction, NO_DUTY),
    ("request-required-body-added", Mirror::Action, GONE_IS_GONE),
    ("request-body-became-required", Mirror::Direction, NO_DUTY),
    ("request-body-became-optional", Mirror::Direction, NO_DUTY),
    (
        "request-required-property-added",
        Mirror::Direction,
        NO_DUTY,
    ),
    (
        "request-required-property-added",
        Mirror::Action,
        GONE_IS_GONE,
    ),
];

const CALLED: &str =
    "An endpoint is called or it is not: that is judged once, as what a client sends.";
const ANSWERED: &str = "Only a response has a status.";
const MORE: &str = "A class that is new beside some of its statuses is `success-status-added`.";
const NO_DUTY: &str =
    "Only a client has to send something; a new thing in a response is read past either way.";
const GONE_IS_GONE: &str = "What is gone is gone, whether or not it was required.";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mirror {
    /// The same change in the other direction of travel.
    Direction,
    /// The change that undoes the first.
    Action,
}

impl Mirror {
    fn of(self, rule: &Rule) -> (Direction, Area, Action) {
        let Rule {
            direction,
            area,
            action,
            ..
        } = *rule;
        match (self, direction) {
            (Mirror::Direction, Request) => (Response, area, action),
            (Mirror::Direction, Response) => (Request, area, action),
            (Mirror::Action, _) => (direction, area, action.inverse()),
        }
    }
}

#[test]
fn each_rule_has_its_mirrors_or_a_reason_why_not() {
    for one in RULES {
        for mirror in [Mirror::Direction, Mirror::Action] {
            let (direction, area, action) = mirror.of(one);
            let waived = WAIVERS
                .iter()
                .any(|(id, waived, _)| (*id, *waived) == (one.id, mirror));
            match rule(direction, area, action) {
                None => assert!(waived, "{} has no mirror by {mirror:?}", one.id),
                Some(_) => assert!(!waived, "{} has its mirror by {mirror:?}", one.id),
            }
        }
    }
    for (id, ..) in WAIVERS {
        assert!(RULES.iter().any(|rule| rule.id == *id), "{id} is no rule");
    }
}

#[test]
fn widening_is_harmless_in_requests_and_narrowing_in_responses() {
    for rule in RULES {
        let harmless = match (rule.direction, rule.action) {
            (Request, Action::Widened) | (Response, Action::Narrowed) => true,
            (Request, Action::Narrowed) | (Response, Action::Widened) => false,
            _ => continue,
        };
        assert_eq!(rule.level == Level::Info, harmless, "{}", rule.id);
    }
}
