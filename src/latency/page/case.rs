//! The overview of all cases, and the section of each case.

use super::markup::Markup;
use super::{chart, notice};
use crate::latency::{CaseReport, CaseState, Distribution, StepReport, Time};

/// The steps of the overview, in its order.
const STEPS: [&str; 7] = [
    "boot",
    "acquire",
    "tool",
    "first_byte",
    "stream",
    "reset",
    "release",
];

/// The median and the 99th percentile of each step of each case.
pub(super) fn overview(markup: &mut Markup, cases: &[CaseReport]) {
    markup.text_element("h2", &[], "At a glance");
    markup.text_element(
        "p",
        &[("class", &"hint")],
        "Each step's median, and below it the 99th percentile. With too few samples for a percentile, for example fewer \
         than 1,000 for the 99.9th, it is the longest time.",
    );
    markup.element("div", &[("class", &"wide")], |markup| {
        markup.element("table", &[("class", &"figures")], |markup| {
            row(markup, "th", "case", &STEPS.map(str::to_owned));
            for case in cases {
                markup.element("tr", &[], |markup| {
                    markup.element("th", &[("scope", &"row")], |markup| {
                        markup.text(title(case));
                        if let Some(word) = incomplete(case) {
                            markup.text(" ");
                            markup.text_element("strong", &[], format_args!("({word})"));
                        }
                    });
                    for step in STEPS {
                        markup.element("td", &[], |markup| match case.step(step) {
                            None => markup.text("–"),
                            Some(times) => {
                                markup.text(Time(times.p50 as f64));
                                markup.empty("br", &[]);
                                markup.text_element("small", &[], Time(times.p99 as f64));
                            }
                        });
                    }
                });
            }
        });
    });
}

/// The title of a case.
fn title(case: &CaseReport) -> String {
    match case.memory_mib {
        Some(mib) => format!("{}, {mib} MiB", case.name),
        None => case.name.clone(),
    }
}

/// The word for a case that was not completed.
fn incomplete(case: &CaseReport) -> Option<&'static str> {
    match case.state {
        CaseState::Complete => None,
        CaseState::Failed { .. } => Some("failed"),
        CaseState::Skipped { .. } => Some("skipped"),
        CaseState::Interrupted => Some("interrupted"),
    }
}

/// One case with its charts.
pub(super) fn case(markup: &mut Markup, case: &CaseReport) {
    markup.text_element("h2", &[], title(case));
    match &case.state {
        CaseState::Complete => {}
        CaseState::Failed { failure } => notice(
            markup,
            format_args!(
                "It failed after {} iterations, in the step {}: {} ({}). The figures are those of the iterations before.",
                case.iterations, failure.step, failure.error, failure.code
            ),
        ),
        CaseState::Skipped { failure } => notice(
            markup,
            format_args!("It was skipped: {} ({}).", failure.error, failure.code),
        ),
        CaseState::Interrupted => notice(
            markup,
            format_args!(
                "It was interrupted after {} iterations. The figures are those of the iterations before.",
                case.iterations
            ),
        ),
    }
    details(markup, case);
    for missing in &case.not_measured {
        let text = format!("Not measured: {}, since {}.", missing.step, missing.reason);
        markup.text_element("p", &[("class", &"hint")], text);
    }
    if !case.reset_steps.is_empty() {
        markup.element("figure", &[], |markup| {
            let caption =
                "The steps of a reset, by their means, each from the end of the one before it";
            markup.text_element("figcaption", &[], caption);
            chart::reset_steps(markup, &case.reset_steps);
            table(markup, &case.reset_steps);
        });
    }
    markup.element("div", &[("class", &"charts")], |markup| {
        for step in case.steps.iter().filter(|step| step.times.count > 0) {
            markup.line();
            markup.element("figure", &[], |markup| {
                markup.text_element("figcaption", &[], &step.name);
                chart::distribution(markup, &step.name, &step.times);
                figures_of(markup, &step.times);
            });
        }
    });
}

fn details(markup: &mut Markup, case: &CaseReport) {
    let mut details = vec![format!(
        "{} iterations in {}",
        case.iterations,
        Time(case.micros as f64)
    )];
    if let Some(golden) = &case.golden {
        details.push(format!("golden snapshot {golden}"));
    }
    if let Some(vcpus) = case.vcpus {
        details.push(format!("{vcpus} vCPUs"));
    }
    if let Some(memory) = &case.memory {
        details.push(format!("memory {memory}"));
    }
    let vmms = case.vmms.iter();
    let vmms: Vec<String> = vmms.map(|(vmm, count)| format!("{count} {vmm}")).collect();
    if !vmms.is_empty() {
        details.push(format!(
            "VMMs that served after a reset: {}",
            vmms.join(", ")
        ));
    }
    markup.text_element("p", &[("class", &"hint")], details.join("; "));
    let layers = |state: &str| {
        let layers = case.layers.iter().filter(|layer| layer.state == state);
        let layers: Vec<&str> = layers.map(|layer| layer.layer.as_str()).collect();
        layers.join(", ")
    };
    let text = match case.layers.is_empty() {
        true => "Confinement: not known, for no VMM of this program has served.".to_owned(),
        false => {
            let parts = [
                ("in force", layers("in_force")),
                ("missing", layers("missing")),
                ("left out", layers("left_out")),
            ];
            let parts = parts.iter().filter(|(_, layers)| !layers.is_empty());
            let parts: Vec<String> = parts
                .map(|(word, layers)| format!("{word} {layers}"))
                .collect();
            format!("Confinement: {}.", parts.join("; "))
        }
    };
    markup.text_element("p", &[("class", &"hint")], text);
}

const FIGURES: [&str; 9] = [
    "samples", "mean", "min", "p50", "p90", "p95", "p99", "p99.9", "max",
];

/// The figures of one step.
fn figures_of(markup: &mut Markup, times: &Distribution) {
    markup.element("div", &[("class", &"wide")], |markup| {
        markup.element("table", &[("class", &"figures tight")], |markup| {
            markup.element("tr", &[], |markup| {
                for figure in FIGURES {
                    markup.text_element("th", &[("scope", &"col")], figure);
                }
            });
            markup.element("tr", &[], |markup| {
                for text in figures(times) {
                    markup.text_element("td", &[], text);
                }
            });
        });
    });
}

/// The figures of several steps, one row each.
fn table(markup: &mut Markup, steps: &[StepReport]) {
    markup.element("div", &[("class", &"wide")], |markup| {
        markup.element("table", &[("class", &"figures")], |markup| {
            row(markup, "th", "step", &FIGURES.map(str::to_owned));
            for step in steps {
                row(markup, "td", &step.name, &figures(&step.times));
            }
        });
    });
}

fn figures(times: &Distribution) -> [String; 9] {
    let time = |micros: u64| Time(micros as f64).to_string();
    [
        times.count.to_string(),
        Time(times.mean).to_string(),
        time(times.min),
        time(times.p50),
        time(times.p90),
        time(times.p95),
        time(times.p99),
        time(times.p99_9),
        time(times.max),
    ]
}

fn row(markup: &mut Markup, cell: &'static str, head: &str, cells: &[String]) {
    markup.element("tr", &[], |markup| {
        markup.text_element("th", &[("scope", &"row")], head);
        for text in cells {
            markup.text_element(cell, &[], text);
        }
    });
}
