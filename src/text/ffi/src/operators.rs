//! Operators that stand in for minijinja's: they compute as Python does and keep to the budget.

use minijinja::value::{Rest, Tuple, ValueKind};
use minijinja::{Environment, ErrorKind, Value};

use crate::budget::{charge, size_of, work, ITEM_BYTES, LIST_BYTES};
use crate::python::str_of;

type Jinja<T> = std::result::Result<T, minijinja::Error>;

/// The names that compiled.rs calls; no template can spell them.
pub fn register(env: &mut Environment) {
    env.add_function("operator +", add);
    env.add_function("operator *", multiply);
    env.add_function("operator ~", concat);
    env.add_function("operator []", |items: Rest<Value>| new_list(items.0, false));
    env.add_function("operator ()", |items: Rest<Value>| new_list(items.0, true));
    env.add_function("operator {}", new_map);
    env.add_function("operator slice", slice);
    env.add_function("operator in", |state: &mut minijinja::State, item: &Value, container: &Value| {
        work(size_of(container))?;
        minijinja::tests::is_in(state, item, container)
    });
    env.add_function("operator ==", |a: &Value, b: &Value| both(a, b).map(|()| a == b));
    env.add_function("operator !=", |a: &Value, b: &Value| both(a, b).map(|()| a != b));
    env.add_function("operator <", |a: &Value, b: &Value| both(a, b).map(|()| a < b));
    env.add_function("operator <=", |a: &Value, b: &Value| both(a, b).map(|()| a <= b));
    env.add_function("operator >", |a: &Value, b: &Value| both(a, b).map(|()| a > b));
    env.add_function("operator >=", |a: &Value, b: &Value| both(a, b).map(|()| a >= b));
}

/// The work of comparing.
fn both(a: &Value, b: &Value) -> Jinja<()> {
    if is_number(a) || is_number(b) {
        return Ok(());
    }
    work(size_of(a).min(size_of(b)))
}
fn impossible(operator: &str, a: &Value, b: &Value) -> minijinja::Error {
    minijinja::Error::new(
        ErrorKind::InvalidOperation,
        format!("unsupported operand types for {operator}: {} and {}", a.kind(), b.kind()),
    )
}

fn is_number(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Number | ValueKind::Bool)
}

fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

fn integer(value: &Value) -> Option<i128> {
    match value.kind() {
        ValueKind::Bool => Some(value.is_true() as i128),
        _ if value.is_integer() => i128::try_from(value.clone()).ok(),
        _ => None,
    }
}

fn number_op(
    operator: &str,
    a: &Value,
    b: &Value,
    on_integers: fn(i128, i128) -> Option<i128>,
    on_floats: fn(f64, f64) -> f64,
) -> Jinja<Value> {
    if let (Some(x), Some(y)) = (integer(a), integer(b)) {
        let too_big =
            || minijinja::Error::new(ErrorKind::InvalidOperation, format!("{x} {operator} {y} is too big"));
        let result = on_integers(x, y).ok_or_else(too_big)?;
        return Ok(i64::try_from(result).map(Value::from).unwrap_or_else(|_| Value::from(result)));
    }
    let float = |v: &Value| match integer(v) {
        Some(i) => Ok(i as f64),
        None => f64::try_from(v.clone()),
    };
    Ok(Value::from(on_floats(float(a)?, float(b)?)))
}

pub fn add(a: &Value, b: &Value) -> Jinja<Value> {
    if let (Some(x), Some(y)) = (a.as_str(), b.as_str()) {
        charge(x.len() + y.len())?;
        return Ok(Value::from([x, y].concat()));
    }
    if is_number(a) && is_number(b) {
        return number_op("+", a, b, i128::checked_add, |x, y| x + y);
    }
    if is_list(a) && is_list(b) && a.is_tuple() == b.is_tuple() {
        charge_list(size_of(a) + size_of(b))?;
        return Ok(list(a.try_iter()?.chain(b.try_iter()?).collect(), a.is_tuple()));
    }
    Err(impossible("+", a, b))
}

