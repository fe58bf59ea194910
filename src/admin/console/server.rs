//! The console's routes, and who is let through to them.

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{
    ACCEPT, ALLOW, CONNECTION, COOKIE, HOST, HeaderMap, HeaderValue, ORIGIN, RETRY_AFTER,
};
use hyper::{Method, Request, StatusCode};

use super::access::{self, Caller, Stranger};
use super::answer::{self, Answer};
use super::form::Form;
use super::history::Range;
use super::live::{self, Seen};
use super::notices::Notice;
use super::session::{self, Session};
use super::shell::Shell;
use super::{Console, events, integrations, locked, overview, quarantine, token_file};
use crate::admin::metrics::Format;
use crate::admin::protocol::Status;
use crate::clock;
use crate::forward::State;
use crate::spool::ReadError;

/// For a header or a body to arrive.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// A form: an event to be mended may be in it, with every byte escaped.
const BODY_BYTES_MAX: usize = 1 << 20;

/// How long a page waits for what was asked of the forwarders.
const OBEYED_MAX: Duration = Duration::from_millis(500);

const STYLE: &str = include_str!("assets/console.css");
const SCRIPT: &str = include_str!("assets/console.js");
const ICON: &str = include_str!("assets/icon.svg");

#[derive(Template)]
#[template(path = "login.html", config = "src/admin/console/askama.toml")]
struct Login {
    problem: Option<String>,
}

/// A page that says one thing.
#[derive(Template)]
#[template(path = "message.html", config = "src/admin/console/askama.toml")]
struct Message {
    shell: Shell,
    text: String,
    back: &'static str,
    back_text: &'static str,
}

/// A request of somebody who has signed in.
pub(super) struct Asked {
    /// The path without its first `/`, cut at each `/`.
    path: Vec<String>,
    pub(super) query: Form,
    /// Empty unless it changes something.
    pub(super) form: Form,
    /// It is to change something, instead of only showing it.
    changes: bool,
}

impl Asked {
    /// What a router looks at: the parts of the path, and whether something is to change.
    pub(super) fn wanted(&self) -> (Vec<&str>, bool) {
        (self.path.iter().map(String::as_str).collect(), self.changes)
    }
}

