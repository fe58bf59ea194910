//! What the engine panics with while it opens: kept from the log, and told as the reason instead.
//!
//! sled panics on some corruption, on the thread that opens or on one of its own. Its text and a backtrace say nothing to
//! an operator, and whoever ends the process on a panic of sled's threads must not do so before the store is open.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::{Mutex, Once, PoisonError};

/// How many opens are under way, and what panicked on threads of the engine meanwhile.
static WATCHES: Mutex<(usize, Vec<String>)> = Mutex::new((0, Vec::new()));

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `open`; a panic within it, or on one of the engine's threads meanwhile, is the error, in its words.
pub(super) fn watched<T>(open: impl FnOnce() -> T) -> Result<T, String> {
    install();
    let begun = {
        let mut watches = WATCHES.lock().unwrap_or_else(PoisonError::into_inner);
        watches.0 += 1;
        watches.1.len()
    };
    WATCHED.set(true);
    let opened = catch_unwind(AssertUnwindSafe(open));
    WATCHED.set(false);
    let elsewhere = {
        let mut watches = WATCHES.lock().unwrap_or_else(PoisonError::into_inner);
        watches.0 -= 1;
        let told = watches.1.get(begun).cloned();
        if watches.0 == 0 {
            watches.1.clear();
        }
        told
    };
    match (opened, elsewhere) {
        (Ok(opened), None) => Ok(opened),
        (_, Some(told)) => Err(told),
        (Err(panic), None) => Err(text(panic.as_ref()).to_owned()),
    }
}

/// Once for the process: a hook before the one in force.
fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !kept(panic) {
                before(panic);
            }
        }));
    });
}

fn kept(panic: &PanicHookInfo<'_>) -> bool {
    if WATCHED.get() {
        return true;
    }
    let engine = std::thread::current().name().is_some_and(|name| name.contains("sled"));
    let mut watches = WATCHES.lock().unwrap_or_else(PoisonError::into_inner);
    let keep = engine && watches.0 > 0;
    if keep {
        watches.1.push(text(panic.payload()).to_owned());
    }
    keep
}

/// What the spool failed of, where a step of its own panicked.
pub(super) fn told(panic: &(dyn std::any::Any + Send)) -> String {
    format!("it panicked: {}", text(panic))
}

/// The first line of a panic's message.
fn text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.and_then(|text| text.lines().next()).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_within_is_the_error_in_its_words() {
        assert_eq!(watched(|| 7), Ok(7));
        assert_eq!(watched(|| panic!("one\ntwo")), Err::<(), _>("one".to_owned()));
    }
}
