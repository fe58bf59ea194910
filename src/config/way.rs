//! `proxy` and `ca_file`: read and checked. No message shows a path or an address: it may be the key, in the wrong place.

use hyper::Uri;

use super::faults::{Collector, Place};
use super::section::Section;
use crate::forward::Way;
use crate::forward::way::{Authorities, Proxy};

/// The value of `proxy` that means: none, whatever the environment says.
pub(super) const DIRECT: &str = "direct";
/// The largest file of certificates: a whole host's roots are a fifth of it.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// The way to `endpoint`.
pub(super) fn way(
    section: &Section,
    endpoint: Option<&Uri>,
    environment: &[(String, String)],
    faults: &mut Collector<'_>,
) -> Way {
    Way {
        proxy: proxy(section, endpoint, environment, faults),
        authorities: authorities(section, faults),
    }
}

fn proxy(
    section: &Section,
    endpoint: Option<&Uri>,
    environment: &[(String, String)],
    faults: &mut Collector<'_>,
) -> Option<Proxy> {
    let text = section.text("proxy", faults);
    let configured = match text.as_str() {
        "" => None,
        DIRECT => return None,
        text => match Proxy::parse(text) {
            Ok(proxy) => Some(proxy),
            Err(wrong) => {
                let message = format!("`proxy` {wrong}; or \"{DIRECT}\"");
                faults.add(&section.place_of("proxy"), message);
                return None;
            }
        },
    };
    // An endpoint by http is on this host: nothing stands in between.
    let endpoint = endpoint.filter(|endpoint| endpoint.scheme_str() == Some("https"))?;
    if configured.is_some() {
        return configured;
    }
    let variable = |name: &str| {
        let given = environment.iter().find(|(known, _)| known == name);
        given.map(|(_, value)| value.as_str())
    };
    Proxy::of_environment(variable, endpoint).unwrap_or_else(|(name, wrong)| {
        let message = format!("it {wrong}; `proxy = \"{DIRECT}\"` does without");
        faults.add(&Place::Environment(name.to_owned()), message);
        None
    })
}

fn authorities(section: &Section, faults: &mut Collector<'_>) -> Option<Authorities> {
    if !section.has("ca_file") {
        return None;
    }
    let path = super::build::path(section, "ca_file", faults);
    if !path.is_absolute() {
        return None;
    }
    let read = super::build::read_file(&path, PEM_BYTES_MAX, "one of certificates");
    let read = read.and_then(|pem| Authorities::parse(path, &pem));
    read.map_err(|wrong| faults.add(&section.place_of("ca_file"), format!("the file {wrong}"))).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::tests::{INTEGRATION, built, with};
    use super::super::{Config, Faults};
    use super::*;

    fn line(line: &str) -> Result<Config, Faults> {
        built(&format!("{INTEGRATION}{line}\n"))
    }

    fn proxy_of(config: &Config) -> Option<String> {
        config.integrations[0].forward.way.proxy.as_ref().map(Proxy::to_string)
    }

    #[test]
    fn the_key_goes_before_the_environment_and_nothing_leads_to_this_host_by_a_proxy() {
        let environment = &[("HTTPS_PROXY", "http://env:1"), ("NO_PROXY", "other.example")][..];
        for (set, environment, expected) in [
            (&[][..], environment, Some("http://env:1")),
            (&["integration.uk.proxy=direct"], environment, None),
            (&["integration.uk.proxy=http://u:p@own:2"], environment, Some("http://own:2")),
            (&["integration.uk.proxy=http://own:2"], &[], Some("http://own:2")),
            (&["integration.uk.proxy="], environment, Some("http://env:1")),
            (&["integration.uk.endpoint=https://other.example/"], environment, None),
            (&["integration.uk.endpoint=http://127.0.0.1:1/"], environment, None),
            (
                &["integration.uk.endpoint=http://[::1]:1/", "integration.uk.proxy=http://own:2"],
                &[],
                None,
            ),
            (&["integration.uk.proxy=direct"], &[("HTTPS_PROXY", "socks5://x")], None),
        ] {
            let config = with(set, environment).unwrap();
            assert_eq!(proxy_of(&config).as_deref(), expected, "{set:?}");
            let shown = format!("proxy = \"{}\"\n", expected.unwrap_or(DIRECT));
            assert!(config.effective().contains(&shown) && !config.effective().contains("u:p"));
            assert!(!format!("{config:?}").contains("u:p"));
        }
    }

    #[test]
    fn what_is_no_proxy_is_told_without_its_password() {
        for text in ["https://u:canary@p:1", "socks5://p:1", "http://u:canary@", "none"] {
            let fault = line(&format!("proxy = \"{text}\"")).unwrap_err().to_string();
            assert!(fault.starts_with("p.toml:4:1: `proxy` must be http://HOST:PORT"), "{fault}");
            assert!(fault.ends_with("; or \"direct\"") && !fault.contains("canary"), "{fault}");
        }
        let environment = &[("ALL_PROXY", "socks5://u:canary@p:1")];
        let fault = with(&[], environment).unwrap_err().to_string();
        assert!(fault.starts_with("environment ALL_PROXY: it must be http://HOST:PORT"), "{fault}");
        assert!(!fault.contains("canary"), "{fault}");
    }

    #[test]
    fn a_file_of_authorities_is_read_when_the_configuration_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["x".to_owned()]).unwrap();
        let named = format!("ca_file = {path:?}");
        let fault = |named: &str| line(named).unwrap_err().to_string();
        assert!(fault(&named).starts_with("p.toml:4:1: the file cannot be read: No such file"));
        assert!(fault("ca_file = \"ca.pem\"").contains("`ca_file` must be an absolute path"));
        assert!(fault(&format!("ca_file = {:?}", folder.path())).contains("is no regular file"));
        fs::write(&path, vec![b'x'; 2 << 20]).unwrap();
        assert!(fault(&named).contains("is too large"));
        fs::write(&path, "no certificate").unwrap();
        assert!(fault(&named).contains("the file holds no certificate in PEM"));
        fs::write(&path, params.self_signed(&key).unwrap().pem()).unwrap();
        let config = line(&named).unwrap();
        let way = &config.integrations[0].forward.way;
        assert_eq!(way.authorities.as_ref().unwrap().certificates.len(), 1);
        assert!(config.effective().contains(&format!("{named}\n")));
        assert_eq!(built(&config.effective()).unwrap().effective(), config.effective());
    }
}
