//! The HTML page of a report.

use chv_sandbox::host_facts::Platform;
use chv_sandbox::latency::{Bucket, CaseState, Failure, LatencyReport, page};
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::example;

/// Reads the page as XML, which fails where an element isn't closed or a text isn't escaped. Returns the names of its
/// elements, and its text without the style sheet.
fn read(page: &str) -> (Vec<String>, String) {
    let mut reader = Reader::from_str(page);
    reader.config_mut().check_end_names = true;
    let (mut names, mut text, mut open) = (Vec::new(), String::new(), Vec::new());
    loop {
        match reader.read_event().unwrap() {
            Event::Eof => break,
            Event::Start(start) => {
                let name = start.name().as_ref().to_owned();
                check_attributes(&start);
                names.push(name.clone());
                open.push(name);
            }
            Event::Empty(empty) => {
                check_attributes(&empty);
                names.push(empty.name().as_ref().to_owned());
            }
            Event::End(_) => {
                open.pop();
            }
            Event::Text(part) if open.last().is_none_or(|name| name != "style") => {
                text.push_str(&part);
                text.push(' ');
            }
            _ => {}
        }
    }
    assert_eq!(open, Vec::<String>::new());
    (names, text)
}

/// Checks that no attribute runs a script or names another file.
fn check_attributes(element: &BytesStart<'_>) {
    const KNOWN: [&str; 20] = [
        "lang",
        "charset",
        "http-equiv",
        "content",
        "name",
        "class",
        "scope",
        "id",
        "role",
        "aria-labelledby",
        "viewBox",
        "x",
        "y",
        "x1",
        "y1",
        "x2",
        "y2",
        "width",
        "height",
        "text-anchor",
    ];
    for attribute in element.attributes() {
        let attribute = attribute.unwrap();
        let name: &str = attribute.key.as_ref();
        assert!(KNOWN.contains(&name), "{name}");
    }
}

#[track_caller]
fn check_self_contained(page: &str) {
    for reference in ["src=", "href", "url(", "@import", "javascript:"] {
        assert!(!page.contains(reference), "{reference}");
    }
    // The example quotes an address as text.
    let page = page.replace("&quot;http://example.org/&quot;", "");
    assert!(!page.contains("://"));
}

#[test]
fn it_is_well_formed_and_names_no_other_file() {
    let page = page(&example());
    let (names, _) = read(&page);
    for element in names {
        let known = [
            "html",
            "head",
            "meta",
            "title",
            "style",
            "body",
            "header",
            "main",
            "section",
            "div",
            "h1",
            "h2",
            "p",
            "strong",
            "small",
            "br",
            "table",
            "tr",
            "th",
            "td",
            "figure",
            "figcaption",
            "svg",
            "desc",
            "line",
            "rect",
            "text",
        ];
        assert!(known.contains(&element.as_str()), "{element}");
    }
    check_self_contained(&page);
    assert!(page.contains("default-src 'none'") || page.contains("default-src &#39;none&#39;"));
}

#[test]
fn it_has_a_light_and_a_dark_scheme_with_the_same_colours() {
    let page = page(&example());
    assert!(page.contains("prefers-color-scheme: dark"));
    assert!(page.contains("color-scheme: light dark"));
    let (light, dark) = page
        .split_once("@media (prefers-color-scheme: dark)")
        .unwrap();
    let dark = dark.split_once("}\n}").unwrap().0;
    let names = |text: &str| -> Vec<String> {
        let parts = text.split("--").skip(1);
        let parts = parts.filter_map(|part| part.split_once(": #"));
        parts.map(|(name, _)| name.to_owned()).collect()
    };
    assert_eq!(names(light), names(dark));
    assert_eq!(names(dark).len(), 10);
}

#[test]
fn each_chart_says_what_it_shows_and_has_its_figures() {
    let (names, text) = read(&page(&example()));
    let count = |name: &str| names.iter().filter(|found| *found == name).count();
    // One chart for the steps of a reset, seven for the steps, and one for the boot of the case that failed.
    assert_eq!(count("svg"), 9);
    assert_eq!((count("desc"), count("figure")), (9, 9));
    // One table for the host, one for the overview, and one below each chart.
    assert_eq!(count("table"), 11);
    for piece in [
        "p50 15.5 ms",
        "p99 42.0 ms",
        "take_spare",
        "50 ms",
        "250 ms",
        "µs",
        "v53.0",
        "A CPU",
        "3 spare",
        "in force landlock",
        "missing cgroup",
        "left out namespaces",
        "1024 MiB",
        "recordings have no pool",
    ] {
        assert!(text.contains(piece), "{piece}: {text}");
    }
}

