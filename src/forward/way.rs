//! PURE. How an endpoint is reached and trusted: through which proxy, and by which authorities beside the host's.

use std::fmt;
use std::path::PathBuf;

use hyper::Uri;
use hyper::header::HeaderValue;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// The way to an endpoint. The default: straight, trusting the host's roots alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// Tunnelled through, with CONNECT.
    pub proxy: Option<Proxy>,
    /// Trusted beside the host's roots.
    pub authorities: Option<Authorities>,
}

/// An HTTP proxy. Neither `Debug` nor `Display` shows its user or password.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    uri: Uri,
    authorization: Option<HeaderValue>,
}

/// Certificates of a file in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Authorities {
    /// The file.
    pub path: PathBuf,
    /// At least one; each can be a trust anchor.
    pub certificates: Vec<CertificateDer<'static>>,
}

/// Where a proxy for https is found, the first that is not empty.
const VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
/// What is reached without it.
const EXCEPTIONS: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// What a proxy must be.
const WANTED: &str = "must be http://HOST:PORT or http://USER:PASSWORD@HOST:PORT, with special characters of user and password \
     percent-encoded; proxies by https:// or socks are not supported";

impl Proxy {
    /// Reads `http://HOST:PORT`, with or without user and password.
    ///
    /// # Errors
    /// What it must be; the sentence begins with its name, and shows nothing of it.
    pub fn parse(text: &str) -> Result<Proxy, &'static str> {
        let anywhere = Uri::from_static("https://endpoint.invalid/");
        let proxy = Matcher::builder().all(text).build().intercept(&anywhere);
        let usable = |proxy: &Intercept| {
            let uri = proxy.uri();
            let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16().is_some());
            let bare = uri.authority().is_some_and(|authority| authority.as_str() == host);
            // A lone word is no address.
            let addressed = port || (bare && text.contains("://"));
            uri.scheme_str() == Some("http") && !host.is_empty() && addressed
        };
        let proxy = proxy.filter(usable).ok_or(WANTED)?;
        Ok(Proxy { uri: proxy.uri().clone(), authorization: proxy.basic_auth().cloned() })
    }

    /// The proxy that the environment names for `endpoint`; `None` when there is none, or `NO_PROXY` exempts it.
    ///
    /// # Errors
    /// The variable, and what it must be.
    pub fn of_environment<'a>(
        variable: impl Fn(&str) -> Option<&'a str>,
        endpoint: &Uri,
    ) -> Result<Option<Proxy>, (&'static str, &'static str)> {
        let first = |names: &[&'static str]| {
            let given = names.iter().filter_map(|name| Some((*name, variable(name)?)));
            given.into_iter().find(|(_, value)| !value.trim().is_empty())
        };
        let Some((name, value)) = first(&VARIABLES) else { return Ok(None) };
        let exempt = first(&EXCEPTIONS).map_or("", |(_, value)| value);
        let matcher = Matcher::builder().all("http://proxy.invalid").no(exempt).build();
        if matcher.intercept(endpoint).is_none() {
            return Ok(None);
        }
        Proxy::parse(value.trim()).map(Some).map_err(|wrong| (name, wrong))
    }

    /// Whether `variable` of the environment has a say in [`Proxy::of_environment`].
    #[must_use]
    pub fn heeds(variable: &str) -> bool {
        VARIABLES.contains(&variable) || EXCEPTIONS.contains(&variable)
    }

    /// Its address.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// User and password as `Proxy-Authorization` carries them.
    #[must_use]
    pub fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }
}

/// `http://HOST:PORT`.
impl fmt::Display for Proxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.uri.authority().map_or("", |authority| authority.as_str());
        write!(formatter, "http://{authority}")
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

impl Authorities {
    /// Reads the content of the file at `path`.
    ///
    /// # Errors
    /// What is wrong with it: the end of a sentence that names the file.
    pub fn parse(path: PathBuf, pem: &[u8]) -> Result<Authorities, String> {
        let mut certificates = Vec::new();
        for (number, certificate) in (1..).zip(CertificateDer::pem_slice_iter(pem)) {
            let certificate = certificate
                .map_err(|error| format!("is no valid PEM at its certificate {number}: {error}"))?;
            RootCertStore::empty().add(certificate.clone()).map_err(|error| {
                format!("holds a certificate, number {number}, that cannot be trusted: {error}")
            })?;
            certificates.push(certificate);
        }
        if certificates.is_empty() {
            return Err("holds no certificate in PEM (-----BEGIN CERTIFICATE-----); DER can be turned into it with \
                 `openssl x509 -inform der`"
                .to_owned());
        }
        Ok(Authorities { path, certificates })
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({} certificates)", self.path.display(), self.certificates.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_read_and_its_password_never_shown() {
        for (text, shown, authorization) in [
            ("http://proxy:3128", "http://proxy:3128", None),
            ("http://proxy:3128/", "http://proxy:3128", None),
            ("proxy:3128", "http://proxy:3128", None),
            ("http://10.0.0.1", "http://10.0.0.1", None),
            ("http://[::1]:3128", "http://[::1]:3128", None),
            ("http://Aladdin:opensesame@p:1", "http://p:1", Some("Basic QWxhZGRpbjpvcGVuc2VzYW1l")),
            // a:b@c
            ("http://a:b%40c@p:1", "http://p:1", Some("Basic YTpiQGM=")),
        ] {
            let proxy = Proxy::parse(text).unwrap();
            assert_eq!((proxy.to_string(), format!("{proxy:?}")), (shown.into(), shown.into()));
            let found = proxy.authorization().map(|value| value.to_str().unwrap());
            assert_eq!(found, authorization, "{text}");
            assert!(!format!("{:?}", proxy.authorization()).contains("Basic"), "sensitive");
        }
        for text in [
            "",
            " ",
            "https://p:1",
            "socks5://p:1",
            "ftp://p",
            "http://",
            "http://:3128",
            "a b",
            "/x",
            "http://p:x",
            "none",
            "http://u:p@",
        ] {
            assert_eq!(Proxy::parse(text), Err(WANTED), "{text}");
        }
    }

