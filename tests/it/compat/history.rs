//! The comparison finds what changed between the supported releases, with no list of those changes.

use chv_sandbox::compat::Level;

use super::{contract, findings, lines};

const RELEASES: [&str; 7] = [
    "v44.0", "v46.0", "v48.0", "v50.2", "v51.2", "v52.0", "v53.0",
];

/// Checks the findings from `base` to `revision`, without those of the level `Info`.
fn check(base: &str, revision: &str, expected: &[&str]) {
    let found: Vec<_> = findings(&contract(base), &contract(revision))
        .into_iter()
        .filter(|finding| finding.level != Level::Info)
        .collect();
    assert_eq!(lines(&found), expected, "{base} to {revision}: {found:#?}");
}

#[test]
fn every_break_between_consecutive_releases_is_found() {
    check(
        "v44.0",
        "v46.0",
        &[
            "Breaking response-property-became-optional /components/schemas/DiskConfig/properties/path [vm.info]",
        ],
    );
    check(
        "v46.0",
        "v48.0",
        &[
            "Breaking request-property-removed /components/schemas/NumaConfig/properties/sgx_epc_sections [vm.create]",
            "Breaking response-property-removed /components/schemas/NumaConfig/properties/sgx_epc_sections [vm.info]",
            "Breaking request-property-removed /components/schemas/VmConfig/properties/sgx_epc [vm.create]",
            "Breaking response-property-removed /components/schemas/VmConfig/properties/sgx_epc [vm.info]",
        ],
    );
    check("v48.0", "v50.2", &[]);
    check("v50.2", "v51.2", &[]);
    check(
        "v51.2",
        "v52.0",
        &[
            // The serial port has another schema now, which lacks `iommu`; the console keeps its own.
            "Breaking request-reference-changed /components/schemas/VmConfig/properties/serial [vm.create]",
            "Breaking response-reference-changed /components/schemas/VmConfig/properties/serial [vm.info]",
            // Five inline enums became named schemas; this one gained a value.
            "Warning response-enum-value-added /components/schemas/DebugConsoleConfig/properties/mode [vm.info]",
        ],
    );
    let generic = "/components/schemas/GenericVhostUserConfig";
    let (adders, readers) = ("[vm.add-generic-vhost-user, vm.create]", "[vm.info]");
    check(
        "v52.0",
        "v53.0",
        &[
            "Breaking response-property-became-optional /components/schemas/DeviceConfig/properties/path [vm.info]",
            &format!(
                "Breaking request-required-property-added {generic}/properties/device_type {adders}"
            ),
            &format!("Breaking request-property-removed {generic}/properties/queue_size {adders}"),
            &format!(
                "Breaking response-property-removed {generic}/properties/queue_size {readers}"
            ),
            &format!(
                "Breaking request-required-property-added {generic}/properties/queue_sizes {adders}"
            ),
            &format!("Breaking request-property-removed {generic}/properties/virtio_id {adders}"),
            &format!("Breaking response-property-removed {generic}/properties/virtio_id {readers}"),
            // `tag` was in the list of required names without being a property.
            &format!("Breaking response-property-became-optional {generic}/required {readers}"),
            "Breaking request-property-removed /components/schemas/PlatformConfig/properties/iommu_address_width [vm.create]",
            "Breaking response-property-removed /components/schemas/PlatformConfig/properties/iommu_address_width [vm.info]",
            "Breaking endpoint-removed /paths/~1vmm.nmi [vmm.nmi]",
        ],
    );
}

#[test]
fn no_release_breaks_against_itself() {
    for release in RELEASES {
        assert_eq!(findings(&contract(release), &contract(release)), []);
    }
}

#[test]
fn a_renamed_property_is_reported_with_its_new_name() {
    /// Checks that the removal at `path` names `name` as the new name.
    fn check(base: &str, revision: &str, path: &str, name: &str) {
        let found = findings(&contract(base), &contract(revision));
        let mut removals = found.iter().filter(|found| found.path == path).peekable();
        assert!(removals.peek().is_some(), "{path}");
        for removal in removals {
            assert!(
                removal.message.ends_with(&format!("`{name}`")),
                "{}",
                removal.message
            );
        }
    }
    let properties =
        |schema: &str, name: &str| format!("/components/schemas/{schema}/properties/{name}");
    check("v52.0", "v53.0", "/paths/~1vmm.nmi", "/vm.nmi");
    let width = properties("PlatformConfig", "iommu_address_width");
    check("v52.0", "v53.0", &width, "iommu_address_width_bits");
    let generic = |name| properties("GenericVhostUserConfig", name);
    check("v52.0", "v53.0", &generic("queue_size"), "queue_sizes");
    check("v52.0", "v53.0", &generic("virtio_id"), "device_type");
}
