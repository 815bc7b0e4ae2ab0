//! `chv-sandbox doctor`: what this host lacks to run sandboxes.

use std::path::PathBuf;

use anstyle::{AnsiColor, Style};
use chv_sandbox::compat::render::neutral;
use chv_sandbox::doctor::{
    CheckStatus, HostCheck, HostExamination, HostReport, Layer, Readiness, examine,
};
use chv_sandbox::vmm::VmmConfig;

use super::Failure;
use super::interrupt::Interrupt;
use super::status::{self, Status};

const BOLD: Style = Style::new().bold();
const GOOD: Style = AnsiColor::Green.on_default();
const WARNING: Style = AnsiColor::Yellow.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// How wide a screen is, in characters.
const WIDTH: usize = 80;

/// Where the text of a check begins.
const INDENT: usize = 22;

/// Tries everything that a sandbox needs of this host, and says what is missing, what is lost without it, and what to type
/// to get it. Needs no root and changes nothing.
#[derive(clap::Args)]
#[command(after_help = status::help(&[
    (Status::Yes, "ready; warnings say what is slower or less confined"),
    (Status::No, "not ready: something is missing"),
    (Status::Undecided, "something that is needed could not be found out"),
]))]
pub(crate) struct Args {
    /// The VMM's executable; a bare name is looked up in PATH
    #[arg(
        long,
        value_name = "BIN",
        env = "CLOUD_HYPERVISOR",
        default_value = "cloud-hypervisor"
    )]
    vmm: PathBuf,
    /// Where each VMM's private directory would be made [default: in the user's runtime directory]
    #[arg(long, value_name = "DIR")]
    run_root: Option<PathBuf>,
    /// A golden snapshot that is to be restored here
    #[arg(long, value_name = "DIR")]
    golden: Option<PathBuf>,
    /// Layers of the boundary around a VMM that have to be there, as landlock,namespaces
    #[arg(long, value_name = "LAYERS", value_delimiter = ',', value_parser = layer)]
    require: Vec<Layer>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

fn layer(name: &str) -> Result<Layer, String> {
    let found = Layer::ALL.into_iter().find(|layer| layer.name() == name);
    found.ok_or_else(|| {
        let names = Layer::ALL.map(Layer::name);
        format!("it is none of {}", names.join(", "))
    })
}

pub(crate) async fn run(args: Args) -> Result<Status, Failure> {
    let interrupt = Interrupt::catch()?;
    let mut vmm = VmmConfig {
        binary: args.vmm,
        ..VmmConfig::default()
    };
    if let Some(run_root) = args.run_root {
        vmm.run_root = run_root;
    }
    let examination = HostExamination {
        vmm,
        golden: args.golden,
        require: args.require,
    };
    let mut examined = tokio::spawn(async move { examine(&examination).await });
    let report = match interrupt.race(&mut examined).await {
        Ok(report) => report?,
        Err(signalled) => {
            // Each trial removes what it made, and has a limit.
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

/// The report for people, at most as wide as a screen unless a word is longer.
fn lines(report: &HostReport) -> Vec<String> {
    let (style, word) = match report.readiness {
        Readiness::Ready => (GOOD, "ready"),
        Readiness::NotReady => (BAD, "not ready"),
        Readiness::Undecided => (BAD, "undecided"),
    };
    let count = |status| {
        report
            .checks
            .iter()
            .filter(|check| check.status == status)
            .count()
    };
    let missing = count(CheckStatus::Missing);
    let warnings = count(CheckStatus::Warning);
    let mut lines = vec![format!(
        "{BOLD}chv-sandbox doctor{BOLD:#}: {style}{word}{style:#}, {missing} missing, {warnings} warnings"
    )];
    for check in &report.checks {
        tell(check, &mut lines);
    }
    lines
}

fn tell(check: &HostCheck, lines: &mut Vec<String>) {
    let (style, word) = match check.status {
        CheckStatus::Good => (GOOD, "good"),
        CheckStatus::Warning => (WARNING, "warning"),
        CheckStatus::Missing => (BAD, "MISSING"),
        CheckStatus::Undecided => (BAD, "UNKNOWN"),
    };
    let mut found = wrap(&neutral(&check.found), "").into_iter();
    let first = found.next().unwrap_or_default();
    lines.push(format!("{style}{word:<8}{style:#}{:<14}{first}", check.id));
    let indented = |line: String| format!("{:INDENT$}{line}", "");
    lines.extend(found.map(indented));
    if let Some(lost) = &check.lost {
        lines.extend(wrap(lost, "without it: ").into_iter().map(indented));
    }
    if let Some(remedy) = &check.remedy {
        let note = remedy.note.as_ref();
        let note = note.map(|note| format!("  # {note}")).unwrap_or_default();
        let command = neutral(&format!("{}{note}", remedy.command));
        lines.extend(wrap(&command, "$ ").into_iter().map(indented));
    }
}

/// `text` after `lead`, in lines that fit beside the names of the checks; a longer word has a line of its own.
fn wrap(text: &str, lead: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = lead.to_owned();
    let mut is_empty = true;
    for word in text.split(' ') {
        let longer = line.chars().count() + usize::from(!is_empty) + word.chars().count();
        if longer > WIDTH - INDENT && !is_empty {
            lines.push(std::mem::take(&mut line));
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    lines.push(line);
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

    #[track_caller]
    fn check(report: &HostReport, expected: &str) {
        let lines = lines(report).join("\n");
        let plain = anstream::adapter::strip_str(&lines).to_string();
        assert_eq!(plain, expected);
        for line in plain.lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
    }

    #[test]
    fn a_check_says_what_is_lost_and_what_to_type() {
        let checks = json!([
            {
                "id": "kvm", "status": "missing",
                "found": "/dev/kvm: Permission denied (os error 13)", "lost": "no VM can run",
                "remedy": { "command": "sudo usermod -aG kvm $USER", "note": "then log in again" }
            },
            { "id": "no_new_privs", "status": "good", "found": "set\u{1b}[2J", "lost": null, "remedy": null },
            {
                "id": "reflink", "status": "warning",
                "found": "none in /tmp/chv-sandbox-1000 (ext4): Operation not supported (os error 95)",
                "lost": "speed", "remedy": null
            }
        ]);
        check(
            &report(checks, "not_ready"),
            "chv-sandbox doctor: not ready, 1 missing, 1 warnings\n\
             MISSING kvm           /dev/kvm: Permission denied (os error 13)\n                      \
             without it: no VM can run\n                      \
             $ sudo usermod -aG kvm $USER  # then log in again\n\
             good    no_new_privs  set\\u{1b}[2J\n\
             warning reflink       none in /tmp/chv-sandbox-1000 (ext4): Operation not\n                      \
             supported (os error 95)\n                      \
             without it: speed",
        );
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
