//! The lab, set for a demo: it runs a sandbox while a session watches it.

use super::narrate::Narrator;
use crate::args::DemoSandbox;
use crate::exit::{Exit, Failure, OrExit as _};
use crate::policy_file::LoadedPolicy;
use crate::watch::session::Session;
use crate::watch::settings::{Request, Settings, Signing};
use crate::watch::trail::Finished;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sandtrace_lab::world::World;
use sandtrace_lab::{
    Ending, Lab, LabConfig, LabError, MicroVm, MicroVmConfig, NamespaceConfig, NamespaceSandbox,
    Network, Outcome, Overlay, Report, Scenario, make_image, scenario,
};
use sandtrace_provider::{ManualSpec, Target};
use std::io::pipe;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Longest run of a scripted agent, with emulation on a slow host.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often the agent's console is looked at.
const CONSOLE_INTERVAL: Duration = Duration::from_millis(20);
/// Size of the demo's disk in bytes.
const DISK_BYTES: u64 = 64 << 20;

/// A lab with its outside world. Dropping it removes everything.
pub(super) struct Stage {
    root: Root,
    signing: Signing,
    world: World,
    lab: Lab,
}

/// The file system that all runs share: what the first leaves behind, the second finds.
enum Root {
    Disk(PathBuf),
    Overlay(Overlay),
}

/// What one run came to.
pub(super) struct Run {
    pub(super) finished: Finished,
    pub(super) interrupted: bool,
}

impl Stage {
    /// Makes the lab, its world and the root file system; trails are signed
    /// by `signing`.
    pub(super) fn set(kind: DemoSandbox, signing: Signing) -> Result<Self, Failure> {
        let unavailable = |error: LabError| Failure {
            exit: match error {
                LabError::NotRoot => Exit::NoPermission,
                _ => Exit::Unavailable,
            },
            error: error.into(),
        };
        let lab = Lab::new(&LabConfig::default()).map_err(unavailable)?;
        // Leftovers of a demo that was killed with kill -9.
        Lab::sweep().map_err(unavailable)?;
        let world = World::start(lab.netns()).or_exit(Exit::Unavailable)?;
        let tree = scenario::base_tree();
        let root = match kind {
            DemoSandbox::Microvm => {
                let disk = lab.dir().join("rootfs.ext4");
                make_image(&disk, DISK_BYTES, &tree).map_err(unavailable)?;
                Root::Disk(disk)
            }
            DemoSandbox::Namespace => Root::Overlay(lab.overlay(&tree).map_err(unavailable)?),
        };
        Ok(Self {
            root,
            signing,
            world,
            lab,
        })
    }

    /// Runs one scenario under watch. The sandbox stands still until the
    /// session has attached and its baseline is taken.
    pub(super) fn play(
        &self,
        scenario: Scenario,
        policy: &LoadedPolicy,
        trail: &Path,
        interrupted: BorrowedFd<'_>,
        narrator: &Narrator,
    ) -> Result<Run, Failure> {
        let mut sandbox = self.sandbox(scenario)?;
        narrator.attached(&sandbox.describe())?;
        let settings = Settings::resolve(Request {
            agent_id: Some("billing-agent".to_owned()),
            duration: None,
            policy: Some(policy.clone()),
            resolvers: vec![self.world.resolver().into()],
            scan_interval: Duration::from_secs(2),
            signing: self.signing.clone(),
            target: sandbox.discover(&self.lab)?,
            trail: trail.to_owned(),
        })?;
        let session = Session::start(&settings, narrator.sinks()?)?;
        let (stopped, stop) = pipe().or_exit(Exit::Internal)?;
        let (ready, is_ready) = mpsc::channel();
        std::thread::scope(|scope| {
            let watch = scope.spawn(move || {
                session.run(stopped.as_fd(), move || {
                    // The stage may have given up waiting; the watch ends by itself.
                    let _given_up = ready.send(());
                })
            });
            // An error here means that the session failed, which its result tells.
            let was_interrupted = if is_ready.recv().is_ok() {
                sandbox.resume().or_exit(Exit::Unavailable)?;
                act(&mut sandbox, interrupted, narrator)?
            } else {
                false
            };
            if was_interrupted {
                drop(stop);
            }
            let finished = match watch.join() {
                Ok(finished) => finished?,
                Err(_) => return Err(Failure::new(Exit::Internal, "the session panicked")),
            };
            Ok(Run {
                finished,
                interrupted: was_interrupted,
            })
        })
    }

