//! Values as Python writes them: str(), repr(), and json.dumps as transformers' `tojson` filter calls it.

use std::borrow::Cow;

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Error, ErrorKind, Value};

use crate::budget::{charge, size_of, Text, ITEM_BYTES};

/// Nesting beyond which a value is refused; Python stops at its recursion limit too.
const MAX_DEPTH: usize = 200;

pub fn str_of(value: &Value) -> Result<Cow<'_, str>, Error> {
    match value.as_str() {
        Some(text) => Ok(Cow::Borrowed(text)),
        None => {
            let mut out = Text::default();
            repr(value, &mut out, 0)?;
            out.finish().map(Cow::Owned)
        }
    }
}

/// Python's character classes differ from Unicode's White_Space by the four information separators.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn too_deep() -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("a value is nested deeper than {MAX_DEPTH} levels"))
}

fn is_float(value: &Value) -> bool {
    value.kind() == ValueKind::Number && !value.is_integer()
}

fn repr(value: &Value, out: &mut Text, depth: usize) -> Result<(), Error> {
    out.check()?;
    if depth > MAX_DEPTH {
        return Err(too_deep());
    }
    match value.kind() {
        ValueKind::Undefined if depth > 0 => out.push_str("Undefined"),
        ValueKind::String => repr_str(value.as_str().unwrap_or_default(), out),
        ValueKind::Number if is_float(value) => {
            out.push_str(&float(f64::try_from(value.clone())?, "inf", "nan"))
        }
        ValueKind::Seq | ValueKind::Iterable if value.len().is_some() => {
            let tuple = value.is_tuple();
            out.push(if tuple { '(' } else { '[' });
            for (i, item) in value.try_iter()?.enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                repr(&item, out, depth + 1)?;
            }
            out.push_str(if tuple && value.len() == Some(1) { "," } else { "" });
            out.push(if tuple { ')' } else { ']' });
        }
        ValueKind::Map => {
            out.push('{');
            for (i, key) in value.try_iter()?.enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                repr(&key, out, depth + 1)?;
                out.push_str(": ");
                repr(&value.get_item(&key)?, out, depth + 1)?;
            }
            out.push('}');
        }
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

fn repr_str(text: &str, out: &mut Text) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    push_escaped(text, out, |c| match c {
        '\n' => Some("\\n".to_string()),
        '\r' => Some("\\r".to_string()),
        '\t' => Some("\\t".to_string()),
        '\\' => Some("\\\\".to_string()),
        c if c == quote => Some(['\\', c].iter().collect()),
        c if is_printable(c) => None,
        c if (c as u32) < 0x100 => Some(format!("\\x{:02x}", c as u32)),
        c if (c as u32) < 0x10000 => Some(format!("\\u{:04x}", c as u32)),
        c => Some(format!("\\U{:08x}", c as u32)),
    });
    out.push(quote);
}

/// What needs no escape goes out in runs, not character by character.
fn push_escaped(text: &str, out: &mut Text, escape: impl Fn(char) -> Option<String>) {
    let mut start = 0;
    for (at, c) in text.char_indices() {
        if let Some(escaped) = escape(c) {
            out.push_str(&text[start..at]);
            out.push_str(&escaped);
            start = at + c.len_utf8();
        }
    }
    out.push_str(&text[start..]);
}

/// str.isprintable of one character. Rust's escape_debug leaves the same categories as they are; a character
/// after the first, because a combining mark at the start is escaped although it is printable.
fn is_printable(c: char) -> bool {
    (' '..='~').contains(&c) || ['a', c].iter().collect::<String>().escape_debug().nth(1) == Some(c)
}

/// float.__repr__: the shortest digits that read back the same, an exponent below 1e-4 and from 1e16.
fn float(value: f64, infinity: &str, nan: &str) -> String {
    if value.is_nan() {
        return nan.to_string();
    }
    if value.is_infinite() {
        return format!("{}{infinity}", if value < 0.0 { "-" } else { "" });
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let plain = value.to_string();
    if plain.contains('.') {
        plain
    } else {
        plain + ".0"
    }
}

struct Dumper {
    ensure_ascii: bool,
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
    out: Text,
}

/// The filter `tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub fn tojson(value: &Value, rest: Rest<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let option = |index: usize, name: &str| -> Result<Option<Value>, Error> {
        let given: Option<Value> = kwargs.get(name)?;
        Ok(rest.get(index).cloned().or(given).filter(|v| !v.is_none() && !v.is_undefined()))
    };
    let indent = option(1, "indent")?.map(indent_text).transpose()?;
    let separators = option(2, "separators")?;
    let mut dumper = Dumper {
        ensure_ascii: option(0, "ensure_ascii")?.is_some_and(|v| v.is_true()),
        item_separator: if indent.is_some() { "," } else { ", " }.to_string(),
        key_separator: ": ".to_string(),
        sort_keys: option(3, "sort_keys")?.is_some_and(|v| v.is_true()),
        indent,
        out: Text::default(),
    };
    kwargs.assert_all_used()?;
    if let Some(pair) = separators {
        let pair: Vec<String> = pair.try_iter()?.map(|v| v.to_string()).collect();
        let [item, key] = pair.as_slice() else {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                "tojson: separators must be a pair of strings",
            ));
        };
        (dumper.item_separator, dumper.key_separator) = (item.clone(), key.clone());
    }
    dumper.value(value, 0)?;
    dumper.out.finish().map(Value::from)
}

