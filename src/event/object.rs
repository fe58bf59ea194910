//! JSON objects with their values' bytes.

/// Merges two JSON objects.
#[must_use]
pub fn merge(old: Option<&[u8]>, new: &[u8]) -> Vec<u8> {
    let read = |bytes| serde_json::from_slice::<serde_json::Map<_, _>>(bytes).unwrap_or_default();
    let mut merged: serde_json::Map<String, serde_json::Value> = old.map(read).unwrap_or_default();
    merged.extend(read(new));
    serde_json::to_vec(&merged).unwrap_or_default()
}
