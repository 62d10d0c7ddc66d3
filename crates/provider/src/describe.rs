//! Everything about one sandbox.

use crate::claims::Claims;
use crate::inspect::{Namespaces, Seen, Wanted, inspect};
use crate::sighting::{Form, Sighting};
use crate::{DiscoverConfig, FindError, Target};
use crate::{daytona, kata};
use sandtrace_event::Layer;
use std::time::Instant;

pub(crate) fn describe(
    sighting: &Sighting,
    namespaces: &Namespaces<'_>,
    wanted: Wanted,
    config: &DiscoverConfig,
    deadline: Instant,
) -> Result<Target, FindError> {
    let process = &sighting.process;
    let claims = sighting.claims(deadline);
    let mut overlays = Vec::new();
    let mut seen = match &sighting.form {
        Form::Daytona(container) => {
            let mut seen = Seen::default();
            if wanted.taps {
                daytona::look(&mut seen, namespaces, process, container);
            }
            if wanted.disks {
                match daytona::overlay(process, container) {
                    Ok(upper) => overlays.push(upper),
                    Err(why) => seen.missing(Layer::Filesystem, why),
                }
            }
            seen
        }
        Form::Libkrun(arguments) => {
            let disks = false;
            let wanted_here = Wanted { disks, ..wanted };
            let mut seen = inspect(namespaces, process, &claims, wanted_here);
            if wanted.disks {
                match arguments.overlay(process) {
                    Ok(root) => overlays.push(root),
                    Err(why) => seen.missing(Layer::Filesystem, why),
                }
            }
            seen
        }
        _ => inspect(namespaces, process, &claims, wanted),
    };
    let kata = kata::sandbox(&sighting.id).filter(|_| wanted.disks);
    if let Some(sandbox) = kata {
        let is_its = kata::is_vmm_of(&sandbox, process.pid());
        let roots = is_its.then(|| kata::overlays(&sandbox));
        seen.missing(Layer::Filesystem, kata::missing(&sandbox, roots.as_ref()));
        overlays.extend(roots.into_iter().flat_map(|roots| roots.read));
    }
    check_that_it_is_itself(sighting, config, deadline)?;
    let mut target = assemble(sighting, claims, seen);
    target.overlays = overlays;
    Ok(target)
}

fn assemble(sighting: &Sighting, claims: Claims, seen: Seen) -> Target {
    let mut coverage = claims.coverage;
    coverage.extend(seen.coverage);
    Target {
        sandbox_id: sighting.id.clone(),
        agent_id: claims.agent_id,
        template: claims.template,
        labels: claims.labels,
        provider: sighting.provider(),
        vmm: Some(sighting.identity()),
        taps: seen.taps,
        disks: seen.disks,
        overlays: Vec::new(),
        coverage,
        netns_path: seen.netns_path,
        passed_before: Vec::new(),
        unanswered: claims.unanswered,
    }
}

/// What was read through the process' own directory is its own, as far as it
/// lived: one that ended has nothing open any more. Of a container the pid is
/// Docker's word, which may have been old when the process was taken hold of.
fn check_that_it_is_itself(
    sighting: &Sighting,
    config: &DiscoverConfig,
    deadline: Instant,
) -> Result<(), FindError> {
    let (id, process) = (sighting.id.clone(), &sighting.process);
    let pid = process.pid();
    let is_same = match &sighting.form {
        Form::Daytona(container) => {
            daytona::is_same(&config.docker_socket, container, process, deadline)
        }
        _ => Ok(true),
    };
    match is_same {
        Ok(true) if process.is_alive() => Ok(()),
        Ok(_) => Err(FindError::Ended { id, pid }),
        Err(why) => Err(FindError::Unconfirmed { id, pid, why }),
    }
}
