//! The end of the command's help: an example, the names of all probes, and the exit statuses.

use chv_sandbox::redteam::{Family, probes};

use super::substrate::CAUSED;
use crate::cli::status::{self, Status};

const EXAMPLE: &str = "\
An image with the tool `sh`, and its golden snapshot under attack:
  echo '{\"sh\": true}' > tools.json
  chv-sandbox image --tools tools.json --busybox /bin/busybox --out image \\
    --kernel /boot/vmlinuz-$(uname -r) --modules /lib/modules/$(uname -r)
  chv-sandbox golden mint --image image --out golden
  chv-sandbox redteam --golden golden
";

/// The longest line of a list. Clap breaks a longer line, and doesn't keep its indentation.
const WIDTH: usize = 78;

/// The exit statuses.
pub(super) fn statuses() -> String {
    status::help(&[
        (Status::Yes, "every probe passed"),
        (
            Status::No,
            "a probe failed, which is a breach; the report has the evidence",
        ),
        (
            Status::Undecided,
            "no breach, but a probe was skipped, or the report could not be written",
        ),
    ])
}

/// All that follows the options in the long help.
pub(super) fn long() -> String {
    let mut families: Vec<Family> = probes().map(|probe| probe.family).collect();
    families.dedup();
    let families = families.into_iter().map(|family| {
        let names = names(|_, of| of == family);
        list(&format!("  {:<12}", family.name()), &names, ", ", ",")
    });
    let families: String = families.collect();
    let uncaused = names(|name, family| family == Family::Substrate && !CAUSED.contains(&name));
    let without = list("  --without ", &uncaused, ",", " \\");
    format!(
        "{EXAMPLE}\nThe families and their probes, for --only and --without:\n{families}\n\
         This command skips some probes on every golden snapshot. For the exit status\n\
         0 leave these out, and those that the report shows as skipped for another\n\
         reason, such as a program that the image lacks:\n{without}\n{}",
        statuses()
    )
}

/// The names of the probes of which `is_wanted` is true.
fn names(is_wanted: impl Fn(&str, Family) -> bool) -> Vec<&'static str> {
    let wanted = probes().filter(|probe| is_wanted(probe.name, probe.family));
    wanted.map(|probe| probe.name).collect()
}

/// Lists `names` after `first`, on as many lines as needed. All lines but the last end with `line_end`.
fn list(first: &str, names: &[&str], separator: &str, line_end: &str) -> String {
    let mut lines = vec![first.to_owned()];
    let mut before = "";
    for name in names {
        let line = lines.last_mut().expect("there is a first line");
        if line.len() + before.len() + name.len() + line_end.len() <= WIDTH {
            line.push_str(before);
            line.push_str(name);
        } else {
            line.push_str(line_end);
            lines.push(format!("{:1$}{name}", "", first.len()));
        }
        before = separator;
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_probe_and_no_line_is_broken() {
        let help = long();
        for probe in probes() {
            assert!(help.contains(probe.name), "{}", probe.name);
            let family = format!("\n  {} ", probe.family.name());
            assert!(help.contains(&family), "{family}");
        }
        for line in help.lines() {
            assert!(line.len() <= WIDTH, "{line}");
        }
    }

    #[test]
    fn a_list_goes_on_below_its_first_name() {
        let name = "x".repeat(30);
        let names = [&name[..], &name, &name];
        let expected = format!("  a  {name}, {name},\n     {name}\n");
        assert_eq!(list("  a  ", &names, ", ", ","), expected);
        assert_eq!(list("  a  ", &["b"], ",", " \\"), "  a  b\n");
    }
}
