//! Runs of a guest that keeps the protocol.

use chv_sandbox::guest::record::MAX_RECORD;
use chv_sandbox::vsock::{OutputStream, RunRecord};

use super::*;

/// Reads a run up to its end, and returns all of its output.
async fn everything(run: &mut RunStream) -> (Vec<(OutputStream, Vec<u8>)>, RunEnd) {
    let mut output = Vec::new();
    loop {
        match run.output.next().await.unwrap() {
            RunRecord::Output { stream, bytes } => output.push((stream, bytes.to_vec())),
            RunRecord::End(end) => return (output, end),
        }
    }
}

#[tokio::test]
async fn output_comes_in_order_and_unchanged_to_the_byte() {
    let scene = Scene::new().await;
    let (mut run, mut guest) = scene.run(StdinMode::None).await;
    let large: Vec<u8> = (0..MAX_RECORD)
        .map(|at| (at * 7 + at / 256) as u8)
        .collect();
    let pieces: [(RecordKind, &[u8]); 8] = [
        (RecordKind::Stdout, b"one\n"),
        (RecordKind::Stderr, b"\xff\0\xfe"),
        (RecordKind::Stdout, &large),
        // A character in two records.
        (RecordKind::Stdout, b"\xc3"),
        (RecordKind::Stdout, b"\xa9"),
        (RecordKind::Stdout, &large[..70_000]),
        (RecordKind::Stderr, &large[1..]),
        (RecordKind::Stdout, b"x"),
    ];
    let send = async {
        for (kind, body) in pieces {
            guest.output(kind, body).await;
        }
        let end = guest.end();
        guest.send_end(&end).await;
        end
    };
    let ((output, end), said) = tokio::join!(everything(&mut run), send);
    let expected: Vec<_> = pieces
        .into_iter()
        .map(|(kind, body)| match kind {
            RecordKind::Stdout => (OutputStream::Stdout, body.to_vec()),
            _ => (OutputStream::Stderr, body.to_vec()),
        })
        .collect();
    assert!(output == expected, "the output differs");
    assert_eq!(end, said);
    scene.assert_channel_goes_on().await;
}

#[tokio::test]
async fn records_are_found_however_they_are_torn() {
    let scene = Scene::new().await;
    let (mut run, mut guest) = scene.run(StdinMode::None).await;
    let body: Vec<u8> = (0..40_000).map(|at| at as u8).collect();
    for kind in [RecordKind::Stdout, RecordKind::Stderr] {
        guest.to_host.append(kind, &body);
    }
    guest.totals = [body.len() as u64; 2];
    let bytes = [
        record(RecordKind::Stdout, &body),
        record(RecordKind::Stderr, &body),
        record(RecordKind::End, &guest.end().encode()),
    ]
    .concat();
    let send = async {
        for piece in bytes.chunks(997) {
            guest.guest.send_bytes(piece).await;
            tokio::task::yield_now().await;
        }
    };
    let ((output, _), ()) = tokio::join!(everything(&mut run), send);
    let expected = [
        (OutputStream::Stdout, body.clone()),
        (OutputStream::Stderr, body),
    ];
    assert!(output == expected, "the output differs");
}

#[tokio::test]
async fn output_that_comes_with_the_answer_is_not_lost() {
    let scene = Scene::new().await;
    let accept = async {
        let (guest, frame) = scene.accept().await;
        let mut guest = RunGuest::of(guest, &frame);
        guest.to_host.append(RecordKind::Stdout, b"early");
        guest.totals[0] = 5;
        let mut bytes = encode(&Frame::Opened(Opened {})).unwrap();
        bytes.extend(record(RecordKind::Stdout, b"early"));
        bytes.extend(record(RecordKind::End, &guest.end().encode()));
        guest.guest.send_bytes(&bytes).await;
        guest
    };
    let open = scene.channel.open_run(open_run(StdinMode::None));
    let (run, _guest) = tokio::join!(open, accept);
    let (output, end) = everything(&mut run.unwrap()).await;
    assert_eq!(output, [(OutputStream::Stdout, b"early".to_vec())]);
    assert_eq!(end.outcome, RunOutcome::Exited { code: 0 });
}

#[tokio::test]
async fn output_that_was_cut_is_less_than_the_totals() {
    let scene = Scene::new().await;
    let (mut run, mut guest) = scene.run(StdinMode::None).await;
    guest.stdout(b"kept").await;
    let end = RunEnd {
        stdout_total: 1 << 40,
        cut: true,
        ..guest.end()
    };
    guest.send_end(&end).await;
    assert_eq!(everything(&mut run).await.1, end);
}

#[tokio::test]
async fn a_guest_whose_output_is_not_read_is_held_up_by_the_socket() {
    let scene = Scene::new().await;
    let (mut run, mut guest) = scene.run(StdinMode::None).await;
    let body = vec![b'x'; MAX_RECORD / 8];
    let mut sent = 0;
    while tokio::time::timeout(SHORT, guest.stdout(&body))
        .await
        .is_ok()
    {
        sent += 1;
        assert!(sent < 128, "the socket takes all that comes");
    }
    // The first piece comes as soon as the caller reads.
    let first = run.output.next().await.unwrap();
    assert!(matches!(first, RunRecord::Output { bytes, .. } if bytes.len() == body.len()));
}

#[tokio::test]
async fn a_reader_that_gives_up_waiting_loses_nothing() {
    let scene = Scene::new().await;
    let (mut run, mut guest) = scene.run(StdinMode::None).await;
    let whole = record(RecordKind::Stdout, b"in two pieces");
    guest.to_host.append(RecordKind::Stdout, b"in two pieces");
    guest.totals[0] = 13;
    guest.guest.send_bytes(&whole[..9]).await;
    assert!(
        tokio::time::timeout(SHORT, run.output.next())
            .await
            .is_err()
    );
    guest.guest.send_bytes(&whole[9..]).await;
    let end = guest.end();
    guest.send_end(&end).await;
    let (output, _) = everything(&mut run).await;
    assert_eq!(output, [(OutputStream::Stdout, b"in two pieces".to_vec())]);
}
