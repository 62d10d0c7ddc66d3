//! The keys of a syscall rule.

use super::fields::Fields;
use super::scalar;
use crate::error::{Problem, Problems};
use crate::manifest::{Action, Syscalls};
use crate::yaml::Node;

/// Longest name of a call or a thread group.
const MAX_NAME: usize = 64;

pub(crate) fn load(
    action: Action,
    fields: &mut Fields<'_>,
    problems: &mut Problems,
) -> Option<Syscalls> {
    let at = fields.at();
    let accept = fields.take("accept");
    let accepts = accept.is_some();
    let accept = accept.map_or_else(Vec::new, |node| {
        let items = scalar::list(node, "accept", problems);
        let words = items.iter();
        words
            .filter_map(|node| problems.keep(scalar::word(node, "accept")))
            .collect()
    });
    let keys = ["allow", "deny", "threads"];
    let given = keys.map(|key| fields.take(key));
    let [allow, deny, threads] = given.map(|node| {
        let items = node.map_or(&[][..], |node| scalar::list(node, "it", problems));
        let names = items.iter().filter_map(|node| problems.keep(name(node)));
        names.collect::<Vec<_>>()
    });
    let profile_node = fields.take("profile");
    let profile = profile_node.and_then(|node| problems.keep(scalar::word(node, "profile")));
    if action == Action::Deny {
        let message = "a syscall rule has no action: it lists what it allows and what it denies";
        problems.push(Problem::new(at, message).suggest("name the calls in `deny`"));
        return None;
    }
    let [allowing, denying, _] = given;
    let says_something =
        allowing.is_some() || denying.is_some() || accepts || profile_node.is_some();
    if !says_something {
        let message = "a syscall rule needs one of the keys allow, deny, profile and accept";
        problems.push(Problem::new(at, message).suggest("such as `profile: firecracker`"));
        return None;
    }
    Some(Syscalls {
        accept,
        allow,
        deny,
        profile,
        threads,
    })
}

/// A call or thread group: a call without a known name is written as a number.
fn name(node: &Node) -> Result<String, Problem> {
    let text = scalar::string(node, "a name")?;
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if text.is_empty() || text.len() > MAX_NAME || !text.bytes().all(fits) {
        let message = format!("{text:?} is no name of a system call or thread group");
        return Err(Problem::new(node.at, message).suggest("such as openat or vcpu"));
    }
    Ok(text.to_owned())
}
