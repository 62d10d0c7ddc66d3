//! The disk or overlay of a sandbox that runs, which may have no name that
//! means anything outside of its jail.

use crate::args::{DiscoverArgs, FsdiffArgs};
use crate::config::Options;
use crate::exit::{Exit, Failure};
use crate::watch::{settings, start};
use sandtrace_capture::filesystem::{Baseline, FsConfig, Source};
use sandtrace_provider::{Disk, ProcRoot, Target, find_in};

/// What is compared with `base`, or, where there is none, an overlay with its
/// lower layers.
pub(super) fn source(
    id: &str,
    args: &FsdiffArgs,
    base: Option<Source>,
) -> Result<(Source, FsConfig), Failure> {
    let options = Options::of_list(None, &DiscoverArgs::default())?;
    let target = find_in(&ProcRoot::host(), id, &options.discover);
    let target = target.map_err(settings::failure_of)?;
    let disk = chosen(&target, args.disk.as_deref())?;
    let expected = Some(disk.identity.clone());
    if target.overlays.contains(disk) {
        let mount = start::overlay_mount(&target, &disk.open_path);
        let overlay_xattrs = mount.as_ref().map(|it| it.xattrs).unwrap_or_default();
        let layers = mount.map(|mount| (mount.lowers, mount.data));
        let (lowers, data_layers) = layers.unwrap_or_default();
        let config = FsConfig {
            baseline: base.map_or(Baseline::Lowers, Baseline::Of),
            overlay_xattrs,
            data_layers,
            expected,
            ..FsConfig::default()
        };
        let upper = disk.open_path.clone();
        return Ok((Source::Overlay { upper, lowers }, config));
    }
    let Some(base) = base else {
        let path = &disk.identity.path;
        let why = format!("{path} of {id} is compared with what it was before: name that first");
        return Err(Failure::new(Exit::Usage, why));
    };
    let config = FsConfig {
        baseline: Baseline::Of(base),
        expected,
        ..FsConfig::default()
    };
    Ok((start::image(disk), config))
}

/// The disk of this name, or the only one.
fn chosen<'a>(target: &'a Target, named: Option<&str>) -> Result<&'a Disk, Failure> {
    let all = target.disks.iter().chain(&target.overlays);
    let is_named = |disk: &&Disk| named.is_none_or(|name| disk.identity.path == name);
    let matching: Vec<_> = all.clone().filter(is_named).collect();
    if let [only] = matching.as_slice() {
        return Ok(only);
    }
    let names: Vec<_> = all.map(|disk| disk.identity.path.as_str()).collect();
    let id = &target.sandbox_id;
    let (exit, why) = match names.as_slice() {
        [] => (
            Exit::Unavailable,
            format!("{id} has no disk that can be read"),
        ),
        _ => {
            let names = names.join(", ");
            let why = format!("{id} has these: {names}; choose one by --disk");
            (Exit::Usage, why)
        }
    };
    Err(Failure::new(exit, why))
}
