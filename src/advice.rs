//! PURE. What an operator is told to do: one place for the words, after the troubleshooting table of OMETRIA.md.
//!
//! What happened is known elsewhere (`forward::verdict`, `forward::failure`, `forward::symptom`, `mapping::explain`); here
//! stands what it means and its cure, for the log, the commands and the console alike.

use std::time::Duration;

/// An event that is older when it arrives starts no automation at Ometria (read 2026-06).
pub const AUTOMATION_MAX: Duration = Duration::from_secs(4 * 3600);

/// An erasure waits for the log's next segment.
pub const ERASURE_WAITS: &str = "what was erased is no longer sent or shown, but stays on the disk until the log's next segment can be begun: make room, or see the daemon's log for the reason";

// ── no answer ──

/// A name does not resolve.
pub const DNS: &str = "check the name and the host's DNS";
/// Refused or unreachable.
pub const CONNECT: &str = "check the network, a firewall, and `endpoint`";
/// The answer is no HTTP.
pub const NOT_HTTP: &str = "something else listens at `endpoint`";
/// Nobody vouches for the certificate.
pub const TLS_ISSUER: &str = "where a proxy inspects TLS, or the endpoint has a CA of its own, name the CA's certificate in `ca_file`";
/// The certificate is not valid at this time.
pub const TLS_TIME: &str = "check the host's clock";
/// The certificate is another host's.
pub const TLS_NAME: &str = "check the name in `endpoint`";
/// The certificate has another fault.
pub const TLS_OTHER: &str = "the endpoint's operator must renew it";
/// No TLS at all.
pub const NO_TLS: &str = "check `endpoint`";
/// The proxy's name does not resolve, or what is there is no proxy.
pub const PROXY: &str = "check `proxy` or HTTPS_PROXY";
/// Nothing listens there.
pub const PROXY_DOWN: &str = "check that it runs, and `proxy` or HTTPS_PROXY";
/// It wants to know who passes.
pub const PROXY_PASSWORD: &str = "check the user and password in `proxy` or HTTPS_PROXY";
/// It forbids.
pub const PROXY_RULES: &str = "its rules must allow its host and port";
/// It says nothing more.
pub const PROXY_LOG: &str = "its log may say why";

// ── an answer ──

/// What an answer that is no 202 means, and what to do.
#[must_use]
pub fn answer(status: u16) -> String {
    match status {
        401 | 403 => format!(
            "{status}: Ometria refuses the API key. It is missing, invalid, or a Query API (Website Personalisation) key: generate a \
             Data API key with push access under Settings > API keys; a new key can take ten minutes to work"
        ),
        400 | 422 => format!(
            "{status}: Ometria refuses a record; the push is split until it stands alone in the quarantine: look at its mapping"
        ),
        413 => format!(
            "{status}: the push or a record in it is too large; it is split until the record stands alone in the quarantine"
        ),
        429 => format!(
            "{status}: Ometria's rate limit or its backlog of 50,000 records; the pace is halved"
        ),
        500..=599 | 408 | 425 => format!("{status}: Ometria cannot take the push now"),
        200..=299 => format!(
            "{status} is not Ometria's 202: a captive portal or a proxy answers in its place"
        ),
        300..=399 => {
            format!("{status}: the endpoint redirects, which is never followed: correct `endpoint`")
        }
        _ => format!(
            "{status}: the endpoint is wrong, the records are not: correct `endpoint` (https://api.ometria.com/v2/push)"
        ),
    }
}

/// The storm guard holds.
#[must_use]
pub fn storm(limit: u64) -> String {
    format!(
        "{limit} records in a row were rejected (`storm_limit`): the rest stays queued. `pillarbox quarantine list` shows the \
         answers; the next record is tried every minute"
    )
}

/// A lane cannot be read on.
pub const DAMAGED: &str = "nothing is skipped: stop the daemon, copy state_dir away before anything else, then `pillarbox spool verify` and `pillarbox spool salvage`";
/// An operator has it paused.
pub const PAUSED: &str = "paused by an operator: `pillarbox resume` goes on";

// ── the quarantine ──

/// What to do about an entry of the quarantine, by its reason.
#[must_use]
pub fn set_aside(reason: &str) -> &'static str {
    match reason {
        "rejected" => {
            "Ometria refused this record alone: see what the answer says, then mend it (`quarantine edit`), or the mapping of its \
             event for those to come"
        }
        "rejected_later" => {
            "Ometria took it with a 202 and rejected it later: see what it says, mend it (`quarantine edit`), and retry"
        }
        "too_large" => {
            "a record may have 60,000 bytes: leave properties out (`quarantine edit`; `unmapped = \"drop\"` for those to come)"
        }
        "invalid_event" => {
            "the producer sent no valid event: mend it (`quarantine edit`), and the producer for those to come"
        }
        _ => {
            "see the detail; `quarantine edit` mends it, `quarantine retry` tries it again as it is"
        }
    }
}

// ── delivered, and yet ──

/// A record names nobody.
pub const NO_IDENTITY_EMAIL: &str =
    "delivered, but not linked to a customer: call `identify` with the email before `track`";
/// An `event_type` is too long.
pub const EVENT_TYPE_TRUNCATED: &str =
    "Ometria cuts it: give the event a shorter `event_type` in its [integration.events] table";
/// An event comes late.
pub const OLD: &str = "delivered, but Ometria starts no automation for it";

/// A record was delivered, and nothing is to be seen of it.
#[must_use]
pub fn invisible(event_type: &str) -> String {
    format!(
        "delivered, but not to be seen at the contact? Create the event type {event_type:?} under Settings > Custom events: until \
         then Ometria accepts such events without acting on them"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: every row of the troubleshooting table has its cure.
    #[test]
    fn the_cure_of_each_trouble_is_named() {
        for (told, cures) in [
            (answer(401), &["Data API key with push access", "Settings > API keys"][..]),
            (answer(403), &["Query API", "ten minutes"]),
            (answer(400), &["mapping"]),
            (answer(422), &["quarantine"]),
            (answer(404), &["correct `endpoint`"]),
            (answer(405), &["correct `endpoint`"]),
            (answer(410), &["correct `endpoint`"]),
            (answer(302), &["correct `endpoint`"]),
            (answer(413), &["too large"]),
            (answer(429), &["pace"]),
            (answer(503), &["now"]),
            (answer(200), &["captive portal"]),
            (NO_IDENTITY_EMAIL.to_owned(), &["`identify` with the email before `track`"]),
            (EVENT_TYPE_TRUNCATED.to_owned(), &["shorter"]),
            (OLD.to_owned(), &["starts no automation"]),
            (invisible("page_view"), &["\"page_view\" under Settings > Custom events"]),
            (storm(7), &["7 records", "quarantine list"]),
            (set_aside("rejected").to_owned(), &["quarantine edit", "mapping"]),
            (set_aside("too_large").to_owned(), &["60,000"]),
            (set_aside("anything").to_owned(), &["quarantine retry"]),
        ] {
            for cure in cures {
                assert!(told.contains(cure), "{told}");
            }
        }
    }
}
