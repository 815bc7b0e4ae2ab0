//! The events of a channel.

use chv_sandbox::guest::protocol::{ErrorEvent, EvidenceChain, EvidenceChunk, Hello};

use super::*;

#[tokio::test]
async fn frames_are_events_with_their_channel() {
    let (vm, other) = (Vm::new(), Vm::new());
    let (channel, mut guest) = connected(&vm.config()).await;
    let (second, _guest) = connected(&other.config()).await;
    assert_ne!(channel.origin().channel, second.origin().channel);

    let mut events = channel.events();
    let chunk = EvidenceChunk {
        command_id: "c1".into(),
        seq: 1,
        chunk_data: b"c1\n".to_vec(),
        chunk_size: 3,
        is_terminal: true,
    };
    let mut chain = EvidenceChain::default();
    chain.append(&chunk);
    let chunk = Frame::EvidenceChunk(chunk);
    let answered = Frame::ToolResult(ToolResult {
        evidence_hash: Some(chain.last_link()),
        ..result("c1")
    });
    let answer = async {
        guest.read().await;
        guest.send(&chunk).await;
        guest.send(&answered).await;
    };
    let (got, ()) = tokio::join!(channel.dispatch(echo("c1"), LIMIT), answer);
    got.unwrap();
    for expected in [chunk, answered] {
        let event = events.try_recv().expect("there before the answer");
        assert_eq!(&event.origin, channel.origin());
        assert_eq!(event.origin.socket.as_ref(), vm.socket());
        assert!(matches!(event.kind, ChannelEventKind::Frame(frame) if *frame == expected));
    }
}

#[tokio::test]
async fn the_first_to_listen_hears_what_was_before() {
    let vm = Vm::new();
    let (channel, mut guest) = connected(&vm.config()).await;
    let hello = Frame::Hello(Hello::of_this_build());
    let greet = async {
        guest.read().await;
        guest.send(&hello).await;
    };
    let (greeted, ()) = tokio::join!(channel.hello(LIMIT), greet);
    greeted.unwrap();
    let mut first = channel.events();
    let mut second = channel.events();
    match next(&mut first).await {
        ChannelEventKind::Frame(frame) => assert_eq!(*frame, hello),
        event => panic!("{event:?}"),
    }
    let event = ErrorEvent {
        code: "C".into(),
        message: "now".into(),
    };
    guest.send(&Frame::ErrorEvent(event.clone())).await;
    for events in [&mut first, &mut second] {
        match next(events).await {
            ChannelEventKind::GuestError(told) => assert_eq!(told, event),
            event => panic!("{event:?}"),
        }
    }
}

#[tokio::test]
async fn nothing_is_kept_for_a_later_subscriber_once_a_tool_runs() {
    let vm = Vm::new();
    let (channel, mut guest) = connected(&vm.config()).await;
    let answer = async {
        guest.read().await;
        guest.send(&Frame::ToolResult(result("c1"))).await;
    };
    let (got, ()) = tokio::join!(channel.dispatch(echo("c1"), LIMIT), answer);
    got.unwrap();
    assert!(channel.events().is_empty());
}

#[tokio::test]
async fn an_error_event_is_cut_and_safe_to_show() {
    let vm = Vm::new();
    let (channel, mut guest) = connected(&vm.config()).await;
    let mut events = channel.events();
    let event = ErrorEvent {
        code: "C\n\u{1b}[1A".into(),
        message: "é".repeat(5000),
    };
    guest.send(&Frame::ErrorEvent(event)).await;
    match next(&mut events).await {
        ChannelEventKind::GuestError(event) => {
            assert_eq!(event.code, "C\\n\\u{1b}[1A");
            assert_eq!(event.message, format!("{}…", "é".repeat(4095)));
        }
        event => panic!("{event:?}"),
    }
}
