//! The stream of a VMM's events, from monitors that do exactly what each test says.

use std::fs::{self, File, OpenOptions};
use std::io::{self, PipeWriter, Seek, SeekFrom, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use chv_sandbox::client::{EventMonitor, EventMonitorError, MonitorEvent};
use futures_util::{FutureExt, Stream, StreamExt};
use rustix::fs::{CWD, Mode};
use tokio::time::timeout;

/// Reached only when a test fails.
const GENEROUS: Duration = Duration::from_secs(20);

/// Long enough for the stream to look at its monitor again.
const WHILE: Duration = Duration::from_millis(150);

/// An event as a VMM writes it.
fn event(name: &str) -> String {
    format!(
        "{{\n  \"timestamp\": {{\n    \"secs\": 1,\n    \"nanos\": 5\n  }},\n  \"source\": \"vm\",\n  \
         \"event\": \"{name}\",\n  \"properties\": null\n}}\n\n"
    )
}

fn pipe() -> (EventMonitor, PipeWriter) {
    let (reader, writer) = io::pipe().unwrap();
    (EventMonitor::from_file(reader).unwrap(), writer)
}

/// The next item: its name, or what kind of error it is; nothing at the end.
async fn next(events: &mut EventMonitor) -> Option<String> {
    let item = timeout(GENEROUS, events.next())
        .await
        .expect("an item in time")?;
    Some(match item {
        Ok(event) => event.event,
        Err(error) => {
            let kind = match &error {
                EventMonitorError::NotAnEvent { length, .. } => format!("{length} bytes"),
                EventMonitorError::TooLong { limit, .. } => format!("over {limit}"),
                other => panic!("{other:?}"),
            };
            assert!(!error.is_final());
            kind
        }
    })
}

/// Everything up to the end.
async fn all(events: &mut EventMonitor) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(item) = next(events).await {
        all.push(item);
    }
    all
}

#[tokio::test]
async fn events_come_in_their_order_until_the_writer_closes() {
    let (mut events, mut writer) = pipe();
    write!(writer, "{}{}", event("booting"), event("booted")).unwrap();
    let first: MonitorEvent = events.next().await.unwrap().unwrap();
    assert_eq!((&*first.source, &*first.event), ("vm", "booting"));
    assert_eq!(first.timestamp, Duration::new(1, 5));
    assert!(first.properties.is_empty());
    assert_eq!(next(&mut events).await.as_deref(), Some("booted"));
    assert!(
        events.next().now_or_never().is_none(),
        "the writer is still there"
    );
    drop(writer);
    assert_eq!(next(&mut events).await, None);
    assert_eq!(next(&mut events).await, None, "and stays at its end");
}

#[tokio::test]
async fn half_an_event_is_waited_for_and_a_dropped_wait_loses_nothing() {
    let (mut events, mut writer) = pipe();
    let whole = event("paused");
    for piece in whole.as_bytes().chunks(20) {
        assert!(timeout(WHILE / 10, events.next()).await.is_err());
        writer.write_all(piece).unwrap();
    }
    assert_eq!(next(&mut events).await.as_deref(), Some("paused"));
}

#[tokio::test]
async fn what_is_no_event_is_told_and_left_out() {
    let (mut events, mut writer) = pipe();
    let long = "x".repeat(20_000);
    let torn = &event("torn")[..30];
    for bytes in [
        "\x1b[2J\n\n",
        &event("one"),
        &long,
        "\n\n\n\n",
        &event("two"),
        torn,
    ] {
        writer.write_all(bytes.as_bytes()).unwrap();
    }
    drop(writer);
    let expected = ["4 bytes", "one", "over 16384", "two", "30 bytes"];
    assert_eq!(all(&mut events).await, expected);
}

/// One line without an end costs one error and no memory, and other tasks have their turn.
#[tokio::test]
async fn an_endless_line_is_read_past() {
    const LENGTH: usize = 32 << 20;
    let (mut events, mut writer) = pipe();
    let written = thread::spawn(move || {
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..LENGTH / piece.len() {
            writer.write_all(&piece).unwrap();
        }
        write!(writer, "\n\n{}", event("after")).unwrap();
    });
    let (done, is_done) = tokio::sync::oneshot::channel::<()>();
    let turns = tokio::spawn(async move {
        let mut turns = 0;
        let mut is_done = is_done;
        while is_done.try_recv().is_err() {
            turns += 1;
            tokio::task::yield_now().await;
        }
        turns
    });
    assert_eq!(all(&mut events).await, ["over 16384", "after"]);
    done.send(()).unwrap();
    assert!(turns.await.unwrap() > 10);
    written.join().unwrap();
}

