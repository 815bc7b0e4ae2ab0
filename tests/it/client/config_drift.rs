//! `create_checked`: the VM is read back at once, and the fields that the VMM dropped are reported.

use chv_sandbox::api;
use chv_sandbox::api::types::VmConfig;
use chv_sandbox::client::{Client, ErrorKind};
use serde_json::{Value, json};

use super::server::{NO_CONTENT, Server, accept, answer, wait_for_end, with_body};

fn config(value: Value) -> VmConfig {
    serde_json::from_value(value).unwrap()
}

#[tokio::test]
async fn a_field_that_the_server_dropped_is_reported() {
    let server = Server::run(|listener| {
        let mut stream = accept(listener);
        let create = answer(&mut stream, NO_CONTENT);
        assert!(create.starts_with("PUT /api/v1/vm.create "), "{create}");
        let stored = json!({ "memory": { "size": 64, "thp": true }, "disks": [{ "path": "/d" }] });
        let info = json!({ "config": stored, "state": "Created" });
        let read = answer(&mut stream, &with_body(200, &info.to_string()));
        assert!(read.starts_with("GET /api/v1/vm.info "), "{read}");
        wait_for_end(&mut stream);
    });
    let client = Client::new(server.socket()).unwrap();
    let sent = config(json!({
        "memory": { "size": 64 },
        "disks": [{ "path": "/d", "readonly": true }],
        "watchdog": true,
    }));
    let drift = client.create_checked(&sent).await.unwrap();
    assert!(!drift.is_exact());
    assert_eq!(
        drift.to_string(),
        "/disks/0/readonly was dropped, sent as true; /watchdog was dropped, sent as true"
    );
    drop(client);
    server.finish();
}

/// A call of another task waits until the VM has been read back.
#[tokio::test]
async fn no_call_comes_between_creating_and_reading_back() {
    let server = Server::run(|listener| {
        let mut stream = accept(listener);
        let asked: Vec<String> = (0..3)
            .map(|at| {
                let reply = match at {
                    1 => with_body(200, r#"{"config":{},"state":"Created"}"#),
                    _ => NO_CONTENT.to_owned(),
                };
                let request = answer(&mut stream, &reply);
                request.split(' ').nth(1).unwrap().to_owned()
            })
            .collect();
        assert_eq!(
            asked,
            ["/api/v1/vm.create", "/api/v1/vm.info", "/api/v1/vm.boot"]
        );
        wait_for_end(&mut stream);
    });
    let client = Client::new(server.socket()).unwrap();
    let empty = VmConfig::default();
    let (drift, booted) =
        tokio::join!(biased; client.create_checked(&empty), client.send(api::vm_boot()));
    assert!(drift.unwrap().is_exact());
    booted.unwrap();
    drop(client);
    server.finish();
}

#[tokio::test]
async fn a_vm_that_was_not_created_is_not_read_back() {
    let server = Server::run(|listener| {
        let mut stream = accept(listener);
        answer(&mut stream, &with_body(500, r#"["VM is already created"]"#));
        wait_for_end(&mut stream);
    });
    let client = Client::new(server.socket()).unwrap();
    let error = client
        .create_checked(&VmConfig::default())
        .await
        .unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::AlreadyCreated);
    drop(client);
    server.finish();
}