pub fn multiply(a: &Value, b: &Value) -> Jinja<Value> {
    if is_number(a) && is_number(b) {
        return number_op("*", a, b, i128::checked_mul, |x, y| x * y);
    }
    let (sequence, count) = if is_number(a) { (b, a) } else { (a, b) };
    let count = integer(count).ok_or_else(|| impossible("*", a, b))?.clamp(0, 1 << 40) as usize;
    if let Some(text) = sequence.as_str() {
        charge(text.len().saturating_mul(count))?;
        return Ok(Value::from(text.repeat(count)));
    }
    if !is_list(sequence) {
        return Err(impossible("*", a, b));
    }
    let once: Vec<Value> = sequence.try_iter()?.collect();
    charge_list(once.len().saturating_mul(count.saturating_add(1)))?;
    let repetitions = if once.is_empty() { 0 } else { count };
    Ok(list(std::iter::repeat_n(once, repetitions).flatten().collect(), sequence.is_tuple()))
}

fn concat(a: &Value, b: &Value) -> Jinja<Value> {
    let (a, b) = (str_of(a)?, str_of(b)?);
    charge(a.len() + b.len())?;
    Ok(Value::from([a, b].concat()))
}

fn charge_list(items: usize) -> Jinja<()> {
    charge(items.saturating_mul(ITEM_BYTES).saturating_add(LIST_BYTES))
}

fn new_list(items: Vec<Value>, tuple: bool) -> Jinja<Value> {
    charge_list(items.len())?;
    Ok(list(items, tuple))
}

/// Of key, value, key, value, ...
fn new_map(items: Rest<Value>) -> Jinja<Value> {
    charge_list(4 * items.len())?;
    Ok(Value::from_pairs(items.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()))))
}

fn list(items: Vec<Value>, tuple: bool) -> Value {
    if tuple {
        Value::from(Tuple::from(items))
    } else {
        Value::from(items)
    }
}

/// value[start:stop:step]
fn slice(value: &Value, start: &Value, stop: &Value, step: &Value) -> Jinja<Value> {
    let bound = |v: &Value| if v.is_none() { Ok(None) } else { i64::try_from(v.clone()).map(Some) };
    let (start, stop, step) = (bound(start)?, bound(stop)?, bound(step)?.unwrap_or(1));
    if step == 0 {
        return Err(minijinja::Error::new(ErrorKind::InvalidOperation, "cannot slice by step size of 0"));
    }
    if let Some(text) = value.as_str() {
        work(text.len())?;
        let picked = indices(text.chars().count(), start, stop, step);
        if step == 1 {
            let from = text.char_indices().nth(picked.first).map_or(text.len(), |(at, _)| at);
            let rest = &text[from..];
            let piece = &rest[..rest.char_indices().nth(picked.count).map_or(rest.len(), |(at, _)| at)];
            charge(piece.len())?;
            return Ok(Value::from(piece));
        }
        charge(4 * text.len())?;
        let chars: Vec<char> = text.chars().collect();
        return Ok(Value::from(picked.map(|i| chars[i]).collect::<String>()));
    }
    if value.is_undefined() || value.is_none() {
        return new_list(Vec::new(), false);
    }
    if !is_list(value) {
        let message = format!("value of type {} cannot be sliced", value.kind());
        return Err(minijinja::Error::new(ErrorKind::InvalidOperation, message));
    }
    charge_list(2 * size_of(value))?;
    let items: Vec<Value> = value.try_iter()?.collect();
    let picked = indices(items.len(), start, stop, step);
    Ok(list(picked.map(|i| items[i].clone()).collect(), value.is_tuple()))
}

/// The indices that Python's slice picks from `len` items.
struct Indices {
    first: usize,
    step: i64,
    count: usize,
}

fn indices(len: usize, start: Option<i64>, stop: Option<i64>, step: i64) -> Indices {
    let len = len as i64;
    let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let clamp = |at: i64| if at < 0 { (at + len).max(low) } else { at.min(high) };
    let start = start.map_or(if step > 0 { low } else { high }, clamp);
    let stop = stop.map_or(if step > 0 { high } else { low }, clamp);
    let distance = if step > 0 { stop - start } else { start - stop };
    let stride = step.unsigned_abs().min(1 << 40) as i64;
    let count = if distance > 0 { (distance + stride - 1) / stride } else { 0 };
    Indices { first: start.max(0) as usize, step: step.signum() * stride, count: count as usize }
}

impl Iterator for Indices {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.count == 0 {
            return None;
        }
        let index = self.first;
        self.count -= 1;
        self.first = (index as i64 + self.step).max(0) as usize;
        Some(index)
    }
}
