//! Firecracker's API and configuration file (src/firecracker/swagger,
//! src/firecracker/src/api_server).

#[cfg(test)]
mod tests;
mod vm;

use super::api::{Answer, Manners, Request, serve};
use super::config::Action;
use super::option;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::os::unix::net::UnixListener;
use std::sync::{Mutex, PoisonError};
use vm::Vm;

const DEFAULT_SOCKET: &str = "/run/firecracker.socket";

pub(super) fn run(args: &[String]) -> Result<(), String> {
    let mut vm = Vm::new(option(args, "--id").unwrap_or("anonymous-instance"));
    if let Some(path) = option(args, "--metadata") {
        vm.mmds = Some(read(path)?);
    }
    if let Some(path) = option(args, "--config-file") {
        vm.configure(read(path)?)?;
    }
    if args.iter().any(|arg| arg == "--no-api") {
        loop {
            std::thread::park();
        }
    }
    let socket = option(args, "--api-sock").unwrap_or(DEFAULT_SOCKET);
    let listener = UnixListener::bind(socket).map_err(|error| format!("{socket}: {error}"))?;
    let vm = Mutex::new(vm);
    serve(&listener, "Firecracker API", |request| {
        let mut vm = vm.lock().unwrap_or_else(PoisonError::into_inner);
        (answer(&mut vm, request), Manners::of(vm.boot_args()))
    });
    Ok(())
}

fn read<T: DeserializeOwned>(path: &str) -> Result<T, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("{path}: {error}"))
}

/// First what is wrong with the request itself is told, then whether it comes
/// at the wrong time (src/vmm/src/rpc_interface.rs).
fn answer(vm: &mut Vm, request: &Request) -> Answer {
    let (method, body) = (request.method.as_str(), &request.body);
    match (method, body.is_null()) {
        ("GET", false) => return Answer::fault("GET request cannot have a body."),
        ("PUT", true) => return Answer::fault("Empty PUT request."),
        ("PATCH", true) => return Answer::fault("Empty PATCH request."),
        _ => {}
    }
    let mut tokens = request.path.trim_start_matches('/').split('/');
    let [first, second] = [(); 2].map(|()| tokens.next().unwrap_or_default());
    match (method, first, second) {
        ("GET", "", "") => Answer::json(&vm.info()),
        ("GET", "version", _) => Answer::json(&json!({ "firecracker_version": vm::VERSION })),
        ("GET", "vm", "config") => Answer::json(&vm.config),
        ("GET", "machine-config", _) => Answer::json(&vm.config.machine),
        ("GET", "mmds", _) => Answer::json(vm.mmds.as_ref().unwrap_or(&json!({}))),
        ("PUT", "mmds", "") => {
            vm.mmds = Some(body.clone());
            Answer::done(Ok(()))
        }
        ("PUT", "mmds", "config") => vm.before(given(body), Vm::set_mmds_config),
        ("PUT", "boot-source", _) => vm.before(given(body), Vm::set_boot_source),
        ("PUT", "machine-config", _) => vm.before(given(body), Vm::set_machine),
        ("PUT", "vsock", _) => vm.before(given(body), Vm::set_vsock),
        ("PUT", "drives", id) => vm.before(named(id, body, "drive_id"), Vm::add_drive),
        ("PUT", "network-interfaces", id) => {
            vm.before(named(id, body, "iface_id"), Vm::add_interface)
        }
        ("PUT", "snapshot", "load") => vm.before(Ok(body), Vm::restore),
        ("PUT", "snapshot", "create") => vm.after(Ok(body), Vm::snapshot),
        ("PATCH", "drives", id) => vm.after(named(id, body, "drive_id"), Vm::exchange_drive),
        ("PATCH", "vm", _) => vm.after(Ok(body), Vm::change_state),
        ("PUT", "actions", _) => match given(body) {
            Ok(Action::InstanceStart) => vm.before(Ok(()), Vm::boot),
            other => vm.after(other, |_, _| Ok(())),
        },
        (method, first, _) => Answer::fault(&format!(
            "Invalid request method and/or path: {method} {first}."
        )),
    }
}

/// A body as Firecracker takes it.
fn given<T: DeserializeOwned>(body: &Value) -> Result<T, String> {
    T::deserialize(body).map_err(|error| {
        format!("An error occurred when deserializing the json body of a request: {error}.")
    })
}

/// The same of something that the path names as well.
fn named<T: DeserializeOwned>(id: &str, body: &Value, member: &str) -> Result<T, String> {
    if id.is_empty() {
        return Err("The ID cannot be empty.".to_owned());
    }
    let thing = given(body)?;
    let inside = body.get(member).and_then(Value::as_str).unwrap_or_default();
    if id != inside {
        return Err(format!(
            "The id from the path [{id}] does not match the id from the body [{inside}]!"
        ));
    }
    Ok(thing)
}
