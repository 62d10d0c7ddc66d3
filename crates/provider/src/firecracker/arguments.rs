//! Firecracker's arguments (its docs/getting-started.md, and docs/jailer.md
//! for the jailed form, which has the same arguments and a bare `/NAME`).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Where the API is without `--api-sock`; in a jail, below its root.
const DEFAULT_SOCKET: &str = "/run/firecracker.socket";

/// The id without `--id`.
const DEFAULT_ID: &str = "anonymous-instance";

/// Other options that are followed by a value, which must not be taken for
/// an option of its own.
const WITH_VALUE: [&[u8]; 13] = [
    b"--boot-timer-socket",
    b"--describe-snapshot",
    b"--http-api-max-payload-size",
    b"--level",
    b"--log-path",
    b"--metrics-path",
    b"--mmds-size-limit",
    b"--module",
    b"--parent-cpu-time-us",
    b"--seccomp-filter",
    b"--seccomp-level",
    b"--start-time-cpu-us",
    b"--start-time-us",
];

/// Where firecracker-containerd keeps a VM (its internal/vm/dir.go): VMs of two
/// namespaces may have the same id.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    namespace: String,
    vm: String,
}

impl Place {
    /// `…/shim-base/<namespace>#<vm id>`; containerd's identifiers hold no `#`.
    fn of(directory: &Path) -> Option<Self> {
        let base = directory.parent()?.file_name()?;
        let (namespace, vm) = directory.file_name()?.to_str()?.split_once('#')?;
        (base == "shim-base").then(|| Self {
            namespace: namespace.to_owned(),
            vm: vm.to_owned(),
        })
    }
}

/// What the command line says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// `--id`. Lossy where it is not UTF-8, and then no valid id.
    pub(crate) claimed_id: Option<String>,
    /// What it is called by its working directory, without an id.
    place: Option<Place>,
    /// `None` with `--no-api`.
    pub(crate) api_socket: Option<PathBuf>,
    pub(crate) config_file: Option<PathBuf>,
    pub(crate) metadata: Option<PathBuf>,
}

impl Arguments {
    /// Reads what follows argv\[0\]. The first of several equal options
    /// counts; Firecracker itself refuses a second one.
    pub(crate) fn parse(arguments: &[Vec<u8>]) -> Self {
        let mut id = None;
        let mut api_socket = None;
        let mut config_file = None;
        let mut metadata = None;
        let mut no_api = false;
        let mut arguments = arguments.iter().map(Vec::as_slice);
        while let Some(argument) = arguments.next() {
            let slot = match argument {
                b"--no-api" => {
                    no_api = true;
                    continue;
                }
                b"--id" => &mut id,
                b"--api-sock" => &mut api_socket,
                b"--config-file" => &mut config_file,
                b"--metadata" => &mut metadata,
                other => {
                    if WITH_VALUE.contains(&other) {
                        _ = arguments.next();
                    }
                    continue;
                }
            };
            *slot = slot.or(arguments.next());
        }
        let id = id.map(|id| String::from_utf8_lossy(id).into_owned());
        let socket = api_socket.map_or_else(|| DEFAULT_SOCKET.into(), path);
        Self {
            claimed_id: id,
            place: None,
            api_socket: (!no_api).then_some(socket),
            config_file: config_file.map(path),
            metadata: metadata.map(path),
        }
    }

    /// What the VM calls itself.
    pub(crate) fn instance_id(&self) -> &str {
        self.claimed_id.as_deref().unwrap_or(DEFAULT_ID)
    }

    /// What it is called here.
    pub(crate) fn id(&self) -> &str {
        let place = self.place.as_ref().map(|place| place.vm.as_str());
        place.unwrap_or(self.instance_id())
    }

    /// The name that no VM of another of containerd's namespaces has, where it
    /// is called by its directory.
    pub(crate) fn alias(&self) -> Option<String> {
        let place = self.place.as_ref()?;
        Some(format!("{}#{}", place.namespace, place.vm))
    }

    /// That namespace.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.place.as_ref().map(|place| place.namespace.as_str())
    }

    /// Without an id, firecracker-containerd's VMs are called by the
    /// directory they run in.
    pub(crate) fn name_by(&mut self, working_directory: impl FnOnce() -> Option<PathBuf>) {
        let relative = self
            .api_socket
            .as_ref()
            .is_some_and(|socket| socket.is_relative());
        if self.claimed_id.is_some() || !relative {
            return;
        }
        self.place = working_directory().and_then(|path| Place::of(&path));
    }
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, id: &str, socket: Option<&str>, config: Option<&str>) {
        let words = line.split(' ').filter(|word| !word.is_empty());
        let words: Vec<_> = words.map(|word| word.as_bytes().to_vec()).collect();
        let parsed = Arguments::parse(&words);
        assert_eq!(parsed.id(), id, "{line}");
        assert_eq!(
            parsed.api_socket.as_deref(),
            socket.map(Path::new),
            "{line}"
        );
        assert_eq!(
            parsed.config_file.as_deref(),
            config.map(Path::new),
            "{line}"
        );
    }

    #[test]
    fn command_lines() {
        let default = Some("/run/firecracker.socket");
        check("", "anonymous-instance", default, None);
        check(
            "--api-sock /tmp/fc.sock --id vm-001",
            "vm-001",
            Some("/tmp/fc.sock"),
            None,
        );
        check(
            "--id 551e7604-e35c-42b3-b825-416853441234 --start-time-us 1580 --start-time-cpu-us 99 --parent-cpu-time-us 3",
            "551e7604-e35c-42b3-b825-416853441234",
            default,
            None,
        );
        check(
            "--no-api --config-file vm.json",
            "anonymous-instance",
            None,
            Some("vm.json"),
        );
        check(
            "--api-sock firecracker.sock --no-seccomp --enable-pci",
            "anonymous-instance",
            Some("firecracker.sock"),
            None,
        );
        check("--log-path --id --id real", "real", default, None);
        check("--id one --id two", "one", default, None);
        check("--id", "anonymous-instance", default, None);
    }

    #[test]
    fn an_id_that_is_not_text_stays_recognisable_as_such() {
        let words = [b"--id".to_vec(), b"vm\xff".to_vec()];
        assert_eq!(Arguments::parse(&words).id(), "vm\u{fffd}");
    }

    #[track_caller]
    fn check_place(line: &str, directory: &str, id: &str, alias: Option<&str>) {
        let words = line.split_whitespace().map(|word| word.as_bytes().to_vec());
        let mut parsed = Arguments::parse(&words.collect::<Vec<_>>());
        parsed.name_by(|| Some(directory.into()));
        assert_eq!(parsed.id(), id, "{line} in {directory}");
        assert_eq!(parsed.alias().as_deref(), alias, "{line} in {directory}");
        let anonymous = parsed.claimed_id.is_none();
        assert_eq!(parsed.instance_id() == DEFAULT_ID, anonymous);
    }

    #[test]
    fn containerds_vms_are_called_by_their_directory() {
        let directory = "/var/lib/firecracker-containerd/shim-base/default#vm7";
        let here = "--api-sock firecracker.sock";
        check_place(here, directory, "vm7", Some("default#vm7"));
        let named = "--api-sock firecracker.sock --id own";
        check_place(named, directory, "own", None);
        check_place("--api-sock /run/f.sock", directory, DEFAULT_ID, None);
        check_place(here, "/home/me#x", DEFAULT_ID, None);
    }
}
