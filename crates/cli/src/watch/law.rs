//! The policy by which one sandbox is judged, and how it is replaced while the
//! sandbox is watched.

use super::moment::{control, now};
use super::outlet::Outlet;
use super::trail::Entry;
use crate::policy_file::LoadedPolicy;
use sandtrace_event::{Judged, PolicyChange};
use sandtrace_policy::Engine;
use std::net::IpAddr;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

/// What all collectors of one sandbox judge by.
pub(crate) struct Law(RwLock<InForce>);

/// A policy, and which one after how many others it is.
pub(crate) struct InForce {
    edition: u64,
    policy: Option<LoadedPolicy>,
    resolvers: Vec<IpAddr>,
}

impl InForce {
    pub(crate) fn edition(&self) -> u64 {
        self.edition
    }

    /// A policy engine for one collector, if there is a policy.
    pub(crate) fn engine(&self) -> Option<Engine> {
        let loaded = self.policy.as_ref()?;
        Some(Engine::new(loaded.policy.clone(), &self.resolvers))
    }
}

impl Law {
    /// `resolvers` are accepted beside those of the policy.
    pub(crate) fn new(policy: Option<LoadedPolicy>, resolvers: Vec<IpAddr>) -> Self {
        Self(RwLock::new(InForce {
            edition: 0,
            policy,
            resolvers,
        }))
    }

    /// While this is held, no other policy comes into force: what is judged
    /// and sent with it stands in the trail before the record of a change.
    pub(crate) fn in_force(&self) -> RwLockReadGuard<'_, InForce> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the change, and where it was accepted judges by `policy` from
    /// this record on.
    pub(crate) fn change(
        &self,
        change: PolicyChange,
        policy: Option<LoadedPolicy>,
        resolvers: &[IpAddr],
        queue: &Outlet,
    ) {
        let mut in_force = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let accepted = change.accepted;
        let observation = control(now(), change.into());
        // A trail that failed was told of when it did.
        let _failed = queue.send(Entry::Event(Box::new(Judged {
            observation,
            verdict: None,
        })));
        if accepted {
            in_force.edition += 1;
            in_force.policy = policy;
            resolvers.clone_into(&mut in_force.resolvers);
        }
    }
}
