//! A certificate authority that lives as long as one lab; its key never leaves the memory.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::version::TLS13;

use super::WorldError;

pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new() -> Result<Self, WorldError> {
        let name = "Sandtrace lab authority";
        let make = || {
            let mut params = valid_at_any_time(CertificateParams::default(), name);
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            CertifiedIssuer::self_signed(params, KeyPair::generate()?)
        };
        make().map(Self).map_err(failed(name))
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A TLS 1.3 server that proves to be `host`.
    pub(super) fn server(&self, host: &str) -> Result<Arc<ServerConfig>, WorldError> {
        let sign = || {
            let key = KeyPair::generate()?;
            let mut params = valid_at_any_time(CertificateParams::new([host.to_owned()])?, host);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            let certificate = params.signed_by(&key, &self.0)?;
            Ok((certificate.der().clone(), key))
        };
        let (certificate, key) = sign().map_err(failed::<rcgen::Error>(host))?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .and_then(|builder| {
                builder
                    .with_no_client_auth()
                    .with_single_cert(vec![certificate], key)
            })
            .map_err(failed(host))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// A sandbox's clock may be anywhere.
fn valid_at_any_time(mut params: CertificateParams, name: &str) -> CertificateParams {
    params.not_before = date_time_ymd(1970, 1, 1);
    params.not_after = date_time_ymd(2100, 1, 1);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn failed<E: std::fmt::Display>(name: &str) -> impl FnOnce(E) -> WorldError {
    let name = name.to_owned();
    move |error| WorldError::Certificate {
        name,
        detail: error.to_string(),
    }
}