/// Short pieces of garbage are told one after the other: a reader that stops makes the writer wait.
#[tokio::test]
async fn a_flood_of_garbage_waits_for_its_reader() {
    let (mut events, mut writer) = pipe();
    let flood = thread::spawn(
        move || {
            while writer.write_all(&b"x\n\n".repeat(10_000)).is_ok() {}
        },
    );
    for _ in 0..20_000 {
        assert_eq!(next(&mut events).await.as_deref(), Some("1 bytes"));
    }
    drop(events);
    flood.join().unwrap();
}

fn fifo(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("events");
    rustix::fs::mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
    path
}

#[tokio::test]
async fn a_fifo_can_be_opened_before_its_writer() {
    let folder = tempfile::tempdir().unwrap();
    let path = fifo(folder.path());
    let mut events = EventMonitor::open(&path).unwrap();
    assert!(timeout(WHILE, events.next()).await.is_err());
    let mut writer = OpenOptions::new().write(true).open(&path).unwrap();
    assert!(timeout(WHILE, events.next()).await.is_err());
    writer.write_all(event("starting").as_bytes()).unwrap();
    assert_eq!(next(&mut events).await.as_deref(), Some("starting"));
    drop(writer);
    assert_eq!(next(&mut events).await, None);
}

#[tokio::test]
async fn a_writer_that_writes_nothing_ends_the_stream_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = fifo(folder.path());
    let mut events = EventMonitor::open(&path).unwrap();
    drop(OpenOptions::new().write(true).open(&path).unwrap());
    assert_eq!(next(&mut events).await, None);
}

#[tokio::test]
async fn a_socket_is_read_as_a_pipe_is() {
    let (reader, mut writer) = UnixStream::pair().unwrap();
    let mut events = EventMonitor::from_file(reader).unwrap();
    writer.write_all(event("booted").as_bytes()).unwrap();
    assert_eq!(next(&mut events).await.as_deref(), Some("booted"));
    drop(writer);
    assert_eq!(next(&mut events).await, None);
}

#[tokio::test]
async fn a_file_is_read_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events");
    let many: String = (0..1000).map(|at| event(&at.to_string())).collect();
    fs::write(&path, &many).unwrap();
    let mut events = EventMonitor::open(&path).unwrap();
    let names: Vec<String> = (0..1000).map(|at| at.to_string()).collect();
    assert_eq!(all(&mut events).await, names);
    // An open one from where it is, which stays where it is.
    let mut file = File::open(&path).unwrap();
    let half = many.len() - event("999").len();
    file.seek(SeekFrom::Start(half as u64)).unwrap();
    let mut events = EventMonitor::from_file(file.try_clone().unwrap()).unwrap();
    assert_eq!(all(&mut events).await, ["999"]);
    assert_eq!(file.stream_position().unwrap(), half as u64);
}

#[tokio::test]
async fn a_file_that_is_followed_has_no_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events");
    fs::write(&path, event("one")).unwrap();
    let mut events = EventMonitor::open(&path).unwrap().follow();
    assert_eq!(next(&mut events).await.as_deref(), Some("one"));
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    let two = event("two");
    file.write_all(&two.as_bytes()[..9]).unwrap();
    assert!(timeout(2 * WHILE, events.next()).await.is_err());
    file.write_all(&two.as_bytes()[9..]).unwrap();
    assert_eq!(next(&mut events).await.as_deref(), Some("two"));
    // The next VMM begins the file anew.
    file.write_all(b"half").unwrap();
    assert!(timeout(2 * WHILE, events.next()).await.is_err());
    file.set_len(0).unwrap();
    file.write_all(event("three").as_bytes()).unwrap();
    assert_eq!(next(&mut events).await.as_deref(), Some("three"));
}

#[tokio::test]
async fn what_cannot_be_read_is_said_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    for path in [&*missing, folder.path()] {
        let error = EventMonitor::open(path).unwrap_err();
        let EventMonitorError::Open { monitor, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(monitor, path);
        assert!(error.is_final());
    }
    let (_reader, writer) = io::pipe().unwrap();
    let mut events = EventMonitor::from_file(writer).unwrap();
    let Some(Some(Err(error))) = timeout(WHILE, events.next()).await.ok() else {
        // The kernel never says that the writing end of a pipe has bytes.
        return;
    };
    assert!(
        error.is_final() && error.to_string().contains("pipe:["),
        "{error}"
    );
}

/// Tasks move between threads.
#[test]
fn a_monitor_can_be_sent() {
    fn check<T: Stream + Send + Unpin + 'static>() {}
    check::<EventMonitor>();
}
