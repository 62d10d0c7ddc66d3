//! The eBPF object: committed, so that building needs no clang, and held
//! against its source.

use crate::repo::Repo;
use crate::step::quiet;
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Another release would make another object.
pub(crate) const CLANG: &str = "clang-14";

const SOURCE: &str = "syscalls.bpf.c";
const OBJECT: &str = "syscalls.bpf.o";

/// Builds the source and compares.
pub(crate) fn check(repo: &Repo) -> Result<()> {
    let built = repo.target.join(OBJECT);
    build(repo, &built)?;
    let read = |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
    if read(&built)? != read(&directory(repo).join(OBJECT))? {
        bail!("{OBJECT} is not what {CLANG} makes of {SOURCE}: cargo xtask bpf --write");
    }
    Ok(())
}

/// Makes the object anew.
pub(crate) fn write(repo: &Repo) -> Result<()> {
    build(repo, &directory(repo).join(OBJECT))
}

/// Within its directory and with a name for that, so that the object says
/// nothing of the machine.
fn build(repo: &Repo, output: &Path) -> Result<()> {
    let mut clang = Command::new(CLANG);
    clang.current_dir(directory(repo));
    clang.args(["-target", "bpf", "-mcpu=v3", "-O2", "-g"]);
    clang.arg("-fdebug-compilation-dir=.");
    clang.args(["-Wall", "-Wextra", "-Werror", "-Wno-unused-function"]);
    clang.args(["-c", SOURCE, "-o"]).arg(output);
    quiet(&mut clang).with_context(|| format!("{CLANG} (Debian: {CLANG})"))
}

fn directory(repo: &Repo) -> PathBuf {
    repo.root.join("crates/sys/src/bpf")
}
