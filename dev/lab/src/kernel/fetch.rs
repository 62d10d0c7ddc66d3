//! Fetching the kernel out of Debian's archive, by apt so that its signature is checked.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Kernel, MODULES, home, locate};
use crate::error::LabError;
use crate::programs::{APT_CACHE, APT_GET, DPKG_DEB, finish};

/// Always depends on the newest cloud kernel of the release.
const META_PACKAGE: &str = "linux-image-cloud-amd64";
const PACKAGE_PREFIX: &str = "linux-image-";

/// Why the kernel could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A file could not be made or moved.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A program failed or is missing.
    #[error("fetch the lab's kernel (needs apt, root and a network): {0}")]
    Program(#[from] LabError),
    /// The archive does not know the package.
    #[error("apt knows no package {META_PACKAGE}: is this Debian with its main archive?")]
    NoPackage,
    /// The package is not as expected.
    #[error("package {package} has no {what}")]
    Unexpected {
        /// The package.
        package: String,
        /// What it lacks.
        what: String,
    },
}

/// Downloads and unpacks the kernel unless one is there; `progress` hears of each step.
///
/// # Errors
/// Without a network, without the right to write where kernels are kept, or on another system
/// than Debian.
pub fn fetch(progress: &mut dyn FnMut(&str)) -> Result<Kernel, FetchError> {
    if let Ok(kernel) = locate() {
        progress(&format!("kernel {} is there", kernel.version));
        return Ok(kernel);
    }
    let home = home();
    fs::create_dir_all(&home).map_err(io_error("create", &home))?;
    let package = find_package(progress)?;
    let work = tempfile::Builder::new()
        .prefix(".fetch-")
        .tempdir_in(&home)
        .map_err(io_error("create a directory in", &home))?;
    progress(&format!("downloading {package}"));
    let archive = download(&package, work.path(), progress)?;
    progress("unpacking the kernel");
    let kernel = unpack(&package, &archive, work.path(), &home)?;
    progress(&format!("kernel {} is ready", kernel.version));
    Ok(kernel)
}

fn find_package(progress: &mut dyn FnMut(&str)) -> Result<String, FetchError> {
    if let Some(package) = ask_for_package()? {
        return Ok(package);
    }
    update(progress)?;
    ask_for_package()?.ok_or(FetchError::NoPackage)
}

fn ask_for_package() -> Result<Option<String>, FetchError> {
    match APT_CACHE.run(["depends", META_PACKAGE]) {
        Ok(text) => Ok(dependency(&text)),
        // Unknown to lists that are empty or old.
        Err(LabError::Command { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn dependency(text: &str) -> Option<String> {
    let names = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "));
    let mut kernels = names.filter(|name| name.starts_with(PACKAGE_PREFIX));
    kernels.next().map(str::to_owned)
}

fn update(progress: &mut dyn FnMut(&str)) -> Result<(), FetchError> {
    progress("updating the package lists");
    APT_GET.run(["update"])?;
    Ok(())
}

fn download(
    package: &str,
    dir: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<PathBuf, FetchError> {
    if download_once(package, dir).is_err() {
        // Old lists name a file that the archive has since replaced.
        update(progress)?;
        download_once(package, dir)?;
    }
    let mut files = fs::read_dir(dir).map_err(io_error("list", dir))?.flatten();
    let archive =
        files.find(|file| Path::new(&file.file_name()).extension() == Some(OsStr::new("deb")));
    archive
        .map(|file| file.path())
        .ok_or_else(|| unexpected(package, "downloaded file".to_owned()))
}

fn download_once(package: &str, dir: &Path) -> Result<(), LabError> {
    // Without the sandbox apt need not hand the directory to its own user.
    let mut command = APT_GET.command()?;
    command
        .args(["download", "-o", "APT::Sandbox::User=root", package])
        .current_dir(dir);
    finish(&mut command).map(drop)
}

fn unpack(package: &str, archive: &Path, work: &Path, home: &Path) -> Result<Kernel, FetchError> {
    let version = package.strip_prefix(PACKAGE_PREFIX).unwrap_or(package);
    let (tree, ready) = (work.join("tree"), work.join("ready"));
    finish(DPKG_DEB.command()?.arg("-x").arg(archive).arg(&tree))?;
    let modules = ready.join("modules");
    fs::create_dir_all(&modules).map_err(io_error("create", &modules))?;
    let vmlinuz = tree.join(format!("boot/vmlinuz-{version}"));
    rename(&vmlinuz, &ready.join("vmlinuz"))?;
    let found = list_modules(&tree.join("lib/modules").join(version))?;
    for name in MODULES {
        let file = format!("{name}.ko");
        let module = found
            .iter()
            .find(|path| path.file_name() == Some(OsStr::new(&file)));
        let module = module.ok_or_else(|| unexpected(package, format!("module {file}")))?;
        rename(module, &modules.join(file))?;
    }
    rename(&ready, &home.join(version))?;
    Kernel::complete_in(home, version).ok_or_else(|| unexpected(package, "kernel".to_owned()))
}

fn rename(from: &Path, to: &Path) -> Result<(), FetchError> {
    fs::rename(from, to).map_err(io_error("rename", from))
}

fn list_modules(root: &Path) -> Result<Vec<PathBuf>, FetchError> {
    let (mut dirs, mut modules) = (vec![root.to_owned()], Vec::new());
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir)
            .map_err(io_error("list", &dir))?
            .flatten()
        {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => dirs.push(path),
                Ok(kind) if kind.is_file() => modules.push(path),
                _ => {}
            }
        }
    }
    Ok(modules)
}

fn unexpected(package: &str, what: String) -> FetchError {
    FetchError::Unexpected {
        package: package.to_owned(),
        what,
    }
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FetchError {
    let path = path.to_owned();
    move |source| FetchError::Io {
        doing,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_dependency() {
        let text = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        assert_eq!(
            dependency(text).as_deref(),
            Some("linux-image-6.1.0-56-cloud-amd64")
        );
        assert_eq!(
            dependency("linux-image-cloud-amd64\n  Depends: adduser\n"),
            None
        );
        assert_eq!(dependency(""), None);
    }
}
