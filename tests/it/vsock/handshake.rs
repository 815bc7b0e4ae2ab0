//! The handshake with the VMM's hybrid-vsock socket: what is sent, which replies are final, and what is tried again.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use chv_sandbox::guest::protocol::ErrorEvent;
use chv_sandbox::vsock::{Error, HandshakeError};

use super::*;

/// The attempts and the last cause of a handshake that must fail.
async fn fails(config: &ChannelConfig) -> (u32, HandshakeError) {
    let error = Channel::open(config).await.unwrap_err();
    assert_eq!(error.code(), "SANDBOX_VSOCK_HANDSHAKE_FAILED");
    match error {
        Error::Handshake {
            socket,
            port,
            attempts,
            source,
            ..
        } => {
            assert_eq!(
                (socket.as_path(), port),
                (config.socket.path(), config.port)
            );
            (attempts, source)
        }
        error => panic!("{error:?}"),
    }
}

/// A VMM that answers every connection with `reply` and leaves it open.
fn replies(vm: &Vm, reply: &'static [u8]) {
    let listener = vm.listen();
    tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut guest, _) = Guest::accept(&listener).await;
            guest.send_bytes(reply).await;
            open.push(guest);
        }
    });
}

#[tokio::test]
async fn the_line_names_the_port_and_the_reply_may_come_in_bytes() {
    let vm = Vm::new();
    let listener = vm.listen();
    let config = ChannelConfig {
        port: 52_000,
        ..vm.config()
    };
    let accept = async {
        let (mut guest, line) = Guest::accept(&listener).await;
        for byte in b"OK 7\n" {
            guest.send_bytes(&[*byte]).await;
            tokio::task::yield_now().await;
        }
        (guest, line)
    };
    let (channel, (mut guest, line)) = tokio::join!(Channel::open(&config), accept);
    assert_eq!(line, "CONNECT 52000\n");
    drop(channel.unwrap());
    guest.closed().await;
}

#[tokio::test]
async fn a_frame_in_the_packet_of_the_reply_is_not_lost() {
    let vm = Vm::new();
    let listener = vm.listen();
    let event = ErrorEvent {
        code: "EARLY".into(),
        message: String::new(),
    };
    let mut bytes = b"OK 7\n".to_vec();
    bytes.extend(encode(&Frame::ErrorEvent(event.clone())).unwrap());
    let accept = async {
        let (mut guest, _) = Guest::accept(&listener).await;
        guest.send_bytes(&bytes).await;
        guest
    };
    let config = vm.config();
    let open = async {
        let channel = Channel::open(&config).await.unwrap();
        // No other task runs between the two calls, so no event is missed.
        (channel.events(), channel)
    };
    let ((mut events, _channel), _guest) = tokio::join!(open, accept);
    assert!(matches!(next(&mut events).await, ChannelEventKind::GuestError(got) if got == event));
}

#[tokio::test]
async fn a_reply_that_no_vmm_gives_ends_it_at_once() {
    let check = async |reply: &'static [u8], shown: &str| {
        let vm = Vm::new();
        replies(&vm, reply);
        let (attempts, cause) = fails(&vm.config()).await;
        assert_eq!(attempts, 1);
        assert!(
            matches!(&cause, HandshakeError::BadReply { reply } if reply == shown),
            "{cause:?}"
        );
    };
    check(
        b"OK 00000000000000000000000000000000000\n",
        "OK 0000000000000000000000000000",
    )
    .await;
    check(
        b"HTTP/1.1 400 Bad Request\r\n",
        "HTTP/1.1 400 Bad Request\r\n",
    )
    .await;
    check(b"OK port\n", "OK port\n").await;
    check(b"\n", "\n").await;
    check(b"\xff\n", "\u{fffd}\n").await;
}

#[tokio::test]
async fn a_guest_that_never_answers_is_given_up_in_the_end() {
    let vm = Vm::new();
    replies(&vm, b"");
    let config = ChannelConfig {
        limits: limits().handshake(SHORT).boot(5 * SHORT),
        ..vm.config()
    };
    let (attempts, cause) = fails(&config).await;
    assert!((2..=5).contains(&attempts), "{attempts}");
    assert!(
        matches!(cause, HandshakeError::NoReply { limit } if limit == SHORT),
        "{cause:?}"
    );
}

#[tokio::test]
async fn the_cause_is_not_that_the_last_attempt_was_cut_short() {
    let vm = Vm::new();
    let listener = vm.listen();
    let vmm = async {
        Guest::accept(&listener).await;
        let _silent = Guest::accept(&listener).await;
        std::future::pending::<()>().await;
    };
    let config = ChannelConfig {
        limits: limits().boot(10 * SHORT),
        ..vm.config()
    };
    let (attempts, cause) = tokio::select! {
        failed = fails(&config) => failed,
        () = vmm => unreachable!("it waits for ever"),
    };
    assert_eq!(attempts, 2);
    assert!(matches!(cause, HandshakeError::ClosedSilently), "{cause:?}");
}

#[tokio::test]
async fn a_reply_that_is_cut_anywhere_is_tried_again() {
    const REPLY: &[u8] = b"OK 1073741824\n";
    let vm = Vm::new();
    let listener = vm.listen();
    let come_up = async {
        for length in 0..REPLY.len() {
            let (mut guest, _) = Guest::accept(&listener).await;
            guest.send_bytes(&REPLY[..length]).await;
        }
        let (mut guest, _) = Guest::accept(&listener).await;
        guest.send_bytes(REPLY).await;
        guest
    };
    let config = vm.config();
    let (channel, _guest) = tokio::join!(Channel::open(&config), come_up);
    assert!(!channel.unwrap().is_poisoned());
}