fn indent_text(indent: Value) -> Result<String, Error> {
    if let Some(text) = indent.as_str() {
        return Ok(text.to_string());
    }
    let width = i64::try_from(indent)?;
    if width > 64 {
        return Err(Error::new(ErrorKind::InvalidOperation, format!("tojson: indent is {width}, limit 64")));
    }
    Ok(" ".repeat(width.max(0) as usize))
}

impl Dumper {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.out.check()?;
        if depth > MAX_DEPTH {
            return Err(too_deep());
        }
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.out.push_str(&number(value)?),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => self.list(value, depth)?,
            ValueKind::Map => self.map(value, depth)?,
            other => {
                return Err(Error::new(
                    ErrorKind::BadSerialization,
                    format!("tojson: {other} is not JSON serializable"),
                ))
            }
        }
        Ok(())
    }

    fn list(&mut self, list: &Value, depth: usize) -> Result<(), Error> {
        self.out.push('[');
        let mut empty = true;
        for item in list.try_iter()? {
            self.begin_item(empty, depth);
            empty = false;
            self.value(&item, depth + 1)?;
        }
        self.end(empty, depth, ']');
        Ok(())
    }

    fn map(&mut self, map: &Value, depth: usize) -> Result<(), Error> {
        charge(size_of(map).saturating_mul(ITEM_BYTES))?;
        let mut keys: Vec<Value> = map.try_iter()?.collect();
        if self.sort_keys {
            keys.sort();
        }
        self.out.push('{');
        let mut empty = true;
        for key in keys {
            self.begin_item(empty, depth);
            empty = false;
            match key.kind() {
                ValueKind::String => self.string(key.as_str().unwrap_or_default()),
                ValueKind::None => self.string("null"),
                ValueKind::Bool => self.string(if key.is_true() { "true" } else { "false" }),
                ValueKind::Number => self.string(&number(&key)?),
                other => {
                    return Err(Error::new(
                        ErrorKind::BadSerialization,
                        format!("tojson: a key must be a string, number, boolean or none, not {other}"),
                    ))
                }
            }
            self.out.push_str(&self.key_separator);
            self.value(&map.get_item(&key)?, depth + 1)?;
        }
        self.end(empty, depth, '}');
        Ok(())
    }

    fn begin_item(&mut self, first: bool, depth: usize) {
        if !first {
            self.out.push_str(&self.item_separator);
        }
        self.new_line(depth + 1);
    }

    fn end(&mut self, empty: bool, depth: usize, bracket: char) {
        if !empty {
            self.new_line(depth);
        }
        self.out.push(bracket);
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            for _ in 0..depth {
                self.out.push_str(indent);
            }
        }
    }

    fn string(&mut self, text: &str) {
        let ensure_ascii = self.ensure_ascii;
        self.out.push('"');
        push_escaped(text, &mut self.out, |c| match c {
            '"' => Some("\\\"".to_string()),
            '\\' => Some("\\\\".to_string()),
            '\n' => Some("\\n".to_string()),
            '\r' => Some("\\r".to_string()),
            '\t' => Some("\\t".to_string()),
            '\u{8}' => Some("\\b".to_string()),
            '\u{c}' => Some("\\f".to_string()),
            '\0'..='\x1f' => Some(format!("\\u{:04x}", c as u32)),
            c if ensure_ascii && !(' '..='~').contains(&c) => {
                Some(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect())
            }
            _ => None,
        });
        self.out.push('"');
    }
}

fn number(value: &Value) -> Result<String, Error> {
    if is_float(value) {
        return Ok(float(f64::try_from(value.clone())?, "Infinity", "NaN"));
    }
    Ok(value.to_string())
}
