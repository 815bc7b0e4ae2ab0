//! Interim answers (1xx) and `Expect`, through a recorder and at a player.

use std::io::{Read, Write};

use super::*;
use crate::client::server::{NO_CONTENT, accept, read_request};

const CONTINUE: &str = "HTTP/1.1 100 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n";
const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nX-More: 1\r\n\r\n";
const HEAD: &str =
    "PUT /api/v1/vm.create HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";

/// The exchange that is recorded for `vm.create` with this body and this answer.
fn created(body: &str, answer: &str) -> String {
    format!(r#"{{"request":{{"method":"PUT","path":"/api/v1/vm.create",{body}}},{answer}}}"#)
}

#[tokio::test]
async fn a_client_that_waits_for_100_before_its_body_gets_it() {
    let mut scene = Scene::with(|listener| {
        let mut stream = accept(listener);
        let mut head = vec![0; HEAD.len()];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(head, HEAD.as_bytes());
        stream.write_all(CONTINUE.as_bytes()).unwrap();
        let mut body = [0; 2];
        stream.read_exact(&mut body).unwrap();
        assert_eq!(&body, b"{}");
        stream.write_all(NO_CONTENT.as_bytes()).unwrap();
        // The next request of the same client.
        answer(&mut accept(listener), NO_CONTENT);
    })
    .await;
    scene.write(HEAD).await;
    scene.read(CONTINUE).await;
    scene.write("{}").await;
    scene.read(NO_CONTENT).await;
    let boot = "PUT /api/v1/vm.boot HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
    scene.write(boot).await;
    scene.read(NO_CONTENT).await;
    let expected = r#"
        {"request":{"method":"PUT","path":"/api/v1/vm.create","body":{}},"response":{"status":204}},
        {"request":{"method":"PUT","path":"/api/v1/vm.boot"},"response":{"status":204}}"#;
    scene.expect_recorded(expected).await;
}

#[tokio::test]
async fn interim_answers_are_passed_on_and_never_recorded() {
    let interim = [CONTINUE, HINTS, CONTINUE].concat();
    let sent = [&interim, NO_CONTENT].concat();
    for piece in [1, 7, 1000] {
        let sent = sent.clone();
        let mut scene = Scene::with(move |listener| {
            let mut stream = accept(listener);
            assert!(read_request(&mut stream).ends_with("\r\n\r\n{}"));
            for bytes in sent.as_bytes().chunks(piece) {
                stream.write_all(bytes).unwrap();
            }
        })
        .await;
        // A VMM may send interim answers at any time, also to a client that sent no `Expect`.
        let request = "PUT /api/v1/vm.create HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}";
        scene.write(request).await;
        scene.read(&interim).await;
        scene.read(NO_CONTENT).await;
        let expected = created(r#""body":{}"#, r#""response":{"status":204}"#);
        scene.expect_recorded(&expected).await;
    }
}

#[tokio::test]
async fn an_interim_answer_comes_before_the_answer_is_there() {
    let (go_on, gone_on) = mpsc::channel();
    let mut scene = Scene::with(move |listener| {
        let mut stream = accept(listener);
        read_request(&mut stream);
        stream.write_all(HINTS.as_bytes()).unwrap();
        gone_on.recv().unwrap();
        stream.write_all(NO_CONTENT.as_bytes()).unwrap();
    })
    .await;
    let request = "PUT /api/v1/vm.create HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}";
    scene.write(request).await;
    scene.read(HINTS).await;
    go_on.send(()).unwrap();
    scene.read(NO_CONTENT).await;
    let expected = created(r#""body":{}"#, r#""response":{"status":204}"#);
    scene.expect_recorded(&expected).await;
}

#[tokio::test]
async fn a_vmm_that_sends_no_100_answers_all_the_same() {
    // The client sends its body after it has waited long enough.
    let mut scene = Scene::with(|listener| {
        let mut stream = accept(listener);
        let mut request = vec![0; HEAD.len() + 2];
        stream.read_exact(&mut request).unwrap();
        stream.write_all(NO_CONTENT.as_bytes()).unwrap();
    })
    .await;
    scene.write(HEAD).await;
    scene.write("{}").await;
    scene.read(NO_CONTENT).await;
    let expected = created(r#""body":{}"#, r#""response":{"status":204}"#);
    scene.expect_recorded(&expected).await;
}

#[tokio::test]
async fn an_answer_that_does_not_wait_for_the_body_is_passed_on_and_ends_the_connection() {
    const REFUSED: &str = "HTTP/1.1 417 \r\nServer: Cloud Hypervisor API\r\nConnection: keep-alive\r\n\
        Content-Type: application/json\r\nContent-Length: 0\r\n\r\n";
    for interim in ["", HINTS] {
        let mut scene = Scene::with(move |listener| {
            let mut stream = accept(listener);
            stream.read_exact(&mut vec![0; HEAD.len()]).unwrap();
            stream.write_all(interim.as_bytes()).unwrap();
            stream.write_all(REFUSED.as_bytes()).unwrap();
        })
        .await;
        scene.write(HEAD).await;
        scene.read(interim).await;
        scene.read(REFUSED).await;
        scene.expect_end().await;
        let expected = created(r#""length":2"#, r#""response":{"status":417}"#);
        scene.expect_recorded(&expected).await;
    }
}

#[tokio::test]
async fn a_vmm_that_closes_instead_of_100_is_recorded_as_closed() {
    let mut scene = Scene::with(|listener| {
        let mut stream = accept(listener);
        stream.read_exact(&mut vec![0; HEAD.len()]).unwrap();
    })
    .await;
    scene.write(HEAD).await;
    scene.expect_end().await;
    let expected = created(r#""length":2"#, r#""closed":true"#);
    scene.expect_recorded(&expected).await;
}

#[tokio::test]
async fn a_client_that_keeps_its_body_back_does_not_stop_the_others() {
    let mut scene = Scene::with(|listener| {
        let mut waiting = accept(listener);
        waiting.read_exact(&mut vec![0; HEAD.len()]).unwrap();
        waiting.write_all(CONTINUE.as_bytes()).unwrap();
        answer(&mut accept(listener), NO_CONTENT);
        // The client of this request has given it up.
        assert_eq!(waiting.read(&mut [0]).unwrap(), 0);
    })
    .await;
    scene.write(HEAD).await;
    scene.read(CONTINUE).await;
    let other = ask(scene.recorder.socket(), "PUT", "/api/v1/vm.boot", b"").await;
    assert_eq!(other, NO_CONTENT);
    scene.client.shutdown().await.unwrap();
    let expected =
        r#"{"request":{"method":"PUT","path":"/api/v1/vm.boot"},"response":{"status":204}}"#;
    scene.expect_recorded(expected).await;
}

#[tokio::test]
async fn bytes_that_are_no_http_answer_make_no_cassette() {
    // 101 is no interim answer, and the bytes after it are not HTTP.
    let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n";
    let mut scene = Scene::with(move |listener| {
        let mut stream = accept(listener);
        read_request(&mut stream);
        stream.write_all(switch.as_bytes()).unwrap();
    })
    .await;
    let request = "GET /api/v1/vm.info HTTP/1.1\r\n\r\n";
    scene.write(request).await;
    scene.read(switch).await;
    scene.expect_end().await;
    let error = scene.finish().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "step 1 (GET /api/v1/vm.info) can't be recorded: a cassette holds no answer of this status"
    );
}

#[tokio::test]
async fn a_player_sends_100_to_a_client_that_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let create = r#"{"request":{"method":"PUT","path":"/api/v1/vm.create","body":{}},"response":{"status":204}}"#;
    let player = vmm(folder.path(), &[create, create].join(",")).await;
    let mut client = UnixStream::connect(player.socket()).await.unwrap();
    let mut says = vec![0; CONTINUE.len()];
    client.write_all(HEAD.as_bytes()).await.unwrap();
    client.read_exact(&mut says).await.unwrap();
    assert_eq!(says, CONTINUE.as_bytes());
    let mut answer = vec![0; NO_CONTENT.len()];
    client.write_all(b"{}").await.unwrap();
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, NO_CONTENT.as_bytes());
    // The body is there already, so the player need not ask for it.
    let whole = [HEAD, "{}"].concat();
    client.write_all(whole.as_bytes()).await.unwrap();
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, NO_CONTENT.as_bytes());
    player.finish().await.unwrap();
}
