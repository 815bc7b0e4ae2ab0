//! Converts names on the wire to names in Rust.

use quote::format_ident;
use syn::Ident;

/// Returns an identifier of exactly this name.
pub(super) fn ident(name: &str) -> Ident {
    format_ident!("{name}")
}

/// Returns the name of a field or function: `generic-vhost-user` becomes `generic_vhost_user`, and `vm.add-disk`
/// becomes `vm_add_disk`.
pub(super) fn field(wire: &str) -> Ident {
    let name = wire.replace(['-', '.'], "_");
    syn::parse_str(&name).unwrap_or_else(|_| format_ident!("r#{name}"))
}

/// The name of a variant: `vm.add-disk` is `VmAddDisk`. A value `Unknown` gives way to the variant that holds the
/// values this crate does not know.
pub(super) fn variant(wire: &str) -> Ident {
    if wire == "Unknown" {
        return ident("Undetermined");
    }
    let words = wire.split(['-', '.', '_']).map(|word| {
        let (first, rest) = word.split_at(1);
        first.to_ascii_uppercase() + rest
    });
    ident(&words.collect::<String>())
}

/// Returns the name of a static: `VmConfig` becomes `VM_CONFIG`.
pub(super) fn shouted(name: &str) -> Ident {
    let mut shouted = String::new();
    let mut after_small = false;
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && after_small {
            shouted.push('_');
        }
        after_small = !letter.is_ascii_uppercase();
        shouted.push(letter.to_ascii_uppercase());
    }
    ident(&shouted)
}

#[test]
fn names_follow_rust() {
    fn check(wire: &str, as_field: &str, as_variant: &str) {
        assert_eq!(
            (field(wire).to_string(), variant(wire).to_string()),
            (as_field.into(), as_variant.into())
        );
    }
    check("vm.add-disk", "vm_add_disk", "VmAddDisk");
    check("vmm.ping", "vmm_ping", "VmmPing");
    check(
        "vm.add-generic-vhost-user",
        "vm_add_generic_vhost_user",
        "VmAddGenericVhostUser",
    );
    check("type", "r#type", "Type");
    check("OnDemand", "OnDemand", "OnDemand");
    check("Unknown", "Unknown", "Undetermined");
}

#[test]
fn names_of_statics_are_upper_case() {
    assert_eq!(shouted("VmConfig"), "VM_CONFIG");
    assert_eq!(shouted("VmAddUserDevice"), "VM_ADD_USER_DEVICE");
}
