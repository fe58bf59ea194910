//! PURE. What a draft takes over from what is stored under its name: secrets that it does not show again.
//!
//! A kept key goes nowhere else than before: a draft that leads elsewhere (another endpoint, proxy or authority) must bring its
//! key. Whoever may edit an integration, but has never seen its key, could send it to a place of their own otherwise.

use crate::config::keys;
use crate::draft::{Draft, Setting};

/// Where a key may stand.
const KEYS: [&str; 3] = ["api_key", "api_key_file", "api_key_credential"];
/// What decides where a key goes, and who sees it there.
const WAY: [&str; 3] = ["endpoint", "proxy", "ca_file"];
/// What is shown for a proxy's user and password.
const HIDDEN: &str = "***";
/// The key of what is never sent.
const NO_KEY: &str = "none";

type Faults = Vec<(String, String)>;

/// Completes a draft by what is stored under its name.
pub(super) fn complete(
    draft: &mut Draft,
    stored: Option<&Draft>,
    needs_no_key: bool,
    faults: &mut Faults,
) {
    for name in ["api_key_file", "api_key_credential"] {
        if draft.remove(name).is_some() {
            let message =
                "is read only from the configuration file: give the key itself as `api_key`";
            faults.push((name.to_owned(), format!("`{name}` {message}")));
        }
    }
    restore_proxy(draft, stored, faults);
    if draft.has("api_key") {
        return;
    }
    if needs_no_key {
        draft.set("api_key", NO_KEY.into());
        return;
    }
    let fault = |message: &str| ("api_key".to_owned(), message.to_owned());
    let key = stored.and_then(|stored| {
        let (name, setting) = stored.iter().find(|(name, _)| KEYS.contains(name))?;
        Some((stored, name, setting))
    });
    match key {
        None => faults.push(fault(
            "the API key must be given: generate a Data API key with push access in Ometria, Settings > API keys",
        )),
        Some((stored, name, setting)) => {
            if let Some(other) = WAY.into_iter().find(|name| value(draft, name) != value(stored, name)) {
                faults.push(fault(&format!(
                    "give the API key again: `{other}` has changed, and a stored key is sent nowhere else than before"
                )));
            }
            draft.set(name, setting.clone());
        }
    }
    if faults.iter().any(|(name, _)| name == "api_key") && !KEYS.iter().any(|key| draft.has(key)) {
        // So that the rest is checked as well.
        draft.set("api_key", NO_KEY.into());
    }
}

/// A setting, or its default.
fn value<'d>(draft: &'d Draft, name: &str) -> &'d str {
    let default = keys::find("integration", name).map_or("", |key| key.default);
    draft.text(name).unwrap_or(default)
}

/// Puts back the user and password of a proxy that the draft shows hidden.
fn restore_proxy(draft: &mut Draft, stored: Option<&Draft>, faults: &mut Faults) {
    let Some(shown) = draft.text("proxy") else { return };
    if hidden(shown) != shown || !shown.contains(HIDDEN) {
        return;
    }
    let known = stored.and_then(|stored| stored.text("proxy"));
    if let Some(known) = known.filter(|known| hidden(known) == shown) {
        draft.set("proxy", known.into());
        return;
    }
    let message = "`proxy`: its user and password are not known: write them out";
    faults.push(("proxy".to_owned(), message.to_owned()));
}

/// A proxy's address with its user and password hidden.
fn hidden(proxy: &str) -> String {
    let Some((before, address)) = proxy.rsplit_once('@') else { return proxy.to_owned() };
    let scheme = before.split_once("://").map(|(scheme, _)| format!("{scheme}://"));
    format!("{}{HIDDEN}@{address}", scheme.unwrap_or_default())
}

