//! [`Matrix`]: the features and endpoints of each release, and whether a recording shows them.

mod features;

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::replay::{Answer, Cassette, Exchange, RequestBody};
use crate::spec::{Contract, Release, Schema, Shape};
use features::{Evidence, FEATURES, Feature};

/// A table with a column for each release, and a row for each feature and each endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Matrix {
    /// The releases of the columns.
    pub releases: Vec<Release>,
    /// The features that a sandbox can use.
    pub features: Vec<Row>,
    /// Every endpoint of any of the releases.
    pub endpoints: Vec<Row>,
}

/// One feature or endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The name, in Markdown.
    pub name: String,
    /// The state in each release, in the order of the columns.
    pub cells: Vec<Cell>,
}

/// The state of a feature or endpoint in one release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// A recorded exchange shows that it works.
    Observed,
    /// The contract has it, after corrections, but no recording shows it.
    Document,
    /// The contract doesn't have it.
    Absent,
}

impl Cell {
    const fn sign(self) -> &'static str {
        match self {
            Cell::Observed => "●",
            Cell::Document => "○",
            Cell::Absent => "",
        }
    }

    /// An exchange alone is no evidence: a release that doesn't know a field ignores it and answers with success.
    fn new(in_contract: bool, observed: impl FnOnce() -> bool) -> Cell {
        match in_contract {
            false => Cell::Absent,
            true if observed() => Cell::Observed,
            true => Cell::Document,
        }
    }
}

impl Matrix {
    /// Creates the matrix of `contracts`, which have to be corrected and in the order of the columns. `cassettes` are
    /// the recordings.
    pub fn new(contracts: &[Contract], cassettes: &[Cassette]) -> Matrix {
        let columns: Vec<Column<'_>> = contracts
            .iter()
            .map(|contract| Column {
                contract,
                cassettes: cassettes
                    .iter()
                    .filter(|cassette| cassette.release.to_string() == contract.release.to_string())
                    .collect(),
            })
            .collect();
        let row = |name: String, cell: &dyn Fn(&Column<'_>) -> Cell| Row {
            name,
            cells: columns.iter().map(cell).collect(),
        };
        let paths: BTreeSet<&str> = contracts
            .iter()
            .flat_map(|contract| contract.paths.keys())
            .map(|path| path.trim_start_matches('/'))
            .collect();
        Matrix {
            releases: contracts.iter().map(|contract| contract.release).collect(),
            features: FEATURES
                .iter()
                .map(|feature| row(feature.name.to_owned(), &|column| column.feature(feature)))
                .collect(),
            endpoints: paths
                .into_iter()
                .map(|operation| {
                    row(format!("`{operation}`"), &|column| {
                        column.endpoint(operation)
                    })
                })
                .collect(),
        }
    }

    /// Returns the matrix as two Markdown tables with a key. The second table is folded.
    pub fn markdown(&self) -> String {
        format!(
            "\
● observed: a recorded exchange with that release shows it; ○ document: its contract has it, after corrections; \
empty: it doesn't have it.

{}
<details><summary>Every endpoint</summary>

{}
</details>
",
            self.table("what", &self.features),
            self.table("endpoint", &self.endpoints)
        )
    }

    fn table(&self, what: &str, rows: &[Row]) -> String {
        let mut table = format!("| {what} |");
        for release in &self.releases {
            write!(table, " {release} |").expect("a String takes all that is written");
        }
        table += "\n|---|";
        table += &":-:|".repeat(self.releases.len());
        table.push('\n');
        for row in rows {
            let cells: String = row
                .cells
                .iter()
                .map(|cell| format!(" {} |", cell.sign()))
                .collect();
            table += &format!("| {} |{cells}\n", row.name);
        }
        table
    }
}

/// One release: its contract, and its recordings.
struct Column<'a> {
    contract: &'a Contract,
    cassettes: Vec<&'a Cassette>,
}

