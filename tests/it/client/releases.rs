//! When the client asks for the VMM's release, and which requests it then refuses.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, mpsc};

use bytes::Bytes;
use chv_sandbox::api::types::{MemoryRestoreMode, RestoreConfig};
use chv_sandbox::api::{self, Operation, Request};
use chv_sandbox::client::{Client, ErrorKind, Release};
use serde_json::Value;

use super::server::{NO_CONTENT, Server, accept, answer, ping, wait_for_end};

/// A request of which v51.2 ignores a field.
fn on_demand() -> Request<()> {
    let restore = RestoreConfig::new("file:///s");
    api::vm_restore(&restore.with_memory_restore_mode(MemoryRestoreMode::OnDemand))
}

fn raw(operation: Operation, body: &'static str) -> Request<Option<Value>> {
    Request::raw(operation, Some(Bytes::from_static(body.as_bytes())))
}

/// The first line of a request.
fn line(request: &str) -> &str {
    request.lines().next().unwrap()
}

const PING: &str = "GET /api/v1/vmm.ping HTTP/1.1";
const RESTORE: &str = "PUT /api/v1/vm.restore HTTP/1.1";

#[tokio::test]
async fn a_release_is_asked_for_only_when_it_matters() {
    let server = Server::run(|listener| {
        let mut stream = accept(listener);
        // Every release knows these operations.
        let plain = answer(&mut stream, NO_CONTENT);
        assert_eq!(line(&plain), RESTORE);
        assert!(line(&answer(&mut stream, NO_CONTENT)).contains("vm.create"));
        // Not every release knows this one, so the client asks for the release once.
        assert_eq!(line(&answer(&mut stream, &ping("52.0.0"))), PING);
        assert_eq!(line(&answer(&mut stream, NO_CONTENT)), RESTORE);
        assert_eq!(line(&answer(&mut stream, NO_CONTENT)), RESTORE);
        wait_for_end(&mut stream);
    });
    let client = Client::new(server.socket()).unwrap();
    let plain = api::vm_restore(&RestoreConfig::new("file:///s"));
    client.send(plain).await.unwrap();
    let nothing_new = r#"{"disks":[{"path":"/d","backing_files":null}]}"#;
    client
        .send(raw(Operation::VmCreate, nothing_new))
        .await
        .unwrap();
    client.send(on_demand()).await.unwrap();
    client.send(on_demand()).await.unwrap();
    drop(client);
    server.finish();
}

#[tokio::test]
async fn a_request_that_would_be_ignored_in_part_is_not_sent() {
    let server = Server::run(|listener| {
        let mut stream = accept(listener);
        assert_eq!(line(&answer(&mut stream, &ping("51.2.0"))), PING);
        // The connection is still usable.
        assert_eq!(line(&answer(&mut stream, NO_CONTENT)), RESTORE);
        wait_for_end(&mut stream);
    });
    let client = Client::new(server.socket()).unwrap();
    let error = client.send(on_demand()).await.unwrap_err();
    assert_eq!(
        *error.kind(),
        ErrorKind::NotSupported {
            what: "/memory_restore_mode in vm.restore".to_owned(),
            since: Some(Release::new(52, 0)),
            until: None,
            server: Some(Release::new(51, 2)),
        }
    );
    assert_eq!(error.operation(), Operation::VmRestore);
    let error = client
        .send(raw(
            Operation::VmRestore,
            r#"{"source_url":"x","resum":true}"#,
        ))
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("/resum in vm.restore is not supported by v51.2"),
        "{error}"
    );
    client.send(on_demand().unchecked()).await.unwrap();
    drop(client);
    server.finish();
}

#[tokio::test]
async fn behind_a_new_connection_the_release_is_asked_for_again() {
    let (closed, is_closed) = mpsc::channel();
    let server = Server::run(move |listener| {
        let mut stream = accept(listener);
        assert_eq!(line(&answer(&mut stream, &ping("53.0.0"))), PING);
        assert_eq!(line(&answer(&mut stream, NO_CONTENT)), RESTORE);
        drop(stream);
        closed.send(()).unwrap();
        // An older VMM has taken the place of the first one.
        let mut stream = accept(listener);
        assert_eq!(line(&answer(&mut stream, &ping("51.2.0"))), PING);
        wait_for_end(&mut stream);
    });
    let client = Client::new(server.socket()).unwrap();
    client.send(on_demand()).await.unwrap();
    is_closed.recv().unwrap();
    let error = client.send(on_demand()).await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::NotSupported { .. }),
        "{error}"
    );
    drop(client);
    server.finish();
}

#[tokio::test]
async fn a_vmm_without_a_readable_release_gets_no_request_that_depends_on_it() {
    let server = Server::run(|listener| {
        let mut stream = accept(listener);
        answer(&mut stream, &ping("unknown"));
        wait_for_end(&mut stream);
    });
    let client = Client::new(server.socket()).unwrap();
    let error = client.send(on_demand()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Decode);
    assert_eq!(error.operation(), Operation::VmmPing);
    drop(client);
    server.finish();
}

#[test]
fn a_newer_vmm_is_warned_of_once() {
    let server = Server::run(|listener| {
        let mut stream = accept(listener);
        answer(&mut stream, &ping("54.0.0"));
        for _ in 0..3 {
            answer(&mut stream, NO_CONTENT);
        }
        wait_for_end(&mut stream);
    });
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer({
            let log = log.clone();
            move || log.clone()
        })
        .with_max_level(tracing::Level::WARN)
        .finish();
    let client = Client::new(server.socket()).unwrap();
    tracing::subscriber::with_default(subscriber, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            client.send(on_demand()).await.unwrap();
            assert_eq!(client.release().await.unwrap(), Release::new(54, 0));
            // A newer server may know a field that no supported release knows, but it does not know what the newest one
            // has dropped.
            client
                .send(raw(Operation::VmCreate, r#"{"brand_new":1}"#))
                .await
                .unwrap();
            client
                .send(raw(Operation::VmRestore, r#"{"source_url":"x"}"#))
                .await
                .unwrap();
            let dropped = raw(Operation::VmCreate, r#"{"sgx_epc":[]}"#);
            let error = client.send(dropped).await.unwrap_err();
            assert!(
                matches!(error.kind(), ErrorKind::NotSupported { .. }),
                "{error}"
            );
            drop(client);
        });
    });
    server.finish();
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(
        log.matches("newer than every supported release").count(),
        1,
        "{log}"
    );
    assert!(
        log.contains("v54.0") && log.contains("treated as v53.0"),
        "{log}"
    );
}

/// The captured log lines.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
