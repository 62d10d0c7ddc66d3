//! What a server's certificate adds to the evidence.

use crate::findings::{Finding, Findings};
use crate::flow::sniff::Facts;
use crate::names::{Claim, NameEvidence, NameSource};
use crate::packet::Moment;
use crate::tls::covers;
use std::sync::Arc;

/// Names of the certificate that are shown as evidence.
const MAX_SHOWN: usize = 8;

/// Adds the server's own names for itself: those that cover the client's
/// claim, or the first ones. A claim that none covers is a finding.
pub(crate) fn certified(
    facts: &Facts,
    claim: Option<&Claim>,
    at: Moment,
    names: &mut Vec<NameEvidence>,
) -> Findings {
    let claim = claim.filter(|claim| claim.source == NameSource::TlsSni);
    let agrees = |name: &str| claim.is_some_and(|claim| covers(name, &claim.name));
    let mut shown: Vec<&String> = facts.certificate.iter().filter(|it| agrees(it)).collect();
    let covered = !shown.is_empty();
    if !covered {
        shown.extend(&facts.certificate);
    }
    let evidence = shown.into_iter().take(MAX_SHOWN).map(|name| NameEvidence {
        name: Arc::from(name.as_str()),
        source: NameSource::TlsCert,
        agrees: covered,
        resolver: None,
        resolver_accepted: None,
        observed_wall_ns: at.wall_ns,
    });
    names.extend(evidence);
    let mismatch = claim.is_some() && !facts.certificate.is_empty() && !covered;
    mismatch
        .then_some(Finding::CertNameMismatch)
        .into_iter()
        .collect()
}