impl Column<'_> {
    fn endpoint(&self, operation: &str) -> Cell {
        let path = format!("/{operation}");
        Cell::new(self.contract.paths.contains_key(&path), || {
            self.exchanges()
                .any(|exchange| succeeded(exchange, operation))
        })
    }

    fn feature(&self, feature: &Feature) -> Cell {
        let in_contract = match feature.evidence {
            Evidence::InOrder(operations) => operations
                .iter()
                .all(|operation| self.contract.paths.contains_key(&format!("/{operation}"))),
            Evidence::Status(operation, status) => self
                .contract
                .paths
                .get(&format!("/{operation}"))
                .is_some_and(|methods| {
                    methods
                        .values()
                        .any(|endpoint| endpoint.responses.contains_key(&status))
                }),
            Evidence::Field(operation, field, value) => {
                has_field(self.contract, operation, field, value)
            }
        };
        Cell::new(in_contract, || match feature.evidence {
            Evidence::InOrder(operations) => self
                .cassettes
                .iter()
                .any(|cassette| in_order(cassette, operations)),
            Evidence::Status(operation, status) => self
                .exchanges()
                .any(|exchange| succeeded(exchange, operation) && status_of(exchange) == status),
            Evidence::Field(operation, field, value) => self.exchanges().any(|exchange| {
                succeeded(exchange, operation) && sent(&exchange.request.body, field, value)
            }),
        })
    }

    fn exchanges(&self) -> impl Iterator<Item = &Exchange> {
        self.cassettes
            .iter()
            .flat_map(|cassette| &cassette.exchanges)
    }
}

/// Returns the status of the response, or 0 if there was none.
fn status_of(exchange: &Exchange) -> u16 {
    match &exchange.answer {
        Answer::Response(response) => response.status,
        Answer::Closed => 0,
    }
}

fn succeeded(exchange: &Exchange, operation: &str) -> bool {
    exchange.request.path.strip_prefix("/api/v1/") == Some(operation)
        && (200..300).contains(&status_of(exchange))
}

/// Whether the operations succeeded in this order on one VMM. Other operations may be between them.
fn in_order(cassette: &Cassette, operations: &[&str]) -> bool {
    let mut exchanges = cassette.exchanges.iter();
    operations
        .iter()
        .all(|operation| exchanges.any(|exchange| succeeded(exchange, operation)))
}

/// Whether a body had `field`, and the value if one is given. `field` is a name, or several names with dots between
/// them.
fn sent(body: &RequestBody, field: &str, value: Option<&str>) -> bool {
    let RequestBody::Json(body) = body else {
        return false;
    };
    let mut found = vec![body];
    for name in field.split('.') {
        found = found
            .into_iter()
            .flat_map(|at| match at {
                serde_json::Value::Array(items) => items.iter().collect(),
                other => vec![other],
            })
            .filter_map(|at| at.get(name))
            .collect();
    }
    found
        .iter()
        .any(|found| value.is_none_or(|value| found.as_str() == Some(value)))
}

/// Whether the body of `operation` has `field`, and allows the value if one is given.
fn has_field(contract: &Contract, operation: &str, field: &str, value: Option<&str>) -> bool {
    let methods = contract.paths.get(&format!("/{operation}"));
    let mut bodies = methods
        .into_iter()
        .flat_map(|methods| methods.values())
        .filter_map(|endpoint| endpoint.body.as_ref())
        .flat_map(|body| body.content.values());
    bodies.any(|body| {
        let found = field
            .split('.')
            .try_fold(body, |at, name| match &resolve(contract, at)?.shape {
                Shape::Object { properties, .. } => properties.get(name),
                _ => None,
            })
            .and_then(|schema| resolve(contract, schema));
        match (found.map(|schema| &schema.shape), value) {
            (None, _) => false,
            (Some(Shape::String { values, .. }), Some(value)) => values.contains(value),
            (Some(_), _) => true,
        }
    })
}

/// Follows references, and lists to their items.
fn resolve<'c>(contract: &'c Contract, mut schema: &'c Schema) -> Option<&'c Schema> {
    loop {
        schema = match &schema.shape {
            Shape::Reference(name) => contract.schemas.get(name)?,
            Shape::Array(items) => items,
            _ => return Some(schema),
        };
    }
}