    #[test]
    fn the_environment_names_a_proxy_as_it_does_for_others() {
        let api = "https://api.ometria.com/v2/push";
        let own = "https://10.1.2.3/";
        for (environment, endpoint, expected) in [
            (&[][..], api, None),
            (&[("HTTPS_PROXY", "http://a:1")], api, Some("http://a:1")),
            (&[("https_proxy", "http://a:1")], api, Some("http://a:1")),
            (&[("ALL_PROXY", "http://a:1")], api, Some("http://a:1")),
            (&[("all_proxy", "a:1")], api, Some("http://a:1")),
            (&[("HTTP_PROXY", "http://a:1")], api, None),
            (&[("HTTPS_PROXY", ""), ("ALL_PROXY", "http://b:1")], api, Some("http://b:1")),
            (
                &[("HTTPS_PROXY", "http://a:1"), ("ALL_PROXY", "http://b:1")],
                api,
                Some("http://a:1"),
            ),
            (&[("HTTPS_PROXY", "a:1"), ("NO_PROXY", "ometria.com")], api, None),
            (&[("HTTPS_PROXY", "a:1"), ("NO_PROXY", "x.com, .ometria.com")], api, None),
            (&[("HTTPS_PROXY", "a:1"), ("no_proxy", "*")], api, None),
            (&[("HTTPS_PROXY", "a:1"), ("NO_PROXY", "metria.com")], api, Some("http://a:1")),
            (&[("HTTPS_PROXY", "a:1"), ("NO_PROXY", "10.0.0.0/8")], own, None),
            (&[("HTTPS_PROXY", "a:1"), ("NO_PROXY", "10.2.0.0/16")], own, Some("http://a:1")),
            // What nobody uses need not be right.
            (&[("HTTPS_PROXY", "socks5://a:1"), ("NO_PROXY", "ometria.com")], api, None),
        ] {
            let variable = |name: &str| {
                environment.iter().find(|(known, _)| *known == name).map(|known| known.1)
            };
            assert!(
                environment.iter().all(|(name, _)| Proxy::heeds(name) || *name == "HTTP_PROXY")
            );
            let found = Proxy::of_environment(variable, &endpoint.parse().unwrap()).unwrap();
            assert_eq!(
                found.map(|proxy| proxy.to_string()).as_deref(),
                expected,
                "{environment:?}"
            );
        }
        let socks = |name: &str| (name == "ALL_PROXY").then_some("socks5://a:1");
        let wrong = Proxy::of_environment(socks, &api.parse().unwrap()).unwrap_err();
        assert_eq!(wrong, ("ALL_PROXY", WANTED));
    }

    #[test]
    fn a_file_of_authorities_is_checked_whole() {
        let pem = |name: &str| {
            let key = rcgen::KeyPair::generate().unwrap();
            let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.self_signed(&key).unwrap().pem()
        };
        let (a, b) = (pem("a"), pem("b"));
        let parse = |text: &str| Authorities::parse("/ca.pem".into(), text.as_bytes());
        let two = parse(&format!("# ours\n{a}text between\n{b}")).unwrap();
        assert_eq!(two.certificates.len(), 2);
        assert_eq!(format!("{two:?}"), "/ca.pem (2 certificates)");
        let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let cut = a.split_at(a.len() / 2).0;
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        for (text, words) in [
            (String::new(), "holds no certificate in PEM"),
            ("\u{0}\u{1}binary".to_owned(), "holds no certificate in PEM"),
            (key.to_owned(), "holds no certificate in PEM"),
            (format!("{a}{junk}"), "number 2, that cannot be trusted"),
            (format!("{a}{cut}"), "is no valid PEM at its certificate 2"),
        ] {
            let wrong = parse(&text).unwrap_err();
            assert!(wrong.contains(words), "{wrong}");
        }
    }
}
