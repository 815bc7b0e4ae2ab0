//! The options `--push` and `--pull`: files that a run copies into the guest and out of it.

use std::path::PathBuf;

use chv_sandbox::archive::TransferProgress;
use chv_sandbox::sandbox::{ChvSandbox, Sandbox, TransferOptions};
use indicatif::{HumanBytes, HumanCount, ProgressBar};

use crate::cli::{Failure, progress};

/// A local file or directory, and its destination in the guest.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Push {
    local: PathBuf,
    guest: String,
}

/// A file or directory of the guest, and its local destination.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pull {
    guest: String,
    local: PathBuf,
}

impl Push {
    /// Parses `LOCAL:GUEST`. The guest's path can't have a colon.
    pub(super) fn parse(text: &str) -> Result<Push, &'static str> {
        let (local, guest) = text.rsplit_once(':').ok_or("it is not LOCAL:GUEST")?;
        check(local, guest)?;
        Ok(Push {
            local: local.into(),
            guest: guest.to_owned(),
        })
    }

    pub(super) async fn run(&self, sandbox: &ChvSandbox) -> Result<(), Failure> {
        let progress = TransferProgress::default();
        let shown = format!("{} to the guest", self.local.display());
        let options = TransferOptions::default().progress(progress.clone());
        let pushed = sandbox.push(&self.local, &self.guest, &options);
        with_bar(shown, &progress, pushed).await?;
        Ok(())
    }
}

impl Pull {
    /// Parses `GUEST:LOCAL`. The guest's path can't have a colon.
    pub(super) fn parse(text: &str) -> Result<Pull, &'static str> {
        let (guest, local) = text.split_once(':').ok_or("it is not GUEST:LOCAL")?;
        check(local, guest)?;
        Ok(Pull {
            guest: guest.to_owned(),
            local: local.into(),
        })
    }

    pub(super) async fn run(&self, sandbox: &ChvSandbox) -> Result<(), Failure> {
        let progress = TransferProgress::default();
        let shown = format!("{} from the guest", self.local.display());
        let options = TransferOptions::default().progress(progress.clone());
        let pulled = sandbox.pull(&self.guest, &self.local, &options);
        with_bar(shown, &progress, pulled).await?;
        Ok(())
    }
}

fn check(local: &str, guest: &str) -> Result<(), &'static str> {
    match (local, guest) {
        ("", _) => Err("the local path is empty"),
        (_, "") => Err("the guest's path is empty"),
        _ => Ok(()),
    }
}

/// Runs `transfer`, and shows its progress.
async fn with_bar<T>(
    name: String,
    so_far: &TransferProgress,
    transfer: impl Future<Output = T>,
) -> T {
    let bar = || ProgressBar::new_spinner().with_prefix(name);
    let drawing = progress::draw(bar, "{spinner} {prefix}: {msg}", |bar| {
        bar.set_message(format!(
            "{} files, {}",
            HumanCount(so_far.entries()),
            HumanBytes(so_far.bytes())
        ));
    });
    progress::shown(transfer, drawing).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_path_is_the_one_without_a_colon() {
        let push = Push::parse("C:/a:b:/data/in").unwrap();
        assert_eq!(
            (push.local, push.guest),
            ("C:/a:b".into(), "/data/in".to_owned())
        );
        let pull = Pull::parse("/data/out:a:b").unwrap();
        assert_eq!(
            (pull.local, pull.guest),
            ("a:b".into(), "/data/out".to_owned())
        );
        let push = Push::parse("data:in").unwrap();
        assert_eq!((push.local, push.guest), ("data".into(), "in".to_owned()));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["a", ":/b", "a:", ":", ""] {
            assert!(Push::parse(text).is_err(), "{text}");
        }
        for text in ["/a", "/a:", ":b", ":", ""] {
            assert!(Pull::parse(text).is_err(), "{text}");
        }
    }
}