#[tokio::test]
async fn a_reply_that_is_always_cut_is_told_in_the_end() {
    let vm = Vm::new();
    let listener = vm.listen();
    let vmm = async {
        loop {
            Guest::accept(&listener).await.0.send_bytes(b"OK 10").await;
        }
    };
    let config = ChannelConfig {
        limits: limits().boot(4 * SHORT),
        ..vm.config()
    };
    let open = async {
        let error = Channel::open(&config).await.unwrap_err();
        // The guest sent nothing wrong.
        assert!(error.is_silence());
        error
    };
    let error = tokio::select! {
        error = open => error,
        () = vmm => unreachable!("it accepts for ever"),
    };
    assert!(
        matches!(
            &error,
            Error::Handshake { attempts: 2.., source: HandshakeError::CutReply { reply }, .. } if reply == "OK 10"
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn garbage_is_final_however_it_ends() {
    // The VMM closes the connection inside the reply.
    let vm = Vm::new();
    let listener = vm.listen();
    let vmm = async {
        Guest::accept(&listener)
            .await
            .0
            .send_bytes(b"HTTP/1.1 4")
            .await;
        std::future::pending::<()>().await;
    };
    let config = vm.config();
    let (attempts, cause) = tokio::select! {
        failed = fails(&config) => failed,
        () = vmm => unreachable!("it waits for ever"),
    };
    assert_eq!(attempts, 1);
    assert!(
        matches!(&cause, HandshakeError::BadReply { reply } if reply == "HTTP/1.1 4"),
        "{cause:?}"
    );

    // The VMM leaves the reply without an end.
    let vm = Vm::new();
    replies(&vm, b"OK 12x");
    let config = ChannelConfig {
        limits: limits().handshake(SHORT),
        ..vm.config()
    };
    let (attempts, cause) = fails(&config).await;
    assert_eq!(attempts, 1);
    assert!(
        matches!(&cause, HandshakeError::BadReply { reply } if reply == "OK 12x"),
        "{cause:?}"
    );
}

#[tokio::test]
async fn half_a_reply_is_no_reply() {
    let vm = Vm::new();
    replies(&vm, b"OK 1");
    let config = ChannelConfig {
        limits: limits().handshake(SHORT).boot(SHORT),
        ..vm.config()
    };
    let (_, cause) = fails(&config).await;
    assert!(matches!(cause, HandshakeError::NoReply { .. }), "{cause:?}");
}

#[tokio::test]
async fn the_line_is_finished_though_the_caller_has_gone() {
    let vm = Vm::new();
    let listener = vm.listen();
    let config = ChannelConfig {
        limits: limits().handshake(SHORT).boot(SHORT),
        ..vm.config()
    };
    fails(&config).await;
    let (mut guest, line) = Guest::accept(&listener).await;
    assert_eq!(line, "CONNECT 1024\n");
    guest.closed().await;
}

#[tokio::test]
async fn a_guest_that_comes_up_is_met() {
    let vm = Vm::new();
    let config = vm.config();
    let come_up = async {
        // First there is no socket, then connections are closed without a reply, then one gets no reply, and then the
        // guest answers.
        tokio::time::sleep(SHORT).await;
        let listener = vm.listen();
        for _ in 0..3 {
            Guest::accept(&listener).await;
        }
        let mut open = vec![Guest::accept(&listener).await.0];
        loop {
            let (mut guest, _) = Guest::accept(&listener).await;
            guest.send_bytes(b"OK 1\n").await;
            open.push(guest);
        }
    };
    let config = ChannelConfig {
        limits: limits().handshake(SHORT),
        ..config
    };
    let channel = tokio::select! {
        channel = Channel::open(&config) => channel,
        () = come_up => unreachable!("it accepts for ever"),
    };
    assert!(!channel.unwrap().is_poisoned());
}

#[tokio::test]
async fn a_missing_socket_and_one_without_a_listener_are_named() {
    let vm = Vm::new();
    let config = ChannelConfig {
        limits: limits().boot(4 * SHORT),
        ..vm.config()
    };
    let (attempts, cause) = fails(&config).await;
    assert!(attempts > 1, "{attempts}");
    assert!(
        matches!(&cause, HandshakeError::Connect(error) if error.kind() == std::io::ErrorKind::NotFound),
        "{cause:?}"
    );

    drop(vm.listen());
    let (_, cause) = fails(&config).await;
    assert!(
        matches!(&cause, HandshakeError::Connect(error) if error.kind() == std::io::ErrorKind::ConnectionRefused),
        "{cause:?}"
    );
}

#[tokio::test]
async fn a_path_that_is_too_long_is_not_tried() {
    let vm = Vm::new();
    let long = |bytes: usize| {
        let base = vm.dir.path().as_os_str().len() + 1;
        vm.dir.path().join("s".repeat(bytes - base))
    };
    let (attempts, cause) = fails(&config(&long(108))).await;
    assert_eq!(attempts, 0);
    assert!(
        matches!(cause, HandshakeError::PathTooLong { bytes: 108 }),
        "{cause:?}"
    );

    connected(&config(&long(107))).await;
}

#[tokio::test]
async fn a_path_need_not_be_utf_8() {
    let vm = Vm::new();
    connected(&config(
        &vm.dir.path().join(OsStr::from_bytes(b"vsock-\xff")),
    ))
    .await;
}
