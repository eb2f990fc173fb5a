// SPDX-License-Identifier: LGPL-2.1-or-later
//! Lists of what may stand in a text of libxl's.

use serde_json::Value;

/// The values of a key that do not stand in the way.
pub(super) enum Allowed {
    Any,
    Only(&'static [&'static str]),
    /// All that such a text is not in.
    Without(&'static str),
    /// An object with such keys.
    Inside(Keys),
}

/// The keys of an object that may be there.
pub(super) type Keys = &'static [(&'static str, Allowed)];

/// What is wrong with a key that is not allowed, where there is more to say than
/// that it is not known.
pub(super) type Reasons = &'static [(&'static str, &'static str)];

/// A flag that is off, as libxl writes it.
pub(super) const OFF: Allowed = Allowed::Only(&["False"]);

/// Refuses an object with a key that stands in none of the lists, or with another
/// value than its list has. A key that is not there has its default.
pub(super) fn check_keys(
    object: &Value,
    lists: &[Keys],
    reasons: &[Reasons],
) -> Result<(), String> {
    for (key, value) in object.as_object().into_iter().flatten() {
        let mut listed = lists.iter().copied().flatten();
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let is_fine = match listed.find(|(name, _)| name == key) {
            Some((_, Allowed::Any)) => true,
            Some((_, Allowed::Only(values))) => values.contains(&text.as_str()),
            Some((_, Allowed::Without(part))) => !text.contains(part),
            Some((_, Allowed::Inside(keys))) => {
                check_keys(value, &[keys], reasons)?;
                value.is_object()
            }
            None => false,
        };
        if !is_fine && !is_empty(value) {
            let mut reasons = reasons.iter().copied().flatten();
            return Err(match reasons.find(|(name, _)| name == key) {
                Some((_, why)) => format!("{key} {why}"),
                None => format!("recovery is not made for {key}={text}"),
            });
        }
    }
    Ok(())
}

/// The elements of a list; none when it is not there.
pub(super) fn elements(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// Whether nothing was asked for.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}
