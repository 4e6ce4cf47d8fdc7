//! What `arm` looks at in a target that is a URL: where it leads, and whether a client could be made of what is known.
//! Here, since neither the loader nor the capture side knows the other's words.

use std::error::Error;

use kdump_capture::remote::{self, RemoteOptions, RemoteSettings};
use kdump_loader::network::Destination;
use kdump_loader::target::{Contact, Sealed};

/// Reads the files that the keys of a `[[target]]` name, and resolves its server. Nothing is sent.
///
/// # Errors
/// Keys that are none, files that cannot be used, a server that has no address, options that do not suffice.
pub fn look(url: &str, keys: &toml::Table) -> Result<Contact, Box<dyn Error + Send + Sync>> {
    let settings: RemoteSettings = keys.clone().try_into()?;
    let options = settings.read()?;
    check(url, &options)?;
    let (host, port) = remote::peer(url, &options)?;
    let destination = Destination::resolve(&host, port)?;
    let options = RemoteOptions { addresses: destination.addresses.clone(), ..options };
    Ok(Contact { destination, options: Sealed::new(toml::Table::try_from(&options)?) })
}

/// Makes a client as kdump-init will, which adds the dump's directory.
fn check(url: &str, options: &RemoteOptions) -> std::io::Result<()> {
    let options = RemoteOptions { directory: "dump".to_owned(), ..options.clone() };
    remote::open(url, &options).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look_at(url: &str, keys: &str) -> Result<Contact, String> {
        look(url, &keys.parse().unwrap()).map_err(|error| {
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(here) = cause {
                text.push_str(&format!(": {here}"));
                cause = here.source();
            }
            text
        })
    }

    #[test]
    fn a_server_is_looked_at_when_the_machine_is_armed() {
        let fingerprint = "00".repeat(32);
        let found = look_at("tls://192.0.2.7/web1", &format!("fingerprint = {fingerprint:?}")).unwrap();
        assert_eq!((found.destination.host.as_str(), found.destination.port), ("192.0.2.7", 5663));
        let text = toml::to_string(&found.options).unwrap();
        let options: RemoteOptions = toml::from_str(&text).unwrap();
        assert_eq!(options.addresses, found.destination.addresses);
        assert_eq!((options.fingerprint, options.directory.as_str()), (fingerprint, ""));
    }

    #[test]
    fn what_could_not_work_after_a_panic_is_refused_before() {
        for (url, keys, says) in [
            ("ftp://192.0.2.7/", "", "no URL of a server"),
            ("https://u:hunter2@192.0.2.7/", "", "a file of their own"),
            ("tls://192.0.2.7/a", "", "fingerprint"),
            ("tcp://192.0.2.7/a", "tokn-file = \"/x\"", "tokn-file"),
            ("tcp://192.0.2.7/a", "token-file = \"/nonexistent\"", "/nonexistent"),
            ("s3://bucket/a", "", "secret_key"),
            ("tcp://no-such-host.invalid/a", "", "no-such-host.invalid"),
        ] {
            let error = look_at(url, keys).unwrap_err();
            assert!(error.contains(says) && !error.contains("hunter2"), "{url}: {error}");
        }
    }
}
