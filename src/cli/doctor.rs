//! `chv-sandbox doctor`: reports what this host lacks to run sandboxes.

use std::path::PathBuf;

use anstyle::{AnsiColor, Style};
use chv_sandbox::doctor::{
    CheckId, CheckStatus, HostCheck, HostExamination, HostReport, Layer, Readiness, examine,
};
use chv_sandbox::sanitize;
use chv_sandbox::vmm::VmmConfig;

use super::Failure;
use super::interrupt::Interrupt;
use super::status::{self, Status};
use super::vm_args::{VmmBinary, layer};

const BOLD: Style = Style::new().bold();
const GOOD: Style = AnsiColor::Green.on_default();
const WARNING: Style = AnsiColor::Yellow.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// How wide a screen is, in characters.
const WIDTH: usize = 80;

/// The column at which the finding begins.
const FOUND: usize = 22;

/// The indentation of the consequence and of the command to type.
const BELOW: usize = 8;

/// The most characters of a finding that are printed; no real finding is that long.
const LONGEST: usize = 4096;

/// The layers that almost every host has. Those that are in force share one line.
const COMMON: [Layer; 5] = [
    Layer::Environment,
    Layer::Descriptors,
    Layer::NoNewPrivs,
    Layer::Rlimits,
    Layer::Capabilities,
];

/// Checks whether this host can run sandboxes, and how to fix what is missing.
///
/// Tries everything that a sandbox needs from this host, and reports what is missing, what it affects, and the command
/// that fixes it. Needs no root and changes nothing.
#[derive(clap::Args)]
#[command(after_help = status::help(&[
    (Status::Yes, "ready; warnings report what is slower or less confined"),
    (Status::No, "not ready: something that is needed is missing"),
    (Status::Undecided, "a check of something that is needed gave no result"),
]))]
pub(crate) struct Args {
    #[command(flatten)]
    vmm: VmmBinary,
    /// Where each VMM's private run directory would be created [default: in the user's runtime directory]
    #[arg(long, value_name = "DIR")]
    run_root: Option<PathBuf>,
    /// Also check that this golden snapshot can be restored here
    #[arg(long, value_name = "DIR")]
    golden: Option<PathBuf>,
    /// Report not ready unless these layers of confinement are available, for example landlock,namespaces
    #[arg(long, value_name = "LAYERS", value_delimiter = ',', value_parser = layer)]
    require: Vec<Layer>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> Result<Status, Failure> {
    let interrupt = Interrupt::catch()?;
    let mut vmm = VmmConfig {
        binary: args.vmm.path,
        ..VmmConfig::default()
    };
    if let Some(run_root) = args.run_root {
        vmm.run_root = run_root;
    }
    let mut examination = HostExamination::default();
    examination.vmm = vmm;
    examination.golden = args.golden;
    examination.require = args.require;
    let mut examined = tokio::spawn(async move { examine(&examination).await });
    let report = match interrupt.race(&mut examined).await {
        Ok(report) => report?,
        Err(signalled) => {
            // The examination is waited for, because each check removes its files, and has a time limit.
            let _ = examined.await;
            return Err(signalled.into());
        }
    };
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => {
            for line in lines(&report) {
                println!("{line}");
            }
        }
    }
    Ok(match report.readiness {
        Readiness::Ready => Status::Yes,
        Readiness::NotReady => Status::No,
        Readiness::Undecided => Status::Undecided,
    })
}

/// The report as text, at most 80 columns wide. Commands are not wrapped, so that they can be copied.
fn lines(report: &HostReport) -> Vec<String> {
    let (style, word) = match report.readiness {
        Readiness::Ready => (GOOD, "ready"),
        Readiness::NotReady => (BAD, "not ready"),
        Readiness::Undecided => (BAD, "undecided"),
    };
    let count = |status| {
        let checks = report.checks.iter();
        checks.filter(|check| check.status == status).count()
    };
    let mut lines = vec![format!(
        "{BOLD}chv-sandbox doctor{BOLD:#}: {style}{word}{style:#}; missing {}, unknown {}, warnings {}",
        count(CheckStatus::Missing),
        count(CheckStatus::Undecided),
        count(CheckStatus::Warning),
    )];
    let is_common = |check: &HostCheck| {
        let common = COMMON.map(CheckId::Layer).contains(&check.id);
        common && check.status == CheckStatus::Good
    };
    for check in report.checks.iter().filter(|check| !is_common(check)) {
        push_check(check, &mut lines);
    }
    let common = report.checks.iter().filter(|check| is_common(check));
    let common: Vec<_> = common.map(|check| check.id.to_string()).collect();
    if !common.is_empty() {
        push_heading(CheckStatus::Good, "layers", &common.join(", "), &mut lines);
    }
    lines
}

