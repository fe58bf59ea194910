//! The web console in a real browser: what somebody on call and somebody in marketing do with it, and that no page complains.
//!
//! `PILLARBOX_SCREENSHOTS=FOLDER` has pictures of every page written there, in light and dark, wide and narrow.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod driver;
#[path = "../support/mod.rs"]
mod support;

use driver::Browser;
use serde_json::json;
use support::{Daemon, Host, Producer, Upstream, wait_until};

const KEY: &str = "the-key-that-is-right-1";
const EVIL: &str = "<script>window.ran = 1</script><img src=x onerror='window.ran = 1'>";
const ENTER: char = '\u{e007}';

/// A daemon whose integration has a key that is refused, and a browser.
struct Scene {
    browser: Browser,
    host: Host,
    daemon: Daemon,
    upstream: Upstream,
}

impl Scene {
    fn begin() -> Scene {
        let upstream = Upstream::start(Some(KEY), &["poison=poisoned"]);
        let host = Host::new(&upstream.url, "a-query-api-key-123", "").with_console("");
        let daemon = host.start();
        Scene { browser: Browser::start(), host, daemon, upstream }
    }

    fn page(&self, path: &str) {
        self.browser.open(&format!("http://{}{path}", self.daemon.console_address()));
    }

    fn send(&self, event: &str) {
        let answer = Producer::connect(&self.host.ingest()).post("/v1/track", event);
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    /// What holds for every page: it says what its parts are, has one heading and its landmarks, and complains of nothing.
    fn is_sound(&self, name: &str) {
        let unsound = self.browser.run(
            "const bad = [];
             for (const field of document.querySelectorAll('input:not([type=hidden]), select, textarea'))
               if (!field.labels.length && !field.ariaLabel) bad.push('no label: ' + field.outerHTML);
             for (const button of document.querySelectorAll('button, a'))
               if (!button.textContent.trim() && !button.ariaLabel) bad.push('no name: ' + button.outerHTML);
             if (document.querySelectorAll('h1').length !== 1) bad.push('not one h1');
             if (document.querySelectorAll('main').length !== 1) bad.push('not one main');
             const ids = [...document.querySelectorAll('[id]')].map((it) => it.id);
             for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) bad.push('twice: ' + id);
             if (!document.documentElement.lang) bad.push('no language');
             if (window.ran) bad.push('what an event held has run');
             return bad",
        );
        assert_eq!(unsound, json!([]), "{name}");
        self.browser.picture(name);
        assert_eq!(self.browser.complaints(), [""; 0], "{name}");
    }

    fn signs_in(&self) {
        let browser = &self.browser;
        self.page("/events");
        browser.wait_for("Sign in");
        self.is_sound("login");
        browser.open(&self.host.entrance());
        browser.wait_for("Accepting events");
        assert_eq!(browser.run("return location.pathname + location.hash"), "/");
        assert_eq!(browser.run("return document.cookie"), "", "no script reads the session");
        browser.click(".signout button");
        browser.wait_for("Token");
        browser.write("#token", &self.host.token());
        browser.click("#login button");
        browser.wait_for("Accepting events");
    }

