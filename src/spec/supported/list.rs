// @generated from the folder api-spec/ by tests/it/spec/supported.rs: run `UPDATE=1 cargo test supported`.
//! The files of `api-spec/`.

use super::Release;

/// The contract of each release as its document has it, oldest first.
pub(super) const DOCUMENTS: &[(Release, &str)] = &[
    (
        Release {
            major: 44,
            minor: 0,
        },
        include_str!("../../../api-spec/v44.0.json"),
    ),
    (
        Release {
            major: 46,
            minor: 0,
        },
        include_str!("../../../api-spec/v46.0.json"),
    ),
    (
        Release {
            major: 48,
            minor: 0,
        },
        include_str!("../../../api-spec/v48.0.json"),
    ),
    (
        Release {
            major: 50,
            minor: 2,
        },
        include_str!("../../../api-spec/v50.2.json"),
    ),
    (
        Release {
            major: 51,
            minor: 2,
        },
        include_str!("../../../api-spec/v51.2.json"),
    ),
    (
        Release {
            major: 52,
            minor: 0,
        },
        include_str!("../../../api-spec/v52.0.json"),
    ),
    (
        Release {
            major: 53,
            minor: 0,
        },
        include_str!("../../../api-spec/v53.0.json"),
    ),
];

/// The corrections of all releases.
pub(super) const CORRECTIONS: &str = include_str!("../../../api-spec/corrections.toml");
