//! The programs of other packages that the lab runs.

use std::process::{Command, Output, Stdio};

use crate::error::LabError;

/// A program and the Debian package that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    /// What is run.
    pub name: &'static str,
    /// The Debian package.
    pub package: &'static str,
}

/// Runs the microVM.
pub const QEMU: Program = Program {
    name: "qemu-system-x86_64",
    package: "qemu-system-x86",
};
/// Makes namespaces, taps and links.
pub const IP: Program = Program {
    name: "ip",
    package: "iproute2",
};
/// Makes disk images.
pub const MKFS: Program = Program {
    name: "mkfs.ext4",
    package: "e2fsprogs",
};
/// Makes block devices of files.
pub const LOSETUP: Program = Program {
    name: "losetup",
    package: "mount",
};
/// Downloads the kernel.
pub const APT_GET: Program = Program {
    name: "apt-get",
    package: "apt",
};
/// Finds the kernel's package.
pub const APT_CACHE: Program = Program {
    name: "apt-cache",
    package: "apt",
};
/// Unpacks the kernel.
pub const DPKG_DEB: Program = Program {
    name: "dpkg-deb",
    package: "dpkg",
};

/// Unpacks it for VMMs that want it so, as Debian packs it today.
pub const LZ4: Program = Program {
    name: "lz4",
    package: "lz4",
};
/// The same where it is packed otherwise.
pub const GZIP: Program = Program {
    name: "gzip",
    package: "gzip",
};
/// As [`GZIP`].
pub const XZ: Program = Program {
    name: "xz",
    package: "xz-utils",
};
/// As [`GZIP`].
pub const ZSTD: Program = Program {
    name: "zstd",
    package: "zstd",
};

/// Everything the lab runs, but what the kernel might be packed by one day.
pub const ALL: [Program; 8] = [QEMU, IP, MKFS, LOSETUP, APT_GET, APT_CACHE, DPKG_DEB, LZ4];

/// Where Debian keeps programs; a plain user's `PATH` lacks the last two.
const PLACES: [&str; 5] = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"];

impl Program {
    /// Whether the program is installed.
    #[must_use]
    pub fn is_installed(&self) -> bool {
        self.path().is_some()
    }

    fn path(&self) -> Option<String> {
        let mut candidates = PLACES.iter().map(|place| format!("{place}/{}", self.name));
        candidates.find(|path| std::path::Path::new(path).exists())
    }

    /// A command that runs the program, in the language that its messages are read in.
    pub(crate) fn command(&self) -> Result<Command, LabError> {
        let path = self.path().ok_or(LabError::ProgramMissing {
            program: self.name,
            package: self.package,
        })?;
        let mut command = Command::new(path);
        command.env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        Ok(command)
    }

    /// Runs the program to its end and hands back what it printed.
    pub(crate) fn run<'a>(
        &self,
        args: impl IntoIterator<Item = &'a str>,
    ) -> Result<String, LabError> {
        let mut command = self.command()?;
        command.args(args);
        finish(&mut command)
    }
}

/// Runs a command to its end; an unsuccessful one is an error with its last words.
pub(crate) fn finish(command: &mut Command) -> Result<String, LabError> {
    let output = command.output();
    let text = line_of(command);
    match output {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(output) => Err(LabError::Command {
            command: text,
            message: last_words(&output),
        }),
        Err(source) => Err(LabError::Io {
            doing: format!("run {text}"),
            source,
        }),
    }
}

fn last_words(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    let words = errors.trim();
    if words.is_empty() {
        output.status.to_string()
    } else {
        words.to_owned()
    }
}

fn line_of(command: &Command) -> String {
    let program = command.get_program().to_string_lossy().into_owned();
    command
        .get_args()
        .fold(program, |line, arg| line + " " + &arg.to_string_lossy())
}

/// What is missing, as one line for people, or nothing.
pub(crate) fn missing(programs: &[Program]) -> Result<(), LabError> {
    match programs.iter().find(|program| !program.is_installed()) {
        Some(program) => Err(LabError::ProgramMissing {
            program: program.name,
            package: program.package,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_says_why() {
        let ls = Program {
            name: "ls",
            package: "coreutils",
        };
        let error = ls.run(["/none-such"]).unwrap_err().to_string();
        assert!(
            error.contains("ls /none-such: ") && error.contains("No such file"),
            "{error}"
        );
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let none = Program {
            name: "none-such",
            package: "nothing",
        };
        assert_eq!(
            none.run([]).unwrap_err().to_string(),
            "none-such is missing; install it with: apt-get install nothing"
        );
    }
}
