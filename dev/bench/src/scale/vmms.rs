//! The thread that starts stand-in VMMs, in a PID namespace of their own: an
//! orchestrator on this host that kills whatever is called `firecracker` at
//! its start must not be imitated by these, nor they be met by it.

use anyhow::{Context as _, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sandtrace_sys::unshare;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::SystemTime;

struct Order {
    namespace: File,
    command: Command,
}

/// A VMM that runs.
pub(super) struct Vmm {
    child: Child,
    /// Just before it was started.
    pub(super) started: SystemTime,
}

/// Starts VMMs, all of which end with this value.
pub(super) struct Starter {
    orders: Option<Sender<Order>>,
    started: Receiver<Result<Vmm>>,
    thread: Option<JoinHandle<()>>,
}

impl Starter {
    pub(super) fn new() -> Result<Self> {
        let (orders, received) = channel();
        let (answer, started) = channel();
        let (is_ready, ready) = channel();
        let thread = std::thread::Builder::new().name("vmms".to_owned());
        let thread = thread.spawn(move || match first_process() {
            Ok(mut first) => {
                let _waits = is_ready.send(Ok(()));
                serve(&received, &answer);
                // The end of process 1 is the end of its namespace.
                drop(first.stdin.take());
                let _ended = first.wait();
            }
            Err(error) => {
                let _waits = is_ready.send(Err(error));
            }
        });
        let thread = thread.context("starting a thread")?;
        let ready = ready.recv().context("awaiting the thread of the VMMs")?;
        ready.context("making a PID namespace")?;
        Ok(Self {
            orders: Some(orders),
            started,
            thread: Some(thread),
        })
    }

    pub(super) fn start(&self, namespace: File, command: Command) -> Result<Vmm> {
        let orders = self.orders.as_ref().context("it ended")?;
        let order = Order { namespace, command };
        orders.send(order).ok().context("the starter is gone")?;
        self.started.recv().context("the starter is gone")?
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

impl Vmm {
    pub(super) fn kill(mut self) -> Result<()> {
        self.child.kill().context("ending a VMM")?;
        self.child.wait().context("awaiting a VMM")?;
        Ok(())
    }
}

/// Process 1 of the namespace; lives until its input ends, at the latest with
/// this program.
fn first_process() -> io::Result<Child> {
    unshare::mounts_and_children()?;
    Command::new("cat").stdin(Stdio::piped()).spawn()
}

fn serve(orders: &Receiver<Order>, answer: &Sender<Result<Vmm>>) {
    for mut order in orders {
        let started = start(&mut order);
        if answer.send(started).is_err() {
            return;
        }
    }
}

fn start(order: &mut Order) -> Result<Vmm> {
    let network = Some(LinkNameSpaceType::Network);
    move_into_link_name_space(order.namespace.as_fd(), network).context("entering a namespace")?;
    let started = SystemTime::now();
    let child = order.command.spawn().context("starting a VMM")?;
    Ok(Vmm { child, started })
}
