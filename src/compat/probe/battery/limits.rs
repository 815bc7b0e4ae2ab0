//! The scenario that finds the maximum size of a body.

use super::*;
use Operation::*;

/// Sizes in bytes on both sides of a limit of some release. The flag says whether the recorded releases accept the
/// size.
const SIZES: [(usize, bool); 4] = [
    (51_200, true),
    (51_201, false),
    (4 << 20, false),
    ((4 << 20) + 1, false),
];

pub(super) fn scenario() -> Scenario {
    let mut steps = vec![call(VmmPing, Expected::Fields(json!({})))];
    for (size, taken) in SIZES {
        let body = format!("{{}}{}", " ".repeat(size - 2)).into_bytes();
        let status = if taken { 204 } else { 400 };
        steps.push(wire("PUT", "/api/v1/vm.create", body, status));
        steps.push(call(VmDelete, Expected::Done));
    }
    steps.push(call(VmmShutdown, Expected::Done));
    Scenario {
        name: super::LIMITS,
        about: "How large the body of a request may be: the configuration of an empty VM, made long by spaces.",
        steps,
    }
}
