//! Writes a record: the exact bytes that will be pushed, made once and never parsed again.
//!
//! ```text
//! {"@type","id","timestamp","event_type","identity_email" if known,"properties":{…}}
//! ```
//!
//! `properties` are the event's, in their order and under their new names, then `page_url` from
//! `context.page.url` where it is given and the event has no `page_url` of its own, then those of the event's table.
//! A name that the table gives belongs to the table: no other property is sent under it.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::identity::Identity;
use super::rules::{Renames, Shape};
use super::table::{EVENT_TYPE_CHARS_MAX, Table, write_constant};
use crate::event::Event;
use crate::event::object::Object;
use crate::event::value::{self, ObjectWriter};

/// The `@type` of every record that is made here.
pub const CUSTOM_EVENT: &str = "custom_event";

/// The property whose items have properties of their own.
const PRODUCTS: &str = "products";
const PAGE_URL: &str = "page_url";

/// What a record has beside its properties and ids, rounded up: one allocation is nearly always enough.
const FRAME_BYTES: usize = 320;

/// One record of upstream, ready to be queued: a [`CUSTOM_EVENT`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The person's e-mail address, where it is known: it chooses the lane.
    pub identity_email: Option<String>,
    /// The JSON that is pushed.
    pub bytes: Vec<u8>,
    /// Whether its `event_type` is so long that Ometria cuts it.
    pub event_type_truncated: bool,
}

/// The record of `event` in `shape`.
pub(super) fn write(
    event: &Event<'_>,
    shape: &Shape<'_>,
    identity: &Identity<'_>,
    identity_email: Option<String>,
    fresh_id: impl FnOnce() -> String,
) -> Record {
    let id = event.message_id.as_deref().map_or_else(|| fresh_id().into(), Cow::Borrowed);
    let page_url = event.context.member("page", "url");
    let page_url_bytes = page_url.map_or(0, |url| url.get().len());
    let capacity = FRAME_BYTES + id.len() + event.properties.json_bytes() + page_url_bytes;
    let mut bytes = Vec::with_capacity(capacity);
    let mut record = ObjectWriter::new(&mut bytes);
    record.text("@type", CUSTOM_EVENT);
    record.text("id", &id);
    let time = event.time.to_bytes();
    record.text("timestamp", std::str::from_utf8(&time).unwrap_or_default());
    record.text("event_type", &shape.event_type);
    if let Some(email) = &identity_email {
        record.text("identity_email", email);
    }
    let mut properties = ObjectWriter::new(record.key("properties"));
    if shape.keeps_unmapped() {
        write_unmapped(&mut properties, &event.properties, page_url, shape);
    }
    if let Some(table) = shape.table {
        table.write(&mut properties, event, identity);
    }
    properties.close();
    record.close();
    let event_type_truncated = is_truncated(&shape.event_type);
    Record { identity_email, bytes, event_type_truncated }
}

fn is_truncated(event_type: &str) -> bool {
    event_type.len() > EVENT_TYPE_CHARS_MAX && event_type.chars().count() > EVENT_TYPE_CHARS_MAX
}

/// Writes the properties that no source of the event's table names.
fn write_unmapped(
    writer: &mut ObjectWriter<'_>,
    properties: &Object<'_>,
    page_url: Option<&RawValue>,
    shape: &Shape<'_>,
) {
    for (key, value) in properties.iter() {
        let Some(name) = shape.name(key, properties) else { continue };
        if let Some(constant) = shape.table.and_then(|table| table.instead(name, value)) {
            write_constant(writer, name, constant);
        } else if key == PRODUCTS && !shape.renames.is_empty() {
            write_products(writer.key(key), value, shape.renames);
        } else {
            writer.raw(name, value);
        }
    }
    let free = |table: &Table| !table.gives(PAGE_URL) && !table.moves_page_url();
    if let Some(url) = page_url
        && properties.member(PAGE_URL).is_none()
        && shape.table.is_none_or(free)
    {
        match shape.table.and_then(|table| table.instead(PAGE_URL, url)) {
            Some(constant) => write_constant(writer, PAGE_URL, constant),
            None => writer.raw(PAGE_URL, url),
        }
    }
}

/// Writes `products` with the names in each product changed. What needs no change, and what is no array of
/// objects, is written as it stands.
fn write_products(out: &mut Vec<u8>, products: &RawValue, renames: Renames) {
    let begin = out.len();
    let mut changed = false;
    out.push(b'[');
    for (at, item) in value::array(products).unwrap_or_default().into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        changed |= write_product(out, item, renames);
    }
    out.push(b']');
    if !changed {
        out.truncate(begin);
        out.extend_from_slice(products.get().as_bytes());
    }
}

/// Returns whether a name was changed.
fn write_product(out: &mut Vec<u8>, item: &RawValue, renames: Renames) -> bool {
    let product = value::object(item).unwrap_or_default();
    if product.iter().all(|(key, _)| renames.name(key, &product) == key) {
        out.extend_from_slice(item.get().as_bytes());
        return false;
    }
    let mut writer = ObjectWriter::new(out);
    for (key, value) in product.iter() {
        writer.raw(renames.name(key, &product), value);
    }
    writer.close();
    true
}
