//! The report as a table for the terminal.

use anstyle::{AnsiColor, Style};
use chv_sandbox::host_facts::Platform;
use chv_sandbox::latency::{CaseReport, CaseState, Failure, LatencyReport, StepReport, Time};
use chv_sandbox::sanitize;

const BOLD: Style = Style::new().bold();
const WARNING: Style = AnsiColor::Yellow.on_default();

/// The most characters of a text that are printed; no real line is that long.
const LONGEST: usize = 4096;

/// The report as lines. The first names the platform that it ran on.
pub(super) fn lines(report: &LatencyReport) -> Vec<String> {
    let on = &report.runs_on;
    let style = match on.platform {
        Platform::Hardware => BOLD,
        _ => WARNING,
    };
    let mut lines = vec![format!(
        "{BOLD}chv-sandbox latency{BOLD:#}: {style}{}{style:#}; {}",
        on.platform.name(),
        safe(&on.reason)
    )];
    let vmm = &report.vmm;
    lines.push(match (&vmm.release, &vmm.unknown_because) {
        (Some(release), _) => format!("VMM: {}", safe(release)),
        (None, reason) => {
            let reason = reason.as_deref().unwrap_or("not said");
            format!("VMM: release unknown: {}", safe(reason))
        }
    });
    for case in &report.cases {
        lines.push(String::new());
        push_case(case, &mut lines);
    }
    if report.interrupted {
        lines.push(String::new());
        lines.push(format!(
            "{WARNING}interrupted{WARNING:#}: the figures are incomplete"
        ));
    }
    lines
}

fn push_case(case: &CaseReport, lines: &mut Vec<String>) {
    let memory = case.memory_mib.map(|mib| format!(", {mib} MiB"));
    let golden = case.golden.as_ref().map(|golden| format!(", {golden}"));
    lines.push(format!(
        "{BOLD}{}{}{BOLD:#}{}: {} iterations in {}",
        safe(&case.name),
        memory.unwrap_or_default(),
        safe(&golden.unwrap_or_default()),
        case.iterations,
        Time(case.micros as f64)
    ));
    let problem = |word: &str, failure: &Failure| {
        let Failure { step, code, error } = failure;
        let (step, code, error) = (safe(step), safe(code), safe(error));
        format!("{WARNING}{word}{WARNING:#} at {step}: {error} ({code})")
    };
    match &case.state {
        CaseState::Complete => {}
        CaseState::Failed { failure } => lines.push(problem("failed", failure)),
        CaseState::Skipped { failure } => lines.push(problem("skipped", failure)),
        CaseState::Interrupted => lines.push(format!("{WARNING}interrupted{WARNING:#}")),
    }
    if !case.steps.is_empty() {
        let heads = ["mean", "p50", "p90", "p95", "p99", "p99.9", "max"];
        let heads: String = heads.map(|head| format!("{head:>10}")).concat();
        lines.push(format!("  {:<18}{:>8}{heads}", "step", "samples"));
    }
    for step in &case.steps {
        lines.push(row("", step));
        if step.name == "reset" {
            lines.extend(case.reset_steps.iter().map(|step| row("  ", step)));
        }
    }
    let vmms = case.vmms.iter();
    let vmms: Vec<String> = vmms
        .map(|(vmm, count)| format!("{count} {}", safe(vmm)))
        .collect();
    if !vmms.is_empty() {
        lines.push(format!("  served after a reset: {}", vmms.join(", ")));
    }
    for missing in &case.not_measured {
        let (step, reason) = (safe(&missing.step), safe(&missing.reason));
        lines.push(format!("  {step} is not measured: {reason}"));
    }
}

fn row(indent: &str, step: &StepReport) -> String {
    let times = &step.times;
    let percentiles = [
        times.p50,
        times.p90,
        times.p95,
        times.p99,
        times.p99_9,
        times.max,
    ];
    let percentiles = percentiles.map(|micros| format!("{:>10}", Time(micros as f64).to_string()));
    format!(
        "  {:<18}{:>8}{:>10}{}",
        format!("{indent}{}", safe(&step.name)),
        times.count,
        Time(times.mean).to_string(),
        percentiles.concat()
    )
}

fn safe(text: &str) -> String {
    sanitize::line(text, LONGEST)
}
