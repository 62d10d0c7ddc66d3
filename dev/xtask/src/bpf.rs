//! The eBPF objects: committed, so that building needs no clang, and held
//! against their sources.

use crate::repo::Repo;
use crate::step::quiet;
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Another release would make another object.
pub(crate) const CLANG: &str = "clang-14";

/// Each has a source, `NAME.bpf.c`, and beside it an object, `NAME.bpf.o`.
const NAMES: [&str; 2] = ["syscalls", "frames"];

/// Builds the sources and compares.
pub(crate) fn check(repo: &Repo) -> Result<()> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
    for name in NAMES {
        let object = format!("{name}.bpf.o");
        let built = repo.target.join(&object);
        build(repo, name, &built)?;
        if read(&built)? != read(&directory(repo).join(&object))? {
            bail!("{object} is not what {CLANG} makes of its source: cargo xtask bpf --write");
        }
    }
    Ok(())
}

/// Makes the objects anew.
pub(crate) fn write(repo: &Repo) -> Result<()> {
    for name in NAMES {
        build(repo, name, &directory(repo).join(format!("{name}.bpf.o")))?;
    }
    Ok(())
}

/// Within its directory and with a name for that, so that the object says
/// nothing of the machine.
fn build(repo: &Repo, name: &str, output: &Path) -> Result<()> {
    let mut clang = Command::new(CLANG);
    clang.current_dir(directory(repo));
    clang.args(["-target", "bpf", "-mcpu=v3", "-O2", "-g"]);
    clang.arg("-fdebug-compilation-dir=.");
    clang.args(["-Wall", "-Wextra", "-Werror", "-Wno-unused-function"]);
    clang
        .args(["-c", &format!("{name}.bpf.c"), "-o"])
        .arg(output);
    quiet(&mut clang).with_context(|| format!("{CLANG} (Debian: {CLANG})"))
}

fn directory(repo: &Repo) -> PathBuf {
    repo.root.join("crates/sys/src/bpf")
}
