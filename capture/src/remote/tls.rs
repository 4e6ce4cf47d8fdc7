//! Whom to believe: the server's certificate must be signed by the given authority, or be the very one that was named.
//!
//! A capture kernel has no system certificates, and its clock may have stopped when the battery did: time is never
//! taken to be before the one at which the machine was armed.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::digest::{SHA256, digest};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// Bytes of a certificate's fingerprint.
const FINGERPRINT: usize = 32;

/// Seconds since 1970, not before `armed_at`.
pub(crate) fn now(armed_at: u64) -> u64 {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    clock.max(armed_at)
}

/// Settings for connections to a server that is known by `ca` (PEM certificates), by `fingerprint` (SHA-256 of its
/// certificate, in hexadecimal), or by both.
///
/// # Errors
/// `InvalidInput` if neither is given, or one is not what it should be.
pub(crate) fn client_config(ca: &str, fingerprint: &str, armed_at: u64) -> io::Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let pinned = if fingerprint.is_empty() { None } else { Some(parse_fingerprint(fingerprint)?) };
    let authority = if ca.is_empty() { None } else { Some(verifier_of(ca, &provider)?) };
    if pinned.is_none() && authority.is_none() {
        return Err(invalid(
            "TLS needs a file of certificate authorities (ca) or the fingerprint of the server's certificate: \
             a capture kernel has no system certificates",
        ));
    }
    let verifier = Verifier { authority, pinned, provider: provider.clone() };
    let config = ClientConfig::builder_with_details(provider, Arc::new(Clock { armed_at }))
        .with_safe_default_protocol_versions()
        .map_err(|e| invalid(&e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// Reads 64 hexadecimal digits; colons between them, as openssl prints them, are left out.
fn parse_fingerprint(text: &str) -> io::Result<[u8; FINGERPRINT]> {
    let digits: Vec<u8> = text.bytes().filter(|b| !matches!(b, b':' | b' ')).collect();
    let mut bytes = [0; FINGERPRINT];
    let read = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let is_hex = digits.len() == 2 * FINGERPRINT && digits.iter().all(u8::is_ascii_hexdigit);
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = read(pair).unwrap_or_default();
    }
    if is_hex { Ok(bytes) } else { Err(invalid("a fingerprint is the 64 hexadecimal digits of a SHA-256")) }
}

fn verifier_of(pem: &str, provider: &Arc<CryptoProvider>) -> io::Result<Arc<WebPkiServerVerifier>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|e| invalid(&format!("the CA file is damaged: {e}")))?;
        // A bundle of all the world's authorities has some that are of no use here; none at all is an error below.
        let _ = roots.add(certificate);
    }
    if roots.is_empty() {
        return Err(invalid("the CA file has no certificate in PEM"));
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|e| invalid(&e.to_string()))
}

/// The clock, not before the time of arming.
#[derive(Debug)]
struct Clock {
    armed_at: u64,
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(now(self.armed_at))))
    }
}

#[derive(Debug)]
struct Verifier {
    authority: Option<Arc<WebPkiServerVerifier>>,
    pinned: Option<[u8; FINGERPRINT]>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(authority) = &self.authority {
            authority.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        }
        match &self.pinned {
            Some(pinned) if digest(&SHA256, end_entity).as_ref() != pinned => {
                Err(rustls::Error::General("the server's certificate has another fingerprint".to_owned()))
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_may_have_colons_and_must_be_whole() {
        let plain = "ab".repeat(32);
        assert_eq!(parse_fingerprint(&plain).unwrap(), [0xab; 32]);
        assert_eq!(parse_fingerprint(&vec!["AB"; 32].join(":")).unwrap(), [0xab; 32]);
        for bad in [&plain[2..], &"xy".repeat(32), &"+1".repeat(32)] {
            assert!(parse_fingerprint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_server_that_nothing_vouches_for_is_not_believed() {
        let error = client_config("", "", 0).unwrap_err();
        assert!(error.to_string().contains("fingerprint"), "{error}");
        let error = client_config("no certificate", "", 0).unwrap_err();
        assert!(error.to_string().contains("PEM"), "{error}");
    }

    #[test]
    fn the_clock_is_never_before_arming() {
        assert_eq!(now(u64::MAX), u64::MAX);
        assert!(now(0) > 1_700_000_000);
    }
}
