//! [`Comparison`] decides which schemas are compared with each other, and records which operations reach them.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::place::{Names, Place};
use crate::compat::rules::{Action, Area, Rule, rule};
use crate::compat::{Direction, Evidence, Finding, Level};
use crate::spec::Contract;

/// The number of comparisons after which two schemas of different names count as different without a comparison. The
/// comparisons of schemas with equal names are bounded by the documents. Renamed schemas in cycles of different lengths
/// could cause any number.
const MAX_COMPARED: usize = 100_000;

/// A comparison that is being made.
pub(super) struct Comparison<'c> {
    pub(super) base: Names<'c>,
    pub(super) revision: Names<'c>,
    pub(super) contracts: (&'c Contract, &'c Contract),
    pairs: Vec<Pair>,
    known: HashMap<(String, String, Direction), PairId>,
    waiting: VecDeque<(PairId, Place<'c>, Place<'c>, Area)>,
    compared: usize,
    /// The findings that belong to one operation, each with the operation's name.
    direct: Vec<(String, Draft)>,
    /// The first pair of each body, with the name of its operation.
    roots: Vec<(String, PairId)>,
}

/// Two schemas that are compared in one direction.
pub(super) struct Pair {
    pub(super) direction: Direction,
    drafts: Vec<Draft>,
    leads: Vec<Lead>,
}

/// The index of a pair in [`Comparison::pairs`].
pub(super) type PairId = usize;

/// A finding without the operations that reach it.
#[derive(Clone)]
struct Draft {
    rule: &'static Rule,
    path: String,
    message: String,
}

/// A pair that another pair leads to.
enum Lead {
    /// The findings of the target are reported on their own.
    Into(PairId),
    /// A reference leads to another schema than before, although both documents have both schemas. This is one change
    /// at the reference. The findings of the target only decide its level.
    Elsewhere {
        target: PairId,
        path: String,
        message: String,
    },
}

impl<'c> Comparison<'c> {
    pub(super) fn new(base: &'c Contract, revision: &'c Contract) -> Self {
        Comparison {
            base: Names::of(base),
            revision: Names::of(revision),
            contracts: (base, revision),
            pairs: Vec::new(),
            known: HashMap::new(),
            waiting: VecDeque::new(),
            compared: 0,
            direct: Vec::new(),
            roots: Vec::new(),
        }
    }

    /// Adds a finding that belongs to `operation` only.
    pub(super) fn note(
        &mut self,
        operation: &str,
        direction: Direction,
        change: (Area, Action),
        path: String,
        message: String,
    ) {
        let draft = Draft::new(direction, change, path, message);
        self.direct.push((operation.to_owned(), draft));
    }

    /// Compares a body of `operation`.
    pub(super) fn begin(
        &mut self,
        operation: &str,
        direction: Direction,
        base: Place<'c>,
        revision: Place<'c>,
    ) {
        let root = self.add(direction);
        self.roots.push((operation.to_owned(), root));
        self.meet(root, &base, &revision, Area::Type);
        while let Some((pair, base, revision, area)) = self.waiting.pop_front() {
            self.compare(pair, &base, &revision, area);
        }
    }

    /// Counts one more compared schema.
    pub(super) fn count(&mut self) {
        self.compared += 1;
    }

    pub(super) fn direction(&self, pair: PairId) -> Direction {
        self.pairs[pair].direction
    }

    /// Adds a finding to `pair`.
    pub(super) fn find(
        &mut self,
        pair: PairId,
        change: (Area, Action),
        path: String,
        message: String,
    ) {
        let draft = Draft::new(self.direction(pair), change, path, message);
        self.pairs[pair].drafts.push(draft);
    }

    /// Compares two places that belong to `pair`. If neither refers to a named schema, they are compared at once,
    /// otherwise as a pair of their own. `area` is the role of the places in the schema that contains them.
    pub(super) fn meet(
        &mut self,
        pair: PairId,
        base: &Place<'c>,
        revision: &Place<'c>,
        area: Area,
    ) {
        let (old, new) = (self.base.resolve(base), self.revision.resolve(revision));
        let (old, new, area) = match (old.named, new.named) {
            (None, None) => return self.compare(pair, base, revision, area),
            (Some(_), Some(_)) => (old, new, Area::Type),
            _ => (old.seen_from(base), new.seen_from(revision), area),
        };
        let direction = self.direction(pair);
        let renamed = old.named.zip(new.named).filter(|(old, new)| old != new);
        let key = (old.pointer.clone(), new.pointer.clone(), direction);
        let target = match self.known.get(&key) {
            Some(target) => *target,
            None if renamed.is_some() && self.compared > MAX_COMPARED => {
                let message = format!("`{}` refers to another schema", revision.name);
                let change = (Area::Reference, Action::Changed);
                return self.find(pair, change, revision.pointer.clone(), message);
            }
            None => {
                let target = self.add(direction);
                self.known.insert(key, target);
                self.waiting
                    .push_back((target, old.clone(), new.clone(), area));
                target
            }
        };
        // If the old name is gone and the new name is new, the schema was renamed. Otherwise the reference changed, and
        // not the schemas.
        let elsewhere =
            renamed.filter(|(old, new)| self.base.contains(new) || self.revision.contains(old));
        let lead = match elsewhere {
            None => Lead::Into(target),
            Some((old, new)) => Lead::Elsewhere {
                target,
                path: revision.pointer.clone(),
                message: format!("`{}` is a `{new}` now, no longer a `{old}`", revision.name),
            },
        };
        self.pairs[pair].leads.push(lead);
    }