/// What may be shown of a stored draft.
pub(super) fn presentable(mut draft: Draft) -> Draft {
    for name in KEYS {
        draft.remove(name);
    }
    if let Some(shown) = draft.text("proxy").map(hidden) {
        draft.set("proxy", Setting::Text(shown));
    }
    draft
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(json: &str) -> Draft {
        serde_json::from_str(json).unwrap()
    }

    fn json(draft: &Draft) -> String {
        serde_json::to_string(draft).unwrap()
    }

    fn completed(given: &str, stored: Option<&str>) -> (String, Faults) {
        let (mut faults, mut completed) = (Vec::new(), draft(given));
        complete(&mut completed, stored.map(draft).as_ref(), false, &mut faults);
        (json(&completed), faults)
    }

    fn assert_fault(given: &str, faults: &Faults, path: &str, words: &str) {
        let (at, message) = faults.first().unwrap();
        assert!(at == path && message.contains(words), "{given}: {faults:?}");
    }

    #[test]
    fn a_draft_takes_over_what_it_does_not_show_and_a_kept_key_goes_nowhere_else() {
        let stored =
            r#"{"name":"a","api_key":"old","endpoint":"https://x/","proxy":"http://u:p@h:1"}"#;
        let plain = r#"{"name":"a","api_key_file":"/k"}"#;
        for (given, stored, becomes, fault) in [
            // A key of its own.
            (r#"{"api_key":"new"}"#, None, r#"{"api_key":"new"}"#, None),
            (r#"{"api_key":"new"}"#, Some(stored), r#"{"api_key":"new"}"#, None),
            // Kept, where it goes where it went.
            (
                r#"{"endpoint":"https://x/","proxy":"http://***@h:1","batch":7}"#,
                Some(stored),
                r#"{"endpoint":"https://x/","proxy":"http://u:p@h:1","batch":7,"api_key":"old"}"#,
                None,
            ),
            (r#"{"linger":"1s"}"#, Some(plain), r#"{"linger":"1s","api_key_file":"/k"}"#, None),
            (
                r#"{"endpoint":"https://api.ometria.com/v2/push"}"#,
                Some(plain),
                r#"{"endpoint":"https://api.ometria.com/v2/push","api_key_file":"/k"}"#,
                None,
            ),
            // Not kept.
            (
                r#"{"proxy":"http://***@h:1"}"#,
                Some(stored),
                "",
                Some(("api_key", "`endpoint` has changed")),
            ),
            (
                r#"{"endpoint":"https://x/"}"#,
                Some(stored),
                "",
                Some(("api_key", "`proxy` has changed")),
            ),
            (
                r#"{"endpoint":"https://x/","proxy":"http://***@h:1","ca_file":"/c"}"#,
                Some(stored),
                "",
                Some(("api_key", "`ca_file` has changed")),
            ),
            (
                r#"{"endpoint":"https://y/"}"#,
                Some(plain),
                "",
                Some(("api_key", "`endpoint` has changed")),
            ),
            ("{}", None, "", Some(("api_key", "the API key must be given"))),
        ] {
            let (completed, faults) = completed(given, stored);
            match fault {
                None => assert_eq!((completed.as_str(), faults), (becomes, vec![]), "{given}"),
                Some((path, words)) => assert_fault(given, &faults, path, words),
            }
        }
    }

    #[test]
    fn what_is_not_known_or_not_to_be_read_is_a_fault() {
        let stored = r#"{"api_key":"old","proxy":"http://u:p@h:1"}"#;
        for (given, stored, path, words) in [
            (r#"{"api_key":"k","proxy":"http://***@other:1"}"#, Some(stored), "proxy", "not known"),
            (r#"{"api_key":"k","proxy":"***@h:1"}"#, None, "proxy", "not known"),
            // A file that the daemon may read, and who drafts may not.
            (
                r#"{"api_key_file":"/etc/shadow"}"#,
                Some(stored),
                "api_key_file",
                "is read only from the configuration file",
            ),
        ] {
            assert_fault(given, &completed(given, stored).1, path, words);
        }
    }

    #[test]
    fn a_mapping_needs_no_key() {
        let mut faults = Vec::new();
        let mut completed = draft(r#"{"preset":"retail"}"#);
        complete(&mut completed, None, true, &mut faults);
        assert!(faults.is_empty() && completed.has("api_key"));
    }

    #[test]
    fn no_secret_is_presentable() {
        for (stored, shown) in [
            (
                r#"{"api_key":"s","api_key_file":"s","api_key_credential":"s","batch":1}"#,
                r#"{"batch":1}"#,
            ),
            (r#"{"proxy":"http://u:s@h:1"}"#, r#"{"proxy":"http://***@h:1"}"#),
            (r#"{"proxy":"u:s@h:1"}"#, r#"{"proxy":"***@h:1"}"#),
            (r#"{"proxy":"http://u:s@s@h:1"}"#, r#"{"proxy":"http://***@h:1"}"#),
            (r#"{"proxy":"http://h:1"}"#, r#"{"proxy":"http://h:1"}"#),
            (r#"{"proxy":"direct"}"#, r#"{"proxy":"direct"}"#),
        ] {
            assert_eq!(json(&presentable(draft(stored))), shown);
        }
    }
}
