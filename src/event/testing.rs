//! JSON texts for property tests: written as text, so that bytes can be compared, not only values.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// A JSON text without whitespace around it: long integers, exponents, escapes, whitespace inside, nesting.
pub(crate) fn json() -> impl Strategy<Value = String> {
    leaf().prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            (vec(inner.clone(), 0..5), space()).prop_map(|(items, space)| {
                format!("[{space}{}{space}]", items.join(&format!("{space},")))
            }),
            (vec((string(), inner), 0..5), space()).prop_map(|(members, space)| {
                let members: Vec<_> = members
                    .into_iter()
                    .map(|(key, value)| format!("{space}{key}{space}:{space}{value}"))
                    .collect();
                format!("{{{}{space}}}", members.join(","))
            }),
        ]
    })
}

/// A JSON string in its quotes.
pub(crate) fn string() -> impl Strategy<Value = String> {
    let plain = "[a-zA-Z0-9 _é漢😀/{}\\[\\]:,-]{1,4}";
    let escape = select(vec![
        "\\\"",
        "\\\\",
        "\\/",
        "\\n",
        "\\t",
        "\\b",
        "\\u00e9",
        "\\u0000",
        "\\ud83d\\ude00",
        "\\uD834\\uDD1E",
        "NaN",
        "Infinity",
    ])
    .prop_map(str::to_owned);
    vec(prop_oneof![3 => plain, 1 => escape], 0..6)
        .prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn leaf() -> impl Strategy<Value = String> {
    let word = select(vec!["null", "true", "false", "79.00", "-0", "1e999", "{}", "[]", "\"\""]);
    prop_oneof![
        word.prop_map(str::to_owned),
        "-?[1-9][0-9]{0,30}",
        "-?(0|[1-9][0-9]{0,5})\\.[0-9]{1,25}",
        "-?(0|[1-9][0-9]?)(\\.[0-9]{1,3})?[eE][+-]?[0-9]{1,4}",
        string(),
    ]
}

fn space() -> impl Strategy<Value = &'static str> {
    select(vec!["", "", " ", "\n\t", "\r\n  "])
}
