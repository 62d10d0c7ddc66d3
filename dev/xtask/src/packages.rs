//! Debian packages that building, testing and the demo need.

use crate::repo::{as_root, find_program};
use crate::step::{quiet, step};
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeSet;
use std::process::Command;

/// A Debian package and why it is needed.
struct Package {
    name: &'static str,
    why: &'static str,
}

const PACKAGES: &[Package] = &[
    Package {
        name: "build-essential",
        why: "the C compiler and linker that crates with C code need",
    },
    Package {
        name: "clang-14",
        why: "the check that the eBPF object is what its source makes",
    },
    Package {
        name: "libc6-dev",
        why: "the static C library of the lab's guest program",
    },
    Package {
        name: "qemu-system-x86",
        why: "the lab's microVM",
    },
    Package {
        name: "e2fsprogs",
        why: "the lab's disk images",
    },
    Package {
        name: "qemu-utils",
        why: "the oracle of qcow2 images",
    },
    Package {
        name: "xfsprogs",
        why: "a file system that shares extents, for tests of reflink copies",
    },
    Package {
        name: "fdisk",
        why: "partition tables in tests",
    },
    Package {
        name: "lz4",
        why: "the lab's kernel as Firecracker takes it",
    },
    Package {
        name: "iproute2",
        why: "the lab's network namespaces",
    },
    Package {
        name: "tcpdump",
        why: "the reference of the capture benchmark",
    },
    Package {
        name: "tshark",
        why: "the reader of captures that shares no code with ours, in tests",
    },
    Package {
        name: "strace",
        why: "the reference of the system call tests",
    },
    Package {
        name: "util-linux",
        why: "the lab's mount and process namespaces",
    },
    Package {
        name: "procps",
        why: "looking at processes in tests",
    },
    Package {
        name: "ca-certificates",
        why: "downloads over TLS",
    },
    Package {
        name: "python3-cryptography",
        why: "the second verifier of trails, in Python",
    },
    Package {
        name: "openssl",
        why: "the independent TLS client and hash of some tests",
    },
];

/// How often is looked for what is missing.
const ROUNDS: usize = 2;

/// Installs the packages that are missing.
pub(crate) fn install() -> Result<()> {
    if find_program("dpkg-query").is_none() {
        bail!(
            "this is not a Debian system: install by hand what Debian calls {}",
            names(PACKAGES).join(" ")
        );
    }
    let mut wanted = missing()?;
    if wanted.is_empty() {
        println!("==> Debian packages: all {} are there", PACKAGES.len());
    }
    // Where one was from a newer release than the others, apt-get takes it off
    // to install them, and it is missing then.
    for _ in 0..ROUNDS {
        if wanted.is_empty() {
            break;
        }
        install_each(&wanted)?;
        wanted = missing()?;
    }
    if !wanted.is_empty() {
        bail!("missing still: {}", names(&wanted).join(", "));
    }
    Ok(())
}

fn install_each(packages: &[&Package]) -> Result<()> {
    for package in packages {
        println!("    missing: {} ({})", package.name, package.why);
    }
    let names = names(packages);
    step(&format!("apt-get install {}", names.join(" ")), || {
        quiet(apt_get()?.args(["update", "-q"]))?;
        quiet(
            apt_get()?
                .args(["install", "-y", "-q", "--no-install-recommends"])
                .args(&names),
        )
    })
    .with_context(|| {
        format!(
            "missing Debian packages (this needs root and a network): \
             sudo apt-get update && sudo apt-get install -y --no-install-recommends {}",
            names.join(" ")
        )
    })
}

fn names(packages: &[impl std::borrow::Borrow<Package>]) -> Vec<&'static str> {
    packages
        .iter()
        .map(|package| package.borrow().name)
        .collect()
}

fn apt_get() -> Result<Command> {
    let mut command = as_root("env")?;
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    Ok(command)
}

fn missing() -> Result<Vec<&'static Package>> {
    // dpkg-query fails where it does not know one of the names; what it knows
    // is on its output all the same.
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package} ${db:Status-Abbrev}\n"])
        .args(names(PACKAGES))
        .output()
        .context("asking dpkg-query for installed packages")?;
    let installed = installed(&String::from_utf8_lossy(&output.stdout));
    Ok(PACKAGES
        .iter()
        .filter(|package| !installed.contains(package.name))
        .collect())
}

/// Names of the packages that dpkg-query reports as wanted and installed.
fn installed(answer: &str) -> BTreeSet<String> {
    answer
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(_, status)| status.trim() == "ii")
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_package_counts_as_missing() {
        let found = installed("tcpdump ii \nopenssl rc \nprocps un \n");
        assert_eq!(found, BTreeSet::from(["tcpdump".to_owned()]));
    }
}
