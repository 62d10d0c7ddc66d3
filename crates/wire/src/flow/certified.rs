//! What a server's certificate adds to the evidence.

use crate::findings::{Finding, Findings};
use crate::names::{NameEvidence, NameSource};
use crate::packet::Moment;
use crate::tls::CertificateFacts;
use std::sync::Arc;

/// Adds the server's own names for itself. That none covers what the client
/// asked for is a finding.
pub(crate) fn certified(
    certificate: &CertificateFacts,
    at: Moment,
    names: &mut Vec<NameEvidence>,
) -> Findings {
    let evidence = certificate.names.iter().map(|name| NameEvidence {
        name: Arc::from(name.as_str()),
        source: NameSource::TlsCert,
        agrees: certificate.covers == Some(true),
        resolver: None,
        resolver_accepted: None,
        discounted: false,
        observed_wall_ns: at.wall_ns,
    });
    names.extend(evidence);
    let mismatch = certificate.covers == Some(false);
    mismatch
        .then_some(Finding::CertNameMismatch)
        .into_iter()
        .collect()
}
