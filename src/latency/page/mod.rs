//! [`page`]: writes a report as one HTML page.

mod case;
mod chart;
mod markup;
mod scale;

use case::{case, overview};
use markup::Markup;

use super::LatencyReport;
use crate::host_facts::{HostFacts, Platform};

/// The style sheet. Its colours follow the reader's setting, light or dark, and it refers to no other file.
const STYLE: &str = include_str!("style.css");

/// Makes one HTML page of a report, with charts of each step's distribution and of the steps of the resets. The page
/// needs no other file, no network and no script, follows the reader's setting of light or dark, and is well-formed
/// XML, too.
pub fn page(report: &LatencyReport) -> String {
    let mut markup = Markup::default();
    markup.own("<!DOCTYPE html>\n");
    markup.element("html", &[("lang", &"en")], |markup| {
        markup.line();
        markup.element("head", &[], |markup| head(markup, report));
        markup.line();
        markup.element("body", &[], |markup| {
            markup.element("header", &[], |markup| header(markup, report));
            markup.line();
            markup.element("main", &[], |markup| {
                overview(markup, &report.cases);
                for reported in &report.cases {
                    markup.line();
                    markup.element("section", &[], |markup| case(markup, reported));
                }
            });
        });
        markup.line();
    });
    markup.line();
    markup.finish()
}

fn head(markup: &mut Markup, report: &LatencyReport) {
    markup.empty("meta", &[("charset", &"utf-8")]);
    // The browser must not load anything, whatever the report contains.
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    markup.empty(
        "meta",
        &[
            ("http-equiv", &"Content-Security-Policy"),
            ("content", &policy),
        ],
    );
    markup.empty(
        "meta",
        &[("name", &"color-scheme"), ("content", &"light dark")],
    );
    markup.empty(
        "meta",
        &[
            ("name", &"viewport"),
            ("content", &"width=device-width, initial-scale=1"),
        ],
    );
    let title = format!(
        "chv-sandbox latency, {}, {}",
        report.runs_on.platform.name(),
        report.began_at.strftime("%F %H:%M UTC")
    );
    markup.text_element("title", &[], title);
    markup.element("style", &[], |markup| markup.own(STYLE));
}

fn header(markup: &mut Markup, report: &LatencyReport) {
    markup.text_element("h1", &[], "Latency of chv-sandbox");
    let platform = report.runs_on.platform;
    markup.element("p", &[("class", &"platform")], |markup| {
        markup.text_element("strong", &[], on(platform));
        markup.text(format_args!(" {}", report.runs_on.reason));
    });
    if report.interrupted {
        notice(markup, "It was interrupted, so the figures are incomplete.");
    } else if !report.is_complete() {
        notice(
            markup,
            "Not every case came to its end, so the figures are incomplete.",
        );
    }
    markup.element("table", &[("class", &"facts")], |markup| {
        for (name, value) in facts(report) {
            markup.element("tr", &[], |markup| {
                markup.text_element("th", &[("scope", &"row")], name);
                markup.text_element("td", &[], value);
            });
        }
    });
}

fn on(platform: Platform) -> &'static str {
    match platform {
        Platform::Hardware => "On hardware:",
        Platform::Emulated => "On an emulated machine, where everything takes many times longer:",
        Platform::Replay => "On recordings, not on a VMM:",
        Platform::Unknown => "It isn't known on what this ran:",
    }
}

/// A paragraph that stands out.
fn notice(markup: &mut Markup, text: impl std::fmt::Display) {
    markup.text_element("p", &[("class", &"notice")], text);
}

fn facts(report: &LatencyReport) -> Vec<(&'static str, String)> {
    let HostFacts {
        kernel,
        cpu,
        cpus,
        memory_bytes,
        load_at_start,
        load_at_end,
    } = &report.host;
    let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "unknown".to_owned());
    let load = |load: &Option<[f64; 3]>| {
        or_unknown(load.map(|[one, five, fifteen]| format!("{one:.2}, {five:.2}, {fifteen:.2}")))
    };
    let vmm = match (&report.vmm.release, &report.vmm.unknown_because) {
        (Some(release), _) => release.clone(),
        (None, Some(reason)) => format!("unknown: {reason}"),
        (None, None) => "unknown".to_owned(),
    };
    let count = cpus.map_or("an unknown number of".to_owned(), |cpus| cpus.to_string());
    let gib = |bytes: &u64| format!("{:.1} GiB", *bytes as f64 / f64::from(1 << 30));
    let options = &report.options;
    let mut facts = vec![
        (
            "measured",
            format!(
                "{} to {}",
                report.began_at.strftime("%F %T"),
                report.ended_at.strftime("%F %T UTC")
            ),
        ),
        ("crate", format!("chv-sandbox {}", report.crate_version)),
        ("VMM", format!("Cloud Hypervisor {vmm}")),
        ("CPU", format!("{}, {count} CPUs", or_unknown(cpu.clone()))),
        ("kernel", or_unknown(kernel.clone())),
        ("memory", or_unknown(memory_bytes.as_ref().map(gib))),
        (
            "load",
            format!(
                "{} at the start; {} at the end (1, 5, 15 minutes)",
                load(load_at_start),
                load(load_at_end)
            ),
        ),
        (
            "plan",
            format!(
                "{} iterations a case after {} of warm-up a worker; streams of {} KiB",
                options.iterations,
                options.warm_up,
                options.stream_bytes / 1024
            ),
        ),
    ];
    if !report.command_line.is_empty() {
        facts.push(("command", report.command_line.join(" ")));
    }
    facts
}