    fn sandbox(&self, scenario: Scenario) -> Result<Sandbox, Failure> {
        let network = Network::behind_tap(self.world.resolver());
        let script = scenario::script(scenario, &self.world, network);
        let sandbox_id = format!("demo-{}", self.lab.id());
        match &self.root {
            Root::Disk(disk) => {
                let config = MicroVmConfig::new(&sandbox_id, script, disk);
                self.lab
                    .microvm(&config)
                    .map(|vm| Sandbox::Vm(sandbox_id, vm))
            }
            Root::Overlay(overlay) => {
                let overlay = overlay.clone();
                let config = NamespaceConfig {
                    sandbox_id: sandbox_id.clone(),
                    script,
                    overlay,
                };
                self.lab
                    .namespace(&config)
                    .map(|sandbox| Sandbox::Namespace(sandbox_id, sandbox))
            }
        }
        .or_exit(Exit::Unavailable)
    }
}

/// Follows the agent to its end. Answers whether somebody interrupted it.
fn act(
    sandbox: &mut Sandbox,
    interrupted: BorrowedFd<'_>,
    narrator: &Narrator,
) -> Result<bool, Failure> {
    let began = Instant::now();
    loop {
        for report in sandbox.fresh_reports() {
            narrator.step(&report)?;
        }
        match sandbox.wait(CONSOLE_INTERVAL) {
            Ok(outcome) => {
                for report in sandbox.fresh_reports() {
                    narrator.step(&report)?;
                }
                return ended_well(&outcome).map(|()| false);
            }
            Err(LabError::Timeout { .. }) if began.elapsed() < PATIENCE => {}
            Err(error) => {
                return Err(Failure {
                    exit: Exit::Unavailable,
                    error: error.into(),
                });
            }
        }
        if is_readable(interrupted).or_exit(Exit::Internal)? {
            return Ok(true);
        }
    }
}

fn ended_well(outcome: &Outcome) -> Result<(), Failure> {
    match &outcome.ending {
        Ending::Done => Ok(()),
        other => {
            let message = format!("the agent did not end its script: {other:?}");
            Err(Failure::new(Exit::Unavailable, message))
        }
    }
}

fn is_readable(fd: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    Ok(poll(&mut fds, Some(&Timespec::default()))? > 0)
}

/// Either kind of sandbox.
enum Sandbox {
    Vm(String, MicroVm),
    Namespace(String, NamespaceSandbox),
}

impl Sandbox {
    fn describe(&self) -> String {
        match self {
            Self::Vm(_, vm) => format!(
                "QEMU microVM ({:?}), pid {}, tap {}, disk {}",
                vm.accelerator(),
                vm.pid(),
                vm.tap(),
                vm.disk().display()
            ),
            Self::Namespace(_, sandbox) => format!(
                "namespaces, pid {}, interface {}, upper dir {}",
                sandbox.pid(),
                sandbox.interface(),
                sandbox.upper().display()
            ),
        }
    }

    /// Finds the sandbox as an operator would: a VM by its id alone, a
    /// container by its parts.
    fn discover(&self, lab: &Lab) -> Result<Target, Failure> {
        match self {
            Self::Vm(id, _) => sandtrace_provider::find(id),
            Self::Namespace(id, sandbox) => sandtrace_provider::manual(ManualSpec {
                sandbox_id: id.clone(),
                agent_id: None,
                pid: Some(sandbox.pid()),
                tap: Some(sandbox.interface().to_owned()),
                netns: Some(lab.netns().to_owned()),
                disks: Vec::new(),
                format: None,
                overlay: Some(sandbox.upper().to_owned()),
            }),
        }
        .or_exit(Exit::Unavailable)
    }

    fn resume(&mut self) -> Result<(), LabError> {
        match self {
            Self::Vm(_, vm) => vm.resume(),
            Self::Namespace(_, sandbox) => sandbox.resume(),
        }
    }

    fn wait(&mut self, timeout: Duration) -> Result<Outcome, LabError> {
        match self {
            Self::Vm(_, vm) => vm.wait(timeout),
            Self::Namespace(_, sandbox) => sandbox.wait(timeout),
        }
    }

    fn fresh_reports(&self) -> Vec<Report> {
        match self {
            Self::Vm(_, vm) => vm.fresh_reports(),
            Self::Namespace(_, sandbox) => sandbox.fresh_reports(),
        }
    }
}
