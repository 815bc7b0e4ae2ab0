//! Image configurations with settings that tools can't have.

use chv_sandbox::image::{ContainerError, ContainerSource, EntrypointTool, RootSource, pack};
use serde_json::{Value, json};

use super::super::layout::{Family, Layer, Parts};
use super::super::{super::Inputs, configured, spec};
use super::{check, refused};

#[test]
fn configurations_that_tools_cannot_have() {
    let user = |error: &ContainerError| matches!(error, ContainerError::User { .. });
    check(&configured(json!({"User": "nobody"})), user);
    check(&configured(json!({"User": "web:nobody"})), user);
    let directory =
        |error: &ContainerError| matches!(error, ContainerError::WorkingDirectory { .. });
    for path in ["srv", "/a/../b", "/etc/passwd", "/private"] {
        check(&configured(json!({"WorkingDir": path})), directory);
    }
    let value = |error: &ContainerError| matches!(error, ContainerError::Value { .. });
    check(
        &configured(json!({"Env": ["secret without a sign"]})),
        value,
    );
    check(&configured(json!({"Env": ["=x"]})), value);
}

#[test]
fn entry_points_that_are_no_tools() {
    let inputs = Inputs::new();
    for (index, execution) in [
        json!({}),
        json!({"Entrypoint": ["missing"]}),
        json!({"Entrypoint": ["/etc/passwd"]}),
        json!({"Entrypoint": ["./run"]}),
        json!({"Entrypoint": ["/opt/bin/run", "{brace}"]}),
    ]
    .into_iter()
    .enumerate()
    {
        let parts = configured(execution);
        let path = parts.write(&inputs.path(&format!("layout{index}")));
        let mut source = ContainerSource::new(path);
        source.entrypoint_tool = Some(EntrypointTool {
            name: "main".to_owned(),
            arguments: Vec::new(),
        });
        let mut spec = inputs.spec();
        spec.root = RootSource::Container(source);
        if let Some(error) = refused(&inputs, &spec) {
            assert!(
                matches!(error, ContainerError::Entrypoint { .. }),
                "{index}: {error:?}"
            );
        }
    }
}

#[test]
fn a_root_that_is_too_small_for_the_image() {
    let inputs = Inputs::new();
    let layer = Layer::new().file("large", &vec![1; 9 << 20]);
    let parts = Parts::new(Family::Oci, vec![layer], Value::Null);
    let mut spec = spec(&inputs, parts.write(&inputs.path("layout")));
    spec.root_mib = Some(9);
    let Some(error) = refused(&inputs, &spec) else {
        return;
    };
    let ContainerError::DoesNotFit { needed_mib, .. } = error else {
        panic!("{error:?}");
    };
    spec.root_mib = Some(needed_mib);
    pack(&spec).expect("as much as it needs");
}
