//! Standard input and signals of a run.

use std::future::poll_fn;
use std::io;

use chv_sandbox::guest::protocol::RunSignal;
use chv_sandbox::guest::record::MAX_RECORD;
use chv_sandbox::vsock::{RunRecord, RunWriter};

use super::*;

async fn write(input: &RunWriter, bytes: &[u8]) -> io::Result<usize> {
    poll_fn(|context| input.poll_stdin(context, bytes)).await
}

async fn write_all(input: &RunWriter, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let written = write(input, bytes).await.unwrap();
        bytes = &bytes[written..];
    }
}

/// Does the work, and sends what the run has queued at the same time.
async fn flushing<T>(input: &RunWriter, work: impl Future<Output = T>) -> T {
    tokio::select! {
        () = input.flush() => panic!("the socket has failed"),
        done = work => done,
    }
}

#[tokio::test]
async fn standard_input_goes_in_records_and_ends_once() {
    let scene = Scene::new().await;
    let (mut run, mut guest) = scene.run(StdinMode::Piped).await;
    let large: Vec<u8> = (0..2 * MAX_RECORD + 5).map(|at| (at * 3) as u8).collect();
    let input = run.input.clone();
    let host = flushing(&input, async {
        write_all(&input, b"a line\n").await;
        write_all(&input, &large).await;
        assert_eq!(write(&input, b"").await.unwrap(), 0);
        input.end_stdin();
        input.end_stdin();
        let late = write(&input, b"late").await.unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::BrokenPipe);
        run.output.next().await.unwrap()
    });
    let take = async {
        let mut taken = Vec::new();
        while taken
            .last()
            .is_none_or(|(kind, _)| *kind != RecordKind::EndOfStdin)
        {
            taken.push(guest.take().await);
        }
        let end = guest.end();
        guest.send_end(&end).await;
        taken
    };
    let (end, taken) = tokio::join!(host, take);
    assert!(matches!(end, RunRecord::End(end) if end.records_taken == 5));
    let stdin = RecordKind::Stdin;
    let expected = [
        (stdin, b"a line\n".to_vec()),
        (stdin, large[..MAX_RECORD].to_vec()),
        (stdin, large[MAX_RECORD..2 * MAX_RECORD].to_vec()),
        (stdin, large[2 * MAX_RECORD..].to_vec()),
        (RecordKind::EndOfStdin, Vec::new()),
    ];
    assert!(taken == expected, "the records differ");
}

#[tokio::test]
async fn a_run_without_standard_input_takes_none() {
    let scene = Scene::new().await;
    let (run, _guest) = scene.run(StdinMode::None).await;
    let error = write(&run.input, b"x").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn output_comes_while_standard_input_is_stuck_and_a_signal_waits_for_one_record_only() {
    let scene = Scene::new().await;
    let (mut run, mut guest) = scene.run(StdinMode::Piped).await;
    let input = run.input.clone();
    let body = vec![b'x'; MAX_RECORD];
    let mut sent = 0;
    // The guest reads nothing.
    while tokio::time::timeout(SHORT, flushing(&input, write(&input, &body)))
        .await
        .is_ok()
    {
        sent += 1;
        assert!(sent < 16, "the socket takes all that is sent");
    }
    guest.stdout(b"still there").await;
    let output = run.output.next().await.unwrap();
    assert!(matches!(output, RunRecord::Output { bytes, .. } if bytes == "still there"));

    // Two signals that have not been sent become one, the stronger.
    input.signal(RunSignal::Terminate);
    input.signal(RunSignal::Kill);
    input.signal(RunSignal::Terminate);
    let take = async {
        let mut kinds = Vec::new();
        while kinds.last() != Some(&RecordKind::Signal) {
            let (kind, body) = guest.take().await;
            if kind == RecordKind::Signal {
                assert_eq!(body, RunSignal::Kill.encode());
            }
            kinds.push(kind);
        }
        kinds
    };
    let kinds = flushing(&input, take).await;
    assert_eq!(kinds.len(), sent + 1);
    let end = guest.end();
    guest.send_end(&end).await;
    assert!(matches!(
        run.output.next().await.unwrap(),
        RunRecord::End(_)
    ));
}

#[tokio::test]
async fn records_that_the_guest_has_not_read_before_its_end_are_no_error() {
    let scene = Scene::new().await;
    let (mut run, mut guest) = scene.run(StdinMode::Piped).await;
    write_all(&run.input, b"taken").await;
    guest.take().await;
    let end = guest.end();
    for _ in 0..3 {
        write_all(&run.input, b"on its way").await;
    }
    run.input.signal(RunSignal::Terminate);
    guest.send_end(&end).await;
    let RunRecord::End(said) = run.output.next().await.unwrap() else {
        panic!("no end");
    };
    assert_eq!(said.records_taken, 1);
}

#[tokio::test]
async fn closing_ends_both_halves_and_keeps_the_received_output() {
    let scene = Scene::new().await;
    let (mut run, mut guest) = scene.run(StdinMode::Piped).await;
    guest.stdout(b"before").await;
    run.input.close();
    let error = write(&run.input, b"x").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    guest.guest.closed().await;
    assert!(matches!(
        run.output.next().await.unwrap(),
        RunRecord::Output { .. }
    ));
    assert_eq!(
        run.output.next().await.unwrap_err().code(),
        "SANDBOX_VSOCK_CLOSED"
    );
}
