//! The confinement of a sandbox's VMMs: it is reported at the boot and in each reset report, and a configuration can
//! require it.

use chv_sandbox::machine::VmmSource;
use chv_sandbox::sandbox::{ChvSandbox, Event, Sandbox, Strategy};
use chv_sandbox::vmm::{Confinement, Layer, LayerReport, VmmConfig};

use super::{Scene, chain, told};

/// Checks that the layers which every host has are reported.
fn assert_told(layers: &[LayerReport]) {
    let names: Vec<_> = layers.iter().map(|report| report.layer).collect();
    assert_eq!(names, Layer::ALL);
    for layer in [Layer::Environment, Layer::NoNewPrivs, Layer::Capabilities] {
        let report = layers.iter().find(|report| report.layer == layer).unwrap();
        assert!(report.is_in_force(), "{report}");
    }
}

#[tokio::test]
async fn its_layers_are_told_at_the_boot_and_in_each_report() {
    for strategy in [Strategy::InPlace, Strategy::Fresh] {
        let scene = Scene::minted().await;
        let sandbox = scene
            .stage()
            .sandbox(scene.config_of(scene.golden().strategy(strategy)));
        let mut events = sandbox.subscribe();
        sandbox.boot().await.unwrap();
        let layers = told(&mut events, |event| match event {
            Event::Confinement(layers) => Some(layers.clone()),
            _ => None,
        });
        assert_told(&layers.await);
        let reset = sandbox.reset().await.unwrap();
        assert_told(&reset.outcome().report.layers);
        let report = serde_json::to_value(&reset.outcome().report).unwrap();
        assert_eq!(report["layers"][0]["layer"], "environment");
        assert_eq!(report["layers"][0]["state"], "in_force");
        sandbox.shutdown().await;
    }
}

#[tokio::test]
async fn nothing_is_told_of_a_vmm_that_another_program_runs() {
    let (_scene, sandbox) = Scene::booted().await;
    let reset = sandbox.reset().await.unwrap();
    assert!(reset.outcome().report.layers.is_empty());
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_sandbox_without_a_required_layer_is_not_available_here() {
    let scene = Scene::minted().await;
    let stage = scene.stage();
    let mut vmm: VmmConfig = stage.config();
    vmm.confinement = Confinement {
        require: vec![Layer::Cgroup],
        ..Confinement::default()
    };
    vmm.cgroup.parent = Some(scene.path("golden"));
    let sandbox = ChvSandbox::with_vmm(scene.config(), VmmSource::Spawn(vmm)).unwrap();
    let error = sandbox.boot().await.unwrap_err();
    assert_eq!(error.code(), "SANDBOX_NOT_AVAILABLE");
    let text = chain(&error);
    assert!(
        text.contains("cgroup") && text.contains("is required"),
        "{text}"
    );
    stage.assert_empty();
}
