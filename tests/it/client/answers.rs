//! Answers of every kind: each form of an error, answers that are cut short or have no end, and bytes that aren't HTTP.

use std::io::Write;

use chv_sandbox::api;
use chv_sandbox::client::{Client, Error, ErrorKind};

use super::server::{NO_CONTENT, Server, accept, answer, ping, read_request, with_body};

/// The result of `vm.boot` when the server answers with `bytes` and then closes.
async fn boot_answered(bytes: impl Into<Vec<u8>>) -> Result<(), Error> {
    let bytes = bytes.into();
    let server = Server::run(move |listener| {
        let mut stream = accept(listener);
        read_request(&mut stream);
        // The client may close before the end.
        let _ = stream.write_all(&bytes);
    });
    let client = Client::new(server.socket()).unwrap();
    let result = client.send(api::vm_boot()).await;
    drop(client);
    server.finish();
    result
}

#[tokio::test]
async fn each_form_of_an_error_is_understood() {
    async fn check(answer: &str, kind: ErrorKind, messages: &[&str]) {
        let error = boot_answered(answer).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.messages().len()),
            (&kind, messages.len()),
            "{answer}"
        );
        assert_eq!(error.messages(), messages, "{answer}");
    }
    check(
        &with_body(
            404,
            r#"["Error from API","The VM could not boot","VM config is missing"]"#,
        ),
        ErrorKind::NotCreated,
        &[
            "Error from API",
            "The VM could not boot",
            "VM config is missing",
        ],
    )
    .await;
    check(&with_body(400, ""), ErrorKind::Rejected, &[]).await;
    check(
        &with_body(500, "VM is not created"),
        ErrorKind::NotCreated,
        &["VM is not created"],
    )
    .await;
    check(
        &with_body(
            400,
            "{ \"error\": \"Broken\nAll previous unanswered requests will be dropped.\" }",
        ),
        ErrorKind::Rejected,
        &["Broken All previous unanswered requests will be dropped."],
    )
    .await;
    // The server leaves out the space after the status.
    check(
        "HTTP/1.1 503\r\nServer: Firecracker API\r\nConnection: close\r\nContent-Length: 40\r\n\r\n\
         { \"error\": \"Too many open connections\" }",
        ErrorKind::Busy,
        &["Too many open connections"],
    )
    .await;
}

#[tokio::test]
async fn the_text_of_an_error() {
    let answer = with_body(500, r#"["Error from API","VM is not running"]"#);
    let error = boot_answered(answer).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "vm.boot on {}: the VM's state does not allow it (status 500: Error from API: VM is not running)",
            error.socket().display()
        )
    );
}

#[tokio::test]
async fn an_answer_that_is_cut_short_is_no_answer() {
    let whole = with_body(500, r#"["VM is not running"]"#);
    for cut in 0..whole.len() {
        let error = boot_answered(&whole[..cut]).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::VmmGone, "cut at {cut}: {error}");
        assert_eq!(error.status(), None);
    }
}

#[tokio::test]
async fn an_answer_without_end_or_that_is_not_http_is_refused() {
    let flood = |head: &str, piece: &str, count: usize| {
        let mut answer = head.to_owned();
        answer.push_str(&piece.repeat(count));
        answer
    };
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    for answer in [
        flood(
            "HTTP/1.1 200 \r\nContent-Length: 99999999999\r\n\r\n",
            "",
            0,
        ),
        flood("HTTP/1.1 200 \r\nContent-Length: nine\r\n\r\n", "", 0),
        flood(
            "HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n",
            &chunk,
            257,
        ),
        flood("HTTP/1.1 200 \r\nX: ", "x", 100_000),
        flood("HTTP/1.1 200 \r\n", "X: x\r\n", 1000),
        flood("OK 1024\n", "", 0),
        flood("", "\0", 10),
    ] {
        let shown = answer[..answer.len().min(60)].to_owned();
        let error = boot_answered(answer).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Decode, "{shown:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_success_with_another_body_is_a_decode_error() {
    let server = Server::run(|listener| {
        let mut stream = accept(listener);
        answer(&mut stream, &with_body(200, r#"{"state":"#));
        answer(&mut stream, &ping("not a release"));
        answer(&mut stream, NO_CONTENT);
    });
    let client = Client::new(server.socket()).unwrap();
    let error = client.send(api::vm_info()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.status()),
        (&ErrorKind::Decode, Some(200))
    );
    let error = client.release().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.status()),
        (&ErrorKind::Decode, Some(200))
    );
    client.send(api::vm_boot()).await.unwrap();
    server.finish();
}

#[tokio::test]
async fn a_connection_is_closed_after_a_parse_error() {
    let server = Server::run(|listener| {
        let parse_error = with_body(400, "{ \"error\": \"Broken\n\" }");
        let mut first = accept(listener);
        answer(&mut first, &format!("{parse_error}{parse_error}"));
        answer(&mut accept(listener), NO_CONTENT);
    });
    let client = Client::new(server.socket()).unwrap();
    let error = client.send(api::vm_boot()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Rejected);
    client.send(api::vm_boot()).await.unwrap();
    server.finish();
}

/// The server closes the eleventh connection before it reads from it.
#[tokio::test]
async fn a_full_server_is_busy() {
    let server = Server::run(|listener| {
        for _ in 0..20 {
            let full = "HTTP/1.1 503\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
            accept(listener).write_all(full.as_bytes()).unwrap();
        }
        answer(&mut accept(listener), NO_CONTENT);
    });
    let client = Client::new(server.socket()).unwrap();
    for _ in 0..20 {
        let error = client.send(api::vm_boot()).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Busy, "{error:?}");
        assert!(error.is_retryable());
    }
    client.send(api::vm_boot()).await.unwrap();
    server.finish();
}