    fn add(&mut self, direction: Direction) -> PairId {
        self.pairs.push(Pair {
            direction,
            drafts: Vec::new(),
            leads: Vec::new(),
        });
        self.pairs.len() - 1
    }

    /// Returns every finding, with the operations that reach it.
    pub(super) fn findings(self) -> Vec<Finding> {
        let mut found: BTreeMap<(&str, String, usize), Finding> = BTreeMap::new();
        // `nth` distinguishes several findings of one rule at one place, for example two values that are gone.
        let mut add = |operation: &str, draft: Draft, nth: usize| {
            let Rule {
                id,
                level,
                direction,
                ..
            } = *draft.rule;
            found
                .entry((id, draft.path, nth))
                .and_modify(|finding| {
                    finding.affects.insert(operation.to_owned());
                })
                .or_insert_with_key(|(_, path, _)| Finding {
                    id,
                    level,
                    direction,
                    path: path.clone(),
                    message: draft.message,
                    evidence: Evidence::Document,
                    affects: BTreeSet::from([operation.to_owned()]),
                });
        };
        let mut worst = HashMap::new();
        for (operation, draft) in &self.direct {
            add(operation, draft.clone(), 0);
        }
        for (operation, root) in &self.roots {
            for pair in self.reached(*root, false) {
                let Pair {
                    direction,
                    drafts,
                    leads,
                } = &self.pairs[pair];
                let mut before: HashMap<(&str, &str), usize> = HashMap::new();
                for draft in drafts {
                    let nth = before.entry((draft.rule.id, &draft.path)).or_default();
                    add(operation, draft.clone(), *nth);
                    *nth += 1;
                }
                for lead in leads {
                    if let Lead::Elsewhere {
                        target,
                        path,
                        message,
                    } = lead
                        && let Some((level, reason)) =
                            worst.entry(*target).or_insert_with(|| self.worst(*target))
                    {
                        let action = match level {
                            Level::Breaking => Action::Changed,
                            Level::Warning => Action::Doubtful,
                            Level::Info => Action::Compatible,
                        };
                        let change = (Area::Reference, action);
                        let message = format!("{message}; between the two, {reason}");
                        add(
                            operation,
                            Draft::new(*direction, change, path.clone(), message),
                            0,
                        );
                    }
                }
            }
        }
        found.into_values().collect()
    }

    /// Returns the most severe level of the differences between two schemas, with the message of the first such
    /// difference. `None` if the schemas are equal.
    fn worst(&self, pair: PairId) -> Option<(Level, String)> {
        let drafts: Vec<&Draft> = self
            .reached(pair, true)
            .into_iter()
            .flat_map(|pair| &self.pairs[pair].drafts)
            .collect();
        let worst = drafts.iter().min_by_key(|draft| draft.rule.level)?;
        let reason = match drafts.len() - 1 {
            0 => worst.message.clone(),
            others => format!("{}, and {others} more", worst.message),
        };
        Some((worst.rule.level, reason))
    }

    /// Returns the pairs that `root` leads to, including itself, in the order in which they are found.
    fn reached(&self, root: PairId, elsewhere: bool) -> Vec<PairId> {
        let mut seen = vec![false; self.pairs.len()];
        seen[root] = true;
        let mut reached = vec![root];
        let mut next = 0;
        while let Some(pair) = reached.get(next) {
            for lead in &self.pairs[*pair].leads {
                let target = match lead {
                    Lead::Into(target) => *target,
                    Lead::Elsewhere { target, .. } if elsewhere => *target,
                    Lead::Elsewhere { .. } => continue,
                };
                if !std::mem::replace(&mut seen[target], true) {
                    reached.push(target);
                }
            }
            next += 1;
        }
        reached
    }
}

impl Draft {
    fn new(
        direction: Direction,
        (area, action): (Area, Action),
        path: String,
        message: String,
    ) -> Self {
        let rule = rule(direction, area, action)
            .unwrap_or_else(|| panic!("no rule for {direction:?} {area:?} {action:?}"));
        Draft {
            rule,
            path,
            message,
        }
    }
}