fn push_check(check: &HostCheck, lines: &mut Vec<String>) {
    push_heading(
        check.status,
        &check.id.to_string(),
        &sanitize::line(&check.found, LONGEST),
        lines,
    );
    if let Some(lost) = &check.lost {
        let lost = wrap(&format!("without it {lost}"), WIDTH - BELOW);
        lines.extend(lost.iter().map(|line| format!("{:BELOW$}{line}", "")));
    }
    if let Some(remedy) = &check.remedy {
        let note = remedy.note.as_ref().map(|note| format!("  # {note}"));
        let note = note.unwrap_or_default();
        lines.push(format!(
            "{:BELOW$}$ {BOLD}{}{BOLD:#}{note}",
            "",
            sanitize::line(&remedy.command, LONGEST)
        ));
    }
}

fn push_heading(status: CheckStatus, name: &str, found: &str, lines: &mut Vec<String>) {
    let (style, word) = match status {
        CheckStatus::Good => (GOOD, "good"),
        CheckStatus::Warning => (WARNING, "warning"),
        CheckStatus::Missing => (BAD, "MISSING"),
        CheckStatus::Undecided => (BAD, "UNKNOWN"),
    };
    let mut found = wrap(found, WIDTH - FOUND).into_iter();
    let first = found.next().unwrap_or_default();
    lines.push(format!("{style}{word:<8}{style:#}{name:<14}{first}"));
    lines.extend(found.map(|line| format!("{:FOUND$}{line}", "")));
}

/// Wraps `text` at `width` characters. A longer word has a line of its own.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(checks: serde_json::Value, readiness: &str) -> HostReport {
        let report = json!({ "format": 1, "readiness": readiness, "checks": checks });
        serde_json::from_value(report).unwrap()
    }

    fn plain(report: &HostReport) -> String {
        let lines = lines(report).join("\n");
        anstream::adapter::strip_str(&lines).to_string()
    }

    #[test]
    fn a_check_says_what_is_lost_and_what_to_type() {
        let checks = json!([
            {
                "id": "kvm", "status": "missing",
                "found": "/dev/kvm: Permission denied (os error 13)", "lost": "no VM can run",
                "remedy": { "command": "sudo usermod -aG kvm $USER", "note": "then log in again" }
            },
            { "id": "environment", "status": "good", "found": "", "lost": null, "remedy": null },
            { "id": "landlock", "status": "good", "found": "ABI 7\u{1b}[2J", "lost": null, "remedy": null },
            { "id": "no_new_privs", "status": "good", "found": "", "lost": null, "remedy": null },
            { "id": "rlimits", "status": "warning", "found": "no", "lost": "disks fill", "remedy": null },
            {
                "id": "reflink", "status": "undecided",
                "found": "not known: a file system that gives no answer at all, whatever it is asked for",
                "lost": null, "remedy": null
            }
        ]);
        let expected = [
            "chv-sandbox doctor: not ready; missing 1, unknown 1, warnings 1",
            "MISSING kvm           /dev/kvm: Permission denied (os error 13)",
            "        without it no VM can run",
            "        $ sudo usermod -aG kvm $USER  # then log in again",
            "good    landlock      ABI 7\\u{1b}[2J",
            "warning rlimits       no",
            "        without it disks fill",
            "UNKNOWN reflink       not known: a file system that gives no answer at all,",
            "                      whatever it is asked for",
            "good    layers        environment, no_new_privs",
        ];
        let plain = plain(&report(checks, "not_ready"));
        assert_eq!(plain.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_command_stays_whole() {
        let command = "word ".repeat(30);
        let checks = json!([{
            "id": "vmm", "status": "missing", "found": "no", "lost": "no VM can run",
            "remedy": { "command": command, "note": null }
        }]);
        assert!(plain(&report(checks, "not_ready")).contains(&command));
    }

    #[test]
    fn layers_are_named_as_in_a_configuration() {
        assert_eq!(layer("no_new_privs"), Ok(Layer::NoNewPrivs));
        for name in ["", "Landlock", "seccomp", "no-new-privs"] {
            let error = layer(name).unwrap_err();
            assert!(error.contains("landlock, namespaces, cgroup"), "{error}");
        }
    }
}
