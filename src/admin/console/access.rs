//! PURE. Who may talk to the console at all, whatever they ask and whoever they are.
//!
//! A browser on this host, or at the other end of `ssh -L`, is asked by any page that it shows to send requests here. So:
//!
//! - The `Host` is a loopback name, or a name that a stranger has pointed here (DNS rebinding) is refused. A forwarded port may
//!   be any other than the configured one: the port is not looked at.
//! - What changes something must come from a page of this very console: its `Origin` is the `Host` (Fetch standard), and
//!   `Sec-Fetch-Site`, which every current browser sends, says so too. Another port of this host is another origin.
//! - What only shows something may be opened from elsewhere as a page of its own, and not be loaded into another page.

use core::net::{Ipv4Addr, Ipv6Addr};

/// What a request says of where it comes from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Caller<'h> {
    /// `Host`.
    pub(super) host: Option<&'h str>,
    /// `Origin`.
    pub(super) origin: Option<&'h str>,
    /// `Sec-Fetch-Site`.
    pub(super) site: Option<&'h str>,
    /// `Sec-Fetch-Mode`.
    pub(super) mode: Option<&'h str>,
    /// `Sec-Fetch-Dest`.
    pub(super) dest: Option<&'h str>,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stranger {
    /// No loopback name in `Host`.
    Host,
    /// Another page sent it.
    Origin,
}

impl Caller<'_> {
    /// Why this caller is refused a request that `changes` something, or only shows it.
    pub(super) fn stranger(&self, changes: bool) -> Option<Stranger> {
        let Some(host) = self.host.filter(|host| port(host).is_some()) else {
            return Some(Stranger::Host);
        };
        let own_origin = |origin: &str| {
            origin.strip_prefix("http://").is_some_and(|origin| origin.eq_ignore_ascii_case(host))
        };
        let is_own = if changes {
            match (self.origin, self.site) {
                (Some(origin), site) => own_origin(origin) && site.is_none_or(is_same_origin),
                (None, site) => site.is_some_and(is_same_origin),
            }
        } else {
            let opened = (self.mode, self.dest) == (Some("navigate"), Some("document"));
            self.origin.is_none_or(own_origin)
                && self.site.is_none_or(|site| is_same_origin(site) || site == "none" || opened)
        };
        (!is_own).then_some(Stranger::Origin)
    }
}

fn is_same_origin(site: &str) -> bool {
    site == "same-origin"
}

/// The port of a `Host` that is a loopback name, empty when it names none; `None` for every other host.
pub(super) fn port(host: &str) -> Option<&str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']')?;
            let is_local = address.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback());
            return is_local.then(|| digits(rest)).flatten();
        }
        None => match host.find(':') {
            Some(colon) => host.split_at(colon),
            None => (host, ""),
        },
    };
    let is_local = name.eq_ignore_ascii_case("localhost")
        || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback());
    is_local.then(|| digits(port)).flatten()
}

/// The port in `:8481`; empty for nothing.
fn digits(port: &str) -> Option<&str> {
    if port.is_empty() {
        return Some("");
    }
    let port = port.strip_prefix(':')?;
    port.parse::<u16>()
        .is_ok_and(|_| port.bytes().all(|byte| byte.is_ascii_digit()))
        .then_some(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_hosts() {
        for (host, expected) in [
            ("127.0.0.1:8481", Some("8481")),
            ("127.0.0.1", Some("")),
            ("127.8.9.1:1", Some("1")),
            ("localhost:65535", Some("65535")),
            ("LocalHost:80", Some("80")),
            ("[::1]:8481", Some("8481")),
            ("[::1]", Some("")),
            ("[0:0:0:0:0:0:0:1]:1", Some("1")),
            ("", None),
            (":8481", None),
            ("127.0.0.1:", None),
            ("127.0.0.1:65536", None),
            ("127.0.0.1:+80", None),
            ("127.0.0.1:80:80", None),
            ("127.1:8481", None),
            ("0.0.0.0:8481", None),
            ("10.0.0.1:8481", None),
            ("localhost.:8481", None),
            ("localhost.example.com:8481", None),
            ("x.localhost:8481", None),
            ("example.com", None),
            ("user@127.0.0.1:8481", None),
            ("[::1", None),
            ("[::1]8481", None),
            ("[::2]:8481", None),
            ("[::ffff:127.0.0.1]:8481", None),
            ("::1", None),
        ] {
            assert_eq!(port(host), expected, "{host:?}");
        }
    }

    fn caller(text: &'static str) -> Caller<'static> {
        let mut caller = Caller::default();
        for part in text.split_whitespace() {
            let (name, value) = part.split_once('=').unwrap();
            let place = match name {
                "host" => &mut caller.host,
                "origin" => &mut caller.origin,
                "site" => &mut caller.site,
                "mode" => &mut caller.mode,
                "dest" => &mut caller.dest,
                _ => panic!("{name}"),
            };
            *place = Some(value);
        }
        caller
    }

    #[test]
    fn changes_come_from_the_consoles_own_pages() {
        use Stranger::{Host, Origin};
        for (said, expected) in [
            ("host=127.0.0.1:8481 origin=http://127.0.0.1:8481 site=same-origin", None),
            ("host=localhost:9000 origin=http://localhost:9000", None),
            ("host=[::1]:1 origin=http://[::1]:1 site=same-origin", None),
            ("host=localhost:1 site=same-origin", None),
            ("host=localhost:1", Some(Origin)),
            ("host=localhost:1 site=none", Some(Origin)),
            ("host=localhost:1 origin=null", Some(Origin)),
            ("host=localhost:1 origin=http://localhost:2 site=same-site", Some(Origin)),
            ("host=localhost:1 origin=http://localhost:1 site=same-site", Some(Origin)),
            ("host=localhost:1 origin=http://localhost:1 site=cross-site", Some(Origin)),
            ("host=localhost:1 origin=https://localhost:1", Some(Origin)),
            ("host=localhost:1 origin=http://127.0.0.1:1", Some(Origin)),
            ("host=localhost:1 origin=http://evil.example", Some(Origin)),
            ("host=evil.example origin=http://evil.example site=same-origin", Some(Host)),
            ("origin=http://localhost:1 site=same-origin", Some(Host)),
        ] {
            assert_eq!(caller(said).stranger(true), expected, "{said}");
        }
    }

    #[test]
    fn what_is_shown_is_shown_to_no_other_page() {
        use Stranger::{Host, Origin};
        for (said, expected) in [
            ("host=localhost:1", None),
            ("host=localhost:1 site=none mode=navigate dest=document", None),
            ("host=localhost:1 site=same-origin mode=cors dest=empty", None),
            ("host=localhost:1 site=cross-site mode=navigate dest=document", None),
            ("host=localhost:1 site=same-site mode=navigate dest=document", None),
            ("host=localhost:1 site=cross-site mode=navigate dest=iframe", Some(Origin)),
            ("host=localhost:1 site=same-site mode=no-cors dest=image", Some(Origin)),
            ("host=localhost:1 site=cross-site mode=cors dest=empty", Some(Origin)),
            ("host=localhost:1 origin=http://localhost:2", Some(Origin)),
            ("host=rebound.example:1 site=none mode=navigate dest=document", Some(Host)),
            ("", Some(Host)),
        ] {
            assert_eq!(caller(said).stranger(false), expected, "{said}");
        }
    }
}