#[test]
fn an_incomplete_report_says_so() {
    let (_, text) = read(&page(&example()));
    for piece in [
        "It was interrupted, so the figures are incomplete.",
        "It failed after 1 iterations, in the step reset",
        "SANDBOX_RESET_DIVERGENCE",
        "It was skipped: there is no KVM",
        "It was interrupted after 0 iterations",
    ] {
        assert!(text.contains(piece), "{piece}: {text}");
    }
    let mut report = example();
    report.interrupted = false;
    let (_, text) = read(&page(&report));
    assert!(text.contains("Not every case came to its end"), "{text}");
    report.cases.truncate(1);
    let (_, text) = read(&page(&report));
    assert!(!text.contains("incomplete"), "{text}");
}

#[test]
fn it_says_what_it_ran_on_before_any_figure() {
    for (platform, words) in [
        (Platform::Hardware, "On hardware:"),
        (Platform::Emulated, "On an emulated machine"),
        (Platform::Replay, "On recordings, not on a VMM:"),
        (Platform::Unknown, "known on what this ran:"),
    ] {
        let mut report = example();
        report.runs_on.platform = platform;
        let page = page(&report);
        let at = page.find(words).unwrap_or_else(|| panic!("{words}"));
        assert!(at < page.find("<table").unwrap());
    }
}

/// Sets every field of a report that is a text, as a guest or a VMM might choose it.
fn hostile(report: &mut LatencyReport, text: &str) {
    let to = || text.to_owned();
    (report.crate_version, report.runs_on.reason) = (to(), to());
    report.command_line = vec![to()];
    (report.host.kernel, report.host.cpu) = (Some(to()), Some(to()));
    (report.vmm.release, report.vmm.unknown_because) = (None, Some(to()));
    for case in &mut report.cases {
        (case.name, case.golden, case.memory) = (to(), Some(to()), Some(to()));
        case.vmms.insert(to(), 1);
        for layer in &mut case.layers {
            (layer.layer, layer.detail) = (to(), to());
        }
        for step in case.steps.iter_mut().chain(&mut case.reset_steps) {
            step.name = to();
        }
        for missing in &mut case.not_measured {
            (missing.step, missing.reason) = (to(), to());
        }
        if let CaseState::Failed { failure } | CaseState::Skipped { failure } = &mut case.state {
            *failure = Failure {
                step: to(),
                code: to(),
                error: to(),
            };
        }
    }
}

#[test]
fn a_hostile_text_stays_a_text() {
    let mut report = example();
    hostile(&mut report, "plain");
    let (plain, _) = read(&page(&report));
    for text in [
        "</style><script>alert(1)</script>",
        "\" onload=\"alert(1)",
        "' x='<!--",
        "]]>&amp;<![CDATA[",
        "\u{0}\u{1b}[2J\u{fffe}\u{202e}\r\n",
        "",
    ] {
        let mut report = example();
        hostile(&mut report, text);
        let (names, _) = read(&page(&report));
        assert_eq!(names, plain, "{text:?}");
    }
    let mut report = example();
    hostile(&mut report, &"é".repeat(1 << 20));
    assert!(page(&report).len() < 2 << 20);
}

#[test]
fn numbers_that_mean_nothing_draw_a_page_all_the_same() {
    for (number, mean) in [
        (0, 0.0),
        (u64::MAX, f64::MAX),
        (1, -1.0),
        (u64::MAX, f64::MIN),
    ] {
        let mut report = example();
        report.host.load_at_end = Some([mean; 3]);
        report.options.stream_bytes = number;
        for case in &mut report.cases {
            (case.micros, case.iterations, case.memory_mib) = (number, number, Some(number));
            for step in case.steps.iter_mut().chain(&mut case.reset_steps) {
                let times = &mut step.times;
                (times.count, times.mean, times.min, times.max) = (number.max(1), mean, number, 0);
                (times.p50, times.p99) = (number, 0);
                let bucket = Bucket {
                    up_to: number,
                    count: number,
                };
                times.histogram = vec![bucket; 3];
            }
        }
        let page = page(&report);
        read(&page);
        assert!(!page.contains("NaN") && !page.contains("inf\""), "{page}");
    }
    let mut report = example();
    report.cases.clear();
    read(&page(&report));
}
