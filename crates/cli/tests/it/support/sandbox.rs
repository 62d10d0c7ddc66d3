//! A lab with one sandbox in it that waits to be watched.

use std::fs;
use std::path::Path;
use std::process::Command;

use sandtrace_lab::world::World;
use sandtrace_lab::{
    Ending, Lab, LabConfig, MicroVm, MicroVmConfig, NamespaceConfig, NamespaceSandbox, Network,
    Outcome, Scenario, make_image, scenario,
};

use super::{PATIENCE, text};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    MicroVm,
    Namespace,
}

impl Kind {
    /// What `--sandbox` takes.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::MicroVm => "microvm",
            Self::Namespace => "namespace",
        }
    }
}

/// Fields are dropped in this order: the sandbox before what it talks to.
pub(crate) struct Stage {
    sandbox: Sandbox,
    pub(crate) world: World,
    pub(crate) lab: Lab,
    pub(crate) id: String,
}

enum Sandbox {
    Vm(MicroVm),
    Namespace(NamespaceSandbox),
}

impl Stage {
    /// A sandbox that does nothing before [`Self::play`].
    pub(crate) fn set(kind: Kind, story: Scenario) -> Self {
        let lab = Lab::new(&LabConfig::default()).unwrap();
        let world = World::start(lab.netns()).unwrap();
        let network = Network::behind_tap(world.resolver());
        let script = scenario::script(story, &world, network);
        let id = format!("it-{}", lab.id());
        let sandbox = match kind {
            Kind::MicroVm => {
                let disk = lab.dir().join("rootfs.ext4");
                make_image(&disk, 32 << 20, &scenario::base_tree()).unwrap();
                Sandbox::Vm(
                    lab.microvm(&MicroVmConfig::new(&id, script, &disk))
                        .unwrap(),
                )
            }
            Kind::Namespace => {
                let config = NamespaceConfig {
                    sandbox_id: id.clone(),
                    script,
                    overlay: lab.overlay(&scenario::base_tree()).unwrap(),
                };
                Sandbox::Namespace(lab.namespace(&config).unwrap())
            }
        };
        Self {
            sandbox,
            world,
            lab,
            id,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        match &self.sandbox {
            Sandbox::Vm(vm) => vm.pid(),
            Sandbox::Namespace(sandbox) => sandbox.pid(),
        }
    }

    /// A microVM's image.
    pub(crate) fn disk(&self) -> &Path {
        match &self.sandbox {
            Sandbox::Vm(vm) => vm.disk(),
            Sandbox::Namespace(_) => panic!("a namespace has no disk"),
        }
    }

    /// Its interface on the host's side.
    pub(crate) fn interface(&self) -> &str {
        match &self.sandbox {
            Sandbox::Vm(vm) => vm.tap(),
            Sandbox::Namespace(sandbox) => sandbox.interface(),
        }
    }

    /// Arguments that name the sandbox by its id alone.
    pub(crate) fn by_id(&self) -> Vec<String> {
        self.watch(&["--resolver", "203.0.113.53"])
    }

    /// Arguments that name each part of it, and no process.
    pub(crate) fn by_hand(&self) -> Vec<String> {
        let mut args = self.by_id();
        args.extend(["--tap", self.interface(), "--netns", self.lab.netns()].map(str::to_owned));
        args.extend(match &self.sandbox {
            Sandbox::Vm(vm) => ["--disk".to_owned(), text(vm.disk())],
            Sandbox::Namespace(sandbox) => ["--overlay".to_owned(), text(sandbox.upper())],
        });
        args
    }

    fn watch(&self, more: &[&str]) -> Vec<String> {
        let args = ["watch", "--sandbox-id", &self.id, "--policy", super::POLICY];
        args.iter().chain(more).map(|&arg| arg.to_owned()).collect()
    }

    /// Lets the agent do what its script says, to the end.
    pub(crate) fn play(&mut self) -> Outcome {
        let outcome = match &mut self.sandbox {
            Sandbox::Vm(vm) => {
                vm.resume().unwrap();
                vm.wait(PATIENCE).unwrap()
            }
            Sandbox::Namespace(sandbox) => {
                sandbox.resume().unwrap();
                sandbox.wait(PATIENCE).unwrap()
            }
        };
        assert_eq!(outcome.ending, Ending::Done);
        outcome
    }

    /// The content of a file that the agent left behind.
    pub(crate) fn file(&self, path: &str) -> Vec<u8> {
        match &self.sandbox {
            Sandbox::Vm(vm) => debugfs_cat(vm.disk(), path),
            Sandbox::Namespace(sandbox) => {
                fs::read(sandbox.upper().join(path.trim_start_matches('/'))).unwrap()
            }
        }
    }
}

/// A second reader of ext4, which shares no code with the one under test.
fn debugfs_cat(image: &Path, path: &str) -> Vec<u8> {
    let request = format!("cat {path}");
    let output = Command::new("/sbin/debugfs")
        .args(["-R", &request])
        .arg(image)
        .output()
        .unwrap();
    output.stdout
}