    /// A 403 is told by itself, with what to do, also to those who cannot see it.
    fn sees_a_refused_key(&self) {
        self.send(r#"{"event":"Product Viewed","messageId":"u-1","traits":{"email":"jane.doe@example.com"}}"#);
        for part in [
            "uk: Ometria refuses the API key",
            "It answers 403",
            "Settings > API keys",
            "unauthorized",
        ] {
            self.browser.wait_for(part);
        }
        wait_until("it is said", || {
            self.browser.run("return document.getElementById('announce').textContent")
                == "uk: unauthorized"
        });
        self.is_sound("overview-unauthorized");
    }

    /// Fills in a new integration: what an event becomes follows what is typed.
    fn adds_an_integration(&self) {
        let browser = &self.browser;
        browser.click("nav a[href='/integrations']");
        browser.click("a[href='/integrations/new']");
        browser.wait_for("\"event_type\": \"product_viewed\"");
        browser.write("#name", "de");
        browser.write("#api_key", KEY);
        browser.write("#endpoint", &self.upstream.url);
        browser.click("[name=preset][value=default]");
        browser.wait_for("by preset default");
        browser.click("[data-add=event]");
        browser.write("[name=event]", "Product Viewed");
        browser.write("[name=event_type]", "viewed");
        browser.wait_for("\"event_type\": \"viewed\"");
        browser.click("[data-add=property]");
        browser.write("[name=property]", "net_price");
        browser.write("[name=source]", "properties.price");
        browser.wait_for("\"net_price\": 79.00");
        assert!(!browser.text().contains("\"price\": 79.00"), "{}", browser.text());
        browser.click("[data-add=value]");
        browser.write("[name=value_of]", "currency");
        browser.write("[name=value_from]", "GBP");
        browser.write("[name=value_to]", "pounds");
        browser.wait_for("\"currency\": \"pounds\"");
        browser.click("[data-try=test]");
        browser.wait_for("Ometria's request id");
        self.is_sound("integration-new");
        browser.click(".editor .primary");
        browser.wait_for("de is saved, and delivered from now on.");
        self.is_sound("integrations");
        browser.click("#configured a[href='/integrations/stored/de']");
        browser.wait_for("shown to nobody");
        let kept = browser.run("return document.documentElement.outerHTML").to_string();
        assert!(!kept.contains(KEY), "the key is in the page");
        self.is_sound("integration-stored");
        self.page("/integrations/file/uk");
        browser.wait_for("change it there, then reload");
        self.is_sound("integration-file");
    }

    /// Events arrive by themselves, with what became of them.
    fn sees_events_arrive(&self) {
        let browser = &self.browser;
        browser.click("nav a[href='/events']");
        browser.wait_for("Live");
        let evil =
            json!({"event": "Product Viewed", "messageId": EVIL, "properties": {"name": EVIL}});
        self.send(&evil.to_string());
        for n in 0..15 {
            let order = json!({"event": "Order Completed", "messageId": format!("o-{n}"), "traits": {"email": "jane.doe@example.com"},
                "properties": {"order_id": n, "total": 79.5, "products": [{"product_id": "SKU-A", "price": 79.5}]}});
            self.send(&order.to_string());
        }
        wait_until("the rows", || {
            browser.run("return [...document.querySelectorAll('#rows tr')].filter((row) => row.innerText.includes('o-14') && row.innerText.includes('delivered')).length") == 1
        });
        wait_until("what an event held, as text", || browser.text().contains("<script>window.ran"));
        self.is_sound("events");
        browser.click("[data-hold]");
        browser.wait_for("Held still");
        browser.write("#id", "o-7");
        browser.click(".filter .primary");
        wait_until("what was asked for alone", || {
            browser.run("return document.querySelectorAll('#rows tbody tr').length") == 2
        });
        browser.click("#rows tbody tr:has(.good) a");
        browser.wait_for("Ometria's request id");
        for part in ["202", "order_completed", "\"total\": 79.5", "Settings > Custom events"] {
            browser.wait_for(part);
        }
        self.is_sound("event");
        self.page("/events?state=queued&integration=uk&id=u-1");
        browser.click("#rows tbody a");
        browser.wait_for("Ometria refuses the API key");
        self.is_sound("event-queued");
    }

    /// A rejected record is explained, and sent again once its cause is gone.
    fn retries_from_the_quarantine(&self) {
        let browser = &self.browser;
        self.send(
            r#"{"event":"Product Added","messageId":"q-1","properties":{"product_id":"poisoned"}}"#,
        );
        wait_until("the entry", || self.host.status()["quarantined"] == 1);
        self.page("/quarantine");
        browser.wait_for("rejected 400");
        self.is_sound("quarantine");
        browser.click("form[action='/quarantine/retry'] tbody a");
        browser.wait_for("Ometria rejected this record when it stood alone");
        self.is_sound("quarantine-entry");
        browser.click("button[formaction='/quarantine/drop']");
        browser.wait_for("Remove 1 entry for good?");
        self.is_sound("quarantine-drop");
        self.upstream.handle.clear_faults();
        self.page("/quarantine");
        browser.click("[data-all=id]");
        browser.click("#selected button");
        browser.wait_for("1 entry was queued again");
        wait_until("its delivery", || self.upstream.ids().contains(&"q-1".to_owned()));
    }

    /// With the keyboard alone; the focus stays where it is while the page lives.
    fn pauses_and_resumes(&self) {
        let browser = &self.browser;
        self.page("/");
        browser.wait_for("delivered");
        browser.run("document.querySelector('#integration-de button').focus()");
        let sampled = browser.run("return document.querySelector('.health').innerText");
        wait_until("the page to live", || {
            browser.run("return document.querySelector('.health').innerText") != sampled
        });
        assert_eq!(browser.run("return document.activeElement.value"), "pause");
        browser.press(ENTER);
        browser.wait_for("de is paused: events are taken, nothing is sent.");
        wait_until("the way back", || {
            browser.run("return !!document.querySelector('#integration-de [value=resume]')") == true
        });
        self.is_sound("overview");
        browser.click("#integration-de [value=resume]");
        browser.wait_for("de goes on.");
        assert_ne!(self.host.status()["integrations"][1]["report"]["state"], "paused");
    }

    /// A page that lives says so when its session has ended elsewhere; a form leads to the login.
    fn is_signed_out(&self) {
        let browser = &self.browser;
        self.page("/events");
        browser.wait_for("Live");
        browser.click("[data-hold]");
        browser.wait_for("Held still");
        assert_eq!(browser.complaints(), [""; 0]);
        browser.run("return fetch('/logout', { method: 'POST' }).then((answer) => answer.status)");
        browser.click("[data-hold]");
        browser.wait_for("Signed out: reload the page");
        let refused = browser.complaints();
        assert!(refused.iter().all(|told| told.contains("401")), "{refused:?}");
        browser.click(".signout button");
        browser.wait_for("Token");
        self.is_sound("login");
    }
}

#[test]
fn the_console_in_a_browser() {
    let scene = Scene::begin();
    scene.signs_in();
    scene.sees_a_refused_key();
    scene.adds_an_integration();
    scene.sees_events_arrive();
    scene.retries_from_the_quarantine();
    scene.pauses_and_resumes();
    scene.is_signed_out();
    assert_eq!(scene.browser.complaints(), [""; 0]);
}
