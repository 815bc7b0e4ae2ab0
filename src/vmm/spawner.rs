//! The thread that starts and reaps all VMMs ([`spawn`]).
//!
//! The kernel sends the parent-death signal when the *thread* that started a child ends, not when its process ends. A
//! VMM that was started from a runtime's worker or blocking thread would die with that thread. So one thread, which
//! never ends, starts all VMMs. It also reaps them, so a [`Vmm`](super::Vmm) does not depend on any async runtime.

use std::io;
use std::sync::{Mutex, mpsc};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::oneshot;

use super::child::Child;
use super::confinement::Grants;
use super::launch::Launch;
use super::spawned::SpawnedVmm;
use super::vmm_count::VmmCount;
use super::waker::Waker;
use super::{Error, VmmConfig};
use crate::causes::Causes;
use crate::mutex::lock;
use crate::offload::blocking;

/// Starts a VMM for [`Vmm::spawn`](super::Vmm::spawn). It returns before the VMM answers.
pub(super) async fn spawn(config: &VmmConfig, grants: Grants) -> Result<SpawnedVmm, Error> {
    let config = config.clone();
    let living = VmmCount::begin();
    let launch = blocking(move || Launch::prepare(config, grants, living)).await?;
    let (reply, answer) = oneshot::channel();
    submit(Request { launch, reply })?;
    // If this future is dropped, the thread's reply fails, which kills the VMM and removes its directory.
    answer
        .await
        .map_err(|_| Error::NoSpawner { source: None })?
}

struct Request {
    launch: Launch,
    reply: oneshot::Sender<Result<SpawnedVmm, Error>>,
}

/// The channel to the thread.
struct Spawner {
    requests: mpsc::Sender<Request>,
    waker: Waker,
}

/// The thread's channel, once the first request was made.
static SPAWNER: Mutex<Option<Spawner>> = Mutex::new(None);

fn submit(request: Request) -> Result<(), Error> {
    let mut spawner = lock(&SPAWNER);
    let spawner = match &mut *spawner {
        Some(spawner) => spawner,
        none => none.insert(start_thread().map_err(|source| Error::NoSpawner {
            source: Some(source),
        })?),
    };
    spawner
        .requests
        .send(request)
        .map_err(|_| Error::NoSpawner { source: None })?;
    spawner.waker.wake().map_err(|source| Error::NoSpawner {
        source: Some(source),
    })
}

fn start_thread() -> io::Result<Spawner> {
    let (requests, incoming) = mpsc::channel();
    let waker = Waker::new()?;
    let woken = waker.clone();
    thread::Builder::new()
        .name("vmm-spawner".to_owned())
        .spawn(move || run(&incoming, &woken))?;
    Ok(Spawner { requests, waker })
}

/// The thread's loop: waits for requests and for the end of children. It never returns.
fn run(requests: &mpsc::Receiver<Request>, woken: &Waker) {
    let mut children: Vec<Child> = Vec::new();
    loop {
        wait_for_anything(&children, woken);
        woken.clear();
        for request in requests.try_iter() {
            let answer = request.launch.start().map(|(running, child)| {
                children.push(child);
                running
            });
            // If the caller's future was dropped, the VMM is dropped here, which kills its process. The process is
            // reaped like any other.
            let _ = request.reply.send(answer);
        }
        let ended = children.extract_if(.., |child| child.process_tree.process.has_ended());
        ended.for_each(Child::reap);
    }
}

fn wait_for_anything(children: &[Child], woken: &Waker) {
    let mut descriptors = vec![PollFd::new(woken, PollFlags::IN)];
    for child in children {
        descriptors.push(PollFd::new(&child.process_tree.process, PollFlags::IN));
    }
    match poll(&mut descriptors, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => {
            // The only remaining error is a lack of memory. The thread examines all children after a pause.
            tracing::error!(error = %Causes(&error), "waiting for VMMs failed");
            thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}
