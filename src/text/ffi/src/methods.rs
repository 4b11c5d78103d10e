//! Methods of Python's str, dict and list that templates call, beyond or different from what minijinja-contrib has.

use minijinja::value::{from_args, Kwargs, Rest, Tuple, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

use crate::budget::{charge, size_of, work, Text, ITEM_BYTES, LIST_BYTES};
use crate::python::{is_space, str_of};

type Result<T> = std::result::Result<T, Error>;

pub fn call(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value> {
    charge_method(value, method)?;
    let result = match value.as_str() {
        Some(text) => on_string(text, method, args)?,
        None => match (value.kind(), method) {
            (ValueKind::Map | ValueKind::Seq, "copy") => Some(value.clone()),
            (ValueKind::Seq, "index") => Some(index_of(value, args)?),
            _ => None,
        },
    };
    match result {
        Some(result) => Ok(result),
        None if method == "format" => Err(Error::from(ErrorKind::UnknownMethod)),
        None => unknown_method_callback(state, value, method, args),
    }
}

/// What a method makes of its text, or reads of it; the others charge their own way.
fn charge_method(value: &Value, method: &str) -> Result<()> {
    let size = size_of(value);
    match method {
        "upper" | "lower" | "title" | "capitalize" | "swapcase" => charge(size.saturating_mul(3)),
        "strip" | "lstrip" | "rstrip" | "removeprefix" | "removesuffix" | "partition" | "rpartition" => {
            charge(size + LIST_BYTES)
        }
        "splitlines" => {
            let text = value.as_str().unwrap_or_default();
            charge(size.saturating_add(2 * ITEM_BYTES * (1 + text.matches('\n').count())))
        }
        _ => work(size),
    }
}

fn bad_value(message: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.to_string())
}

fn index_of(list: &Value, args: &[Value]) -> Result<Value> {
    let (wanted,): (&Value,) = from_args(args)?;
    match list.try_iter()?.position(|item| item == *wanted) {
        Some(index) => Ok(Value::from(index)),
        None => Err(bad_value("list.index: the value is not in the list")),
    }
}

fn on_string(s: &str, method: &str, args: &[Value]) -> Result<Option<Value>> {
    let one = || -> Result<&str> { from_args::<(&str,)>(args).map(|(text,)| text) };
    Ok(Some(match method {
        "strip" => Value::from(strip(s, args, true, true)?),
        "lstrip" => Value::from(strip(s, args, true, false)?),
        "rstrip" => Value::from(strip(s, args, false, true)?),
        "split" => split(s, args, false)?,
        "rsplit" => split(s, args, true)?,
        "replace" => replace(s, args)?,
        "join" => join(s, args)?,
        "removeprefix" => Value::from(s.strip_prefix(one()?).unwrap_or(s)),
        "removesuffix" => Value::from(s.strip_suffix(one()?).unwrap_or(s)),
        "partition" => parts(s, one()?, s.find(one()?), false),
        "rpartition" => parts(s, one()?, s.rfind(one()?), true),
        "index" => match s.find(one()?) {
            Some(at) => Value::from(s[..at].chars().count()),
            None => return Err(bad_value("str.index: the text is not in the string")),
        },
        "isspace" => Value::from(!s.is_empty() && s.chars().all(is_space)),
        "swapcase" => {
            s.chars()
                .map(|c| {
                    if c.is_uppercase() {
                        c.to_lowercase().to_string()
                    } else {
                        c.to_uppercase().to_string()
                    }
                })
                .collect::<String>()
                .into()
        }
        _ => return Ok(None),
    }))
}

fn strip(s: &str, args: &[Value], left: bool, right: bool) -> Result<String> {
    let (chars,): (Option<&Value>,) = from_args(args)?;
    let chars: Option<Vec<char>> = chars.and_then(|v| v.as_str()).map(|text| text.chars().collect());
    let drop = |c: char| chars.as_ref().map_or_else(|| is_space(c), |set| set.contains(&c));
    let s = if left { s.trim_start_matches(drop) } else { s };
    let s = if right { s.trim_end_matches(drop) } else { s };
    Ok(s.to_string())
}

fn split(s: &str, args: &[Value], from_right: bool) -> Result<Value> {
    let (rest, kwargs): (Rest<Value>, Kwargs) = from_args(args)?;
    let named = |index: usize, name: &str| -> Result<Option<Value>> {
        let given: Option<Value> = kwargs.get(name)?;
        Ok(rest.get(index).cloned().or(given).filter(|v| !v.is_none() && !v.is_undefined()))
    };
    let separator = named(0, "sep")?;
    let limit = named(1, "maxsplit")?.map(i64::try_from).transpose()?.unwrap_or(-1);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    kwargs.assert_all_used()?;
    charge(s.len() + LIST_BYTES)?;
    let pieces: Vec<&str> = match &separator {
        Some(v) => match v.as_str() {
            Some("") | None => return Err(bad_value("str.split: the separator must be a non-empty string")),
            Some(sep) if from_right => {
                charge_pieces(s.rmatches(sep).take(limit).count())?;
                let mut pieces: Vec<&str> = s.rsplitn(limit.saturating_add(1), sep).collect();
                pieces.reverse();
                pieces
            }
            Some(sep) => {
                charge_pieces(s.matches(sep).take(limit).count())?;
                s.splitn(limit.saturating_add(1), sep).collect()
            }
        },
        None => {
            charge_pieces(s.chars().filter(|c| is_space(*c)).take(limit).count())?;
            if from_right {
                split_spaces_right(s, limit)
            } else {
                split_spaces(s, limit)
            }
        }
    };
    Ok(Value::from(pieces.into_iter().map(Value::from).collect::<Vec<_>>()))
}

/// Room for the pieces of so many cuts, as slices and as values.
fn charge_pieces(cuts: usize) -> Result<()> {
    charge(cuts.saturating_add(1).saturating_mul(2 * ITEM_BYTES))
}

fn split_spaces(s: &str, limit: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = s.trim_start_matches(is_space);
    while !rest.is_empty() {
        let cut = if pieces.len() < limit { rest.find(is_space) } else { None };
        let Some(cut) = cut else {
            // What is left after the last cut keeps its trailing spaces.
            pieces.push(rest);
            break;
        };
        pieces.push(&rest[..cut]);
        rest = rest[cut..].trim_start_matches(is_space);
    }
    pieces
}

fn split_spaces_right(s: &str, limit: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = s.trim_end_matches(is_space);
    while !rest.is_empty() {
        let cut =
            if pieces.len() < limit { rest.char_indices().rev().find(|(_, c)| is_space(*c)) } else { None };
        let Some((at, space)) = cut else {
            pieces.push(rest);
            break;
        };
        pieces.push(&rest[at + space.len_utf8()..]);
        rest = rest[..at].trim_end_matches(is_space);
    }
    pieces.reverse();
    pieces
}

/// str.splitlines()
pub fn lines(s: &str) -> impl Iterator<Item = &str> {
    let ends = |c: char| {
        matches!(c, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    let mut rest = s;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some((at, c)) = rest.char_indices().find(|(_, c)| ends(*c)) else {
            return Some(std::mem::take(&mut rest));
        };
        let line = &rest[..at];
        let end = at + c.len_utf8();
        rest = &rest[end + usize::from(c == '\r' && rest[end..].starts_with('\n'))..];
        Some(line)
    })
}

fn replace(s: &str, args: &[Value]) -> Result<Value> {
    let (old, new, count): (&Value, &Value, Option<i64>) = from_args(args)?;
    let (old, new) = (str_of(old)?, str_of(new)?);
    let count = count.and_then(|c| usize::try_from(c).ok()).unwrap_or(usize::MAX);
    let found = s.matches(&*old).count().min(count);
    charge(s.len().saturating_add(found.saturating_mul(new.len())))?;
    Ok(Value::from(s.replacen(&*old, &new, count)))
}

fn join(separator: &str, args: &[Value]) -> Result<Value> {
    let (items,): (&Value,) = from_args(args)?;
    let mut out = Text::default();
    for (i, item) in items.try_iter()?.enumerate() {
        let Some(text) = item.as_str() else {
            return Err(bad_value(&format!("str.join: item {i} is not a string but {}", item.kind())));
        };
        out.push_str(if i > 0 { separator } else { "" });
        out.push_str(text);
        out.check()?;
    }
    out.finish().map(Value::from)
}

fn parts(s: &str, separator: &str, at: Option<usize>, from_right: bool) -> Value {
    let (before, middle, after) = match at {
        Some(at) => (&s[..at], separator, &s[at + separator.len()..]),
        None if from_right => ("", "", s),
        None => (s, "", ""),
    };
    Value::from(Tuple::from([before, middle, after].map(Value::from)))
}
