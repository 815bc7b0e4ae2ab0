//! Every public error type can be boxed, sent to another thread and kept: it implements `std::error::Error`, `Send` and
//! `Sync`, and borrows nothing. The compiler checks the types of the list, and the test that none is missing.

use std::collections::BTreeSet;

fn assert_error<E: std::error::Error + Send + Sync + 'static>() {}

/// Checks the bounds for each type, and returns the paths of the types.
macro_rules! errors {
    ($($($name:ident)::+,)+) => {{
        $(assert_error::<chv_sandbox::$($name)::+>();)+
        [$(stringify!($($name)::+).replace(' ', ""),)+]
    }};
}

#[test]
fn every_public_error_can_be_boxed_and_sent() {
    let checked = BTreeSet::from(errors![
        api::DecodeError,
        api::ParseReleaseError,
        archive::ArchiveError,
        client::Error,
        client::EventMonitorError,
        compat::DocumentError,
        compat::probe::Error,
        compat::probe::ParsePlayedError,
        digest::ParseDigestError,
        golden::BaselineError,
        golden::Error,
        golden::KeyError,
        golden::MintError,
        guest::dispatcher::ServeError,
        guest::dispatcher::ToolsFileError,
        guest::frame::FrameError,
        guest::frame::LengthError,
        guest::protocol::DecodeError,
        guest::protocol::ToolNameError,
        guest::record::RecordError,
        image::ContainerError,
        image::Error,
        image::LayerError,
        latency::Error,
        latency::ReportError,
        machine::Error,
        overlay::Error,
        replay::CassetteError,
        replay::Error,
        sandbox::ConfigError,
        sandbox::EnvironmentError,
        sandbox::Error,
        sandbox::TransferError,
        spec::CorrectionError,
        spec::Error,
        spec::ParseReleaseError,
        spec::ParseReleasesError,
        spec::ParseTargetError,
        vmm::Error,
        vmm::IdentityError,
        vsock::Error,
        vsock::EvidenceError,
        vsock::HandshakeError,
    ]);
    let listed: BTreeSet<String> = include_str!("public_items.txt")
        .lines()
        .filter_map(|line| line.split_once(": "))
        .filter(|(path, kind)| {
            path.ends_with("Error") && (kind.starts_with("enum") || kind.starts_with("struct"))
        })
        .map(|(path, _)| path.to_owned())
        .collect();
    let missing: Vec<_> = listed.difference(&checked).collect();
    assert!(
        missing.is_empty(),
        "not in the list of this test: {missing:?}"
    );
}
