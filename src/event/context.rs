//! The context of an event: its own, over that of the batch it came in.

use serde_json::value::RawValue;

use super::object::Object;
use super::value;

/// Looks a key up in the event's own context, then in the batch's.
///
/// The two are never copied into one: a batch's context is shared by all of its events. The merge is by key:
/// a `page` or `traits` object of the event's own wins whole over the batch's.
#[derive(Clone, Debug, Default)]
pub struct Context<'a> {
    own: Object<'a>,
    shared: Option<&'a Object<'a>>,
}

impl<'a> Context<'a> {
    /// The context `own`, over `shared`.
    #[must_use]
    pub fn new(own: Object<'a>, shared: Option<&'a Object<'a>>) -> Context<'a> {
        Context { own, shared }
    }

    /// The value of `key`; a `null` reads as absent, so that of the batch shows through.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.own.get(key).or_else(|| self.shared?.get(key))
    }

    /// The value of `member` in the object under `key`; `null` and a value of another kind read as absent.
    #[must_use]
    pub fn member(&self, key: &str, member: &str) -> Option<&'a RawValue> {
        self.get(key).and_then(|object| value::member(object, member))
    }

    /// The object under `key`; a value of another kind reads as absent.
    #[must_use]
    pub fn object(&self, key: &str) -> Option<Object<'a>> {
        self.get(key).and_then(value::object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_events_own_keys_win_whole() {
        let shared = Object::parse(r#"{"a":1,"b":2,"page":{"url":"u","title":"t"}}"#).unwrap();
        let own = Object::parse(r#"{"a":9,"b":null,"page":{"url":"v"},"c":[]}"#).unwrap();
        let context = Context::new(own, Some(&shared));
        let read = |key: &str| context.get(key).map(RawValue::get);
        assert_eq!(read("a"), Some("9"));
        assert_eq!(read("b"), Some("2"));
        assert_eq!(read("page"), Some(r#"{"url":"v"}"#));
        assert_eq!(read("d"), None);
        assert!(context.object("page").is_some() && context.object("c").is_none());
    }
}