/// Why there is no page.
pub(super) enum Refused {
    NotFound(&'static str),
    Bad(String),
    Storage(ReadError),
}

impl From<ReadError> for Refused {
    fn from(error: ReadError) -> Refused {
        Refused::Storage(error)
    }
}

/// Answers one request.
pub(super) async fn answer(console: &Arc<Console>, request: Request<Incoming>) -> Answer {
    let mut answer = admitted(console, request).await;
    answer::secure(answer.headers_mut());
    answer
}

async fn admitted(console: &Arc<Console>, request: Request<Incoming>) -> Answer {
    let method = request.method().clone();
    let changes = match method {
        Method::GET | Method::HEAD => false,
        Method::POST => true,
        _ => return not_allowed("GET, HEAD, POST"),
    };
    let caller = caller(request.headers());
    match caller.stranger(changes) {
        None => {}
        Some(Stranger::Host) => {
            let text = "the console answers to loopback names only: open http://127.0.0.1 or http://localhost with its port";
            return closing(answer::plain(StatusCode::MISDIRECTED_REQUEST, text));
        }
        Some(Stranger::Origin) => {
            let text = "requests of other pages are refused: open the console's own";
            return closing(answer::plain(StatusCode::FORBIDDEN, text));
        }
    }
    let cookie = session::cookie_name(caller.host.and_then(access::port).unwrap_or_default());
    let path = request.uri().path().to_owned();
    let known = session_of(console, request.headers(), &cookie);
    match (path.as_str(), changes) {
        ("/assets/console.css", false) => {
            return answer::typed(StatusCode::OK, "text/css; charset=utf-8", STYLE);
        }
        ("/assets/console.js", false) => {
            return answer::typed(StatusCode::OK, "text/javascript; charset=utf-8", SCRIPT);
        }
        ("/assets/icon.svg", false) => {
            return answer::typed(StatusCode::OK, "image/svg+xml", ICON);
        }
        ("/metrics", false) => return figures(console, request.headers()).await,
        ("/login", false) if known.is_some() => return answer::see_other("/"),
        ("/login", false) => return answer::page(&Login { problem: None }),
        ("/login", true) => {
            return match read(request).await {
                Ok(form) => sign_in(console, &form, &cookie),
                Err(answer) => answer,
            };
        }
        _ => {}
    }
    let Some(known) = known else {
        return if (path.as_str(), changes) == ("/logout", true) {
            answer::see_other("/login")
        } else if changes {
            signed_out(request).await
        } else if path.starts_with("/live/") {
            // A page that is alive must not follow to the login.
            closing(answer::plain(StatusCode::UNAUTHORIZED, "sign in first: reload the page"))
        } else {
            answer::see_other("/login")
        };
    };
    if (path.as_str(), changes) == ("/logout", true) {
        console.end(known);
        let mut answer = answer::see_other("/login");
        answer::set_cookie(&mut answer, &cookie, "", 0);
        return answer;
    }
    let mut answer = signed_in(console, request, &path, changes).await;
    if known.is_waning {
        renew(console, &mut answer, &cookie, &known.nonce);
    }
    answer
}

/// Who sends a form without a session, most of all with one that has ended, may sign in where the page would have been.
async fn signed_out(request: Request<Incoming>) -> Answer {
    // Read to its end: a browser that is still sending would take a closed connection for an error.
    if let Err(answer) = read(request).await {
        return answer;
    }
    let problem = "Your session has ended, and nothing was changed: sign in and do it again.";
    answer::html(StatusCode::UNAUTHORIZED, &Login { problem: Some(problem.to_owned()) })
}

/// The figures for a scraper, which has no session: sums and names of integrations, nothing of any event, and on a loopback
/// address alone.
async fn figures(console: &Console, headers: &HeaderMap) -> Answer {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    match console.service.metrics(Format::asked(accept)).await {
        Ok(shown) => answer::typed(StatusCode::OK, shown.content_type, shown.body),
        Err(error) => answer::plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// Answers somebody who has signed in.
async fn signed_in(
    console: &Arc<Console>,
    request: Request<Incoming>,
    path: &str,
    changes: bool,
) -> Answer {
    let query = Form::read(request.uri().query().unwrap_or_default());
    let form = if changes { read(request).await } else { Ok(Form::default()) };
    let form = match form {
        Ok(form) => form,
        Err(answer) => return answer,
    };
    let path = path.trim_start_matches('/').split('/').map(str::to_owned).collect();
    let asked = Asked { path, query, form, changes };
    match route(console, &asked).await {
        Ok(answer) => answer,
        Err(refused) => told(console, refused).await,
    }
}

async fn route(console: &Arc<Console>, asked: &Asked) -> Result<Answer, Refused> {
    let (path, changes) = asked.wanted();
    match (path.as_slice(), changes) {
        ([""], false) => {
            let status = console.service.status().await?;
            let live = seen(console, &status, Range::read(asked.query.text("range")));
            let shell = shell(console, "Overview", "overview", &status, asked);
            Ok(answer::page(&overview::Page { shell, live }))
        }
        (["live", "overview"], false) => Ok(live_overview(console, asked)),
        (["control"], true) => control(console, &asked.form).await,
        (["events", ..] | ["live", "events"], false) => events::answer(console, asked).await,
        (["integrations", ..], _) => integrations::answer(console, asked).await,
        (["quarantine", ..], _) => quarantine::answer(console, asked).await,
        _ => Err(Refused::NotFound("There is no such page.")),
    }
}

fn seen(console: &Console, status: &Status, range: Range) -> overview::Overview {
    overview::Overview::new(status, &locked(&console.history), range)
}

fn live_overview(console: &Arc<Console>, asked: &Asked) -> Answer {
    let range = Range::read(asked.query.text("range"));
    let watched = console.clone();
    let before = Arc::new(std::sync::Mutex::new(None::<overview::Overview>));
    live::stream(console, move || {
        let (console, before) = (watched.clone(), before.clone());
        async move {
            // What cannot be read now is asked for again.
            let Ok(status) = console.service.status().await else { return Seen::default() };
            let live = overview::Live { live: seen(&console, &status, range) };
            let part = live.render().ok();
            let mut before = locked(&before);
            let said = before.as_ref().and_then(|before| live.live.said_since(before));
            *before = Some(live.live);
            Seen { part, said }
        }
    })
}

/// Pauses, resumes or retries, and goes back.
async fn control(console: &Console, form: &Form) -> Result<Answer, Refused> {
    let name = form.text("integration");
    let done = match form.text("action") {
        Some("pause") => console
            .service
            .pause(name, true)
            .await
            .map(|names| (names, "is paused: events are taken, nothing is sent")),
        Some("resume") => console.service.pause(name, false).await.map(|names| (names, "goes on")),
        Some("retry-now") => {
            console.service.retry_now(name).map(|names| (names, "is tried again now"))
        }
        _ => return Err(Refused::Bad("The action must be pause, resume or retry-now.".to_owned())),
    };
    let notice = match done {
        Ok((names, what)) => {
            obeyed(console, &names, form.text("action") == Some("pause")).await;
            Notice::good(format!("{} {what}.", names.join(", ")))
        }
        Err(error) => Notice::bad(format!("Nothing was changed: {error}.")),
    };
    Ok(back(console, "/", notice))
}

/// Waits until the forwarders say what was asked of them, so that the next page shows it; not for long, as one with a push
/// under way ends that first.
async fn obeyed(console: &Console, names: &[String], paused: bool) {
    let known = console.service.integrations();
    let lanes = known.iter().filter(|known| names.contains(&known.name)).flat_map(|it| &it.lanes);
    let mut reports: Vec<_> = lanes.map(|lane| lane.report.clone()).collect();
    let told = async {
        for report in &mut reports {
            // A forwarder that has ended says nothing more.
            drop(report.wait_for(|report| (report.state == State::Paused) == paused).await);
        }
    };
    // The page is alive: it shows later what it does not show now.
    drop(tokio::time::timeout(OBEYED_MAX, told).await);
}

/// To `path`, where `notice` is shown.
pub(super) fn back(console: &Console, path: &str, notice: Notice) -> Answer {
    let number = locked(&console.notices).leave(notice);
    let sign = if path.contains('?') { '&' } else { '?' };
    answer::see_other(&format!("{path}{sign}notice={number}"))
}

/// What surrounds a page.
pub(super) fn shell(
    console: &Console,
    title: &str,
    here: &'static str,
    status: &Status,
    asked: &Asked,
) -> Shell {
    let number = asked.query.text("notice").and_then(|number| number.parse().ok());
    let notice = number.and_then(|number| locked(&console.notices).read(number));
    Shell::new(title, here, status, notice)
}

async fn told(console: &Console, refused: Refused) -> Answer {
    let (status, title, text) = match refused {
        Refused::NotFound(text) => (StatusCode::NOT_FOUND, "Not found", text.to_owned()),
        Refused::Bad(text) => (StatusCode::BAD_REQUEST, "This cannot be done", text),
        Refused::Storage(error) => {
            let text = format!("The spool cannot be read: {error}. The daemon's log says more.");
            (StatusCode::INTERNAL_SERVER_ERROR, "The spool cannot be read", text)
        }
    };
    match console.service.status().await {
        Ok(known) => {
            let shell = Shell::new(title, "", &known, None);
            answer::html(
                status,
                &Message { shell, text, back: "/", back_text: "Back to the overview" },
            )
        }
        Err(_) => answer::plain(status, &text),
    }
}

/// Who has shown the token gets a session.
fn sign_in(console: &Console, form: &Form, cookie: &str) -> Answer {
    let shown = form.text("token").unwrap_or_default();
    if let Err(wait) = locked(&console.tries).take(console.begun.elapsed()) {
        let seconds = wait.as_secs() + 1;
        let problem = Some(format!("Too many wrong tokens: try again in {seconds} s."));
        let mut answer = answer::html(StatusCode::TOO_MANY_REQUESTS, &Login { problem });
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        return answer;
    }
    if !console.token.is(shown) {
        tracing::warn!("a wrong token was shown to the web console");
        let problem =
            Some("This is not the token. `pillarbox console` prints the right one.".to_owned());
        return answer::html(StatusCode::FORBIDDEN, &Login { problem });
    }
    locked(&console.tries).right();
    let mut answer = answer::see_other("/");
    match token_file::random_hex::<16>() {
        Ok(nonce) => renew(console, &mut answer, cookie, &nonce),
        Err(error) => tracing::error!(%error, "no session can be made"),
    }
    answer
}

/// Has the session last its whole time again; it stays the same one, so that signing out ends it however old its cookie is.
fn renew(console: &Console, answer: &mut Answer, cookie: &str, nonce: &str) {
    let value = console.token.session(nonce, clock::now());
    answer::set_cookie(answer, cookie, &value, session::SECONDS);
}

fn session_of(console: &Console, headers: &HeaderMap, cookie: &str) -> Option<Session> {
    let mut shown = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let value = shown.find_map(|header| session::cookie(header, cookie))?;
    let session = console.token.admits(value, clock::now())?;
    (!console.is_ended(&session)).then_some(session)
}

fn caller(headers: &HeaderMap) -> Caller<'_> {
    // One that is no text is there all the same, and is no loopback name and no origin of ours.
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let only_one = headers.get_all(HOST).iter().count() == 1;
    Caller {
        host: text(HOST.as_str()).filter(|_| only_one),
        origin: text(ORIGIN.as_str()),
        site: text("sec-fetch-site"),
        mode: text("sec-fetch-mode"),
        dest: text("sec-fetch-dest"),
    }
}

/// The form that a request brings.
async fn read(request: Request<Incoming>) -> Result<Form, Answer> {
    let too_large = || {
        let text = format!("a form has at most {BODY_BYTES_MAX} bytes: use the command line");
        closing(answer::plain(StatusCode::PAYLOAD_TOO_LARGE, &text))
    };
    if request.body().size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect();
    match tokio::time::timeout(READ_TIMEOUT, body).await {
        Ok(Ok(body)) => Ok(Form::read(&text(&body.to_bytes()))),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(closing(answer::plain(StatusCode::BAD_REQUEST, "the form is not whole"))),
        Err(_) => {
            let text = "the form did not arrive in time";
            Err(closing(answer::plain(StatusCode::REQUEST_TIMEOUT, text)))
        }
    }
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn not_allowed(allow: &'static str) -> Answer {
    let mut answer =
        answer::plain(StatusCode::METHOD_NOT_ALLOWED, "the console takes no such method");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    closing(answer)
}

/// The request's body has not been read: the connection ends.
fn closing(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}
