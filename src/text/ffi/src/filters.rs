//! The environment of a template: its filters, tests and functions, all within the budget.

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{filters, functions, AutoEscape, Environment, State, UndefinedBehavior, Value};

use crate::budget::{charge, size_of, work, Text, FUEL, ITEM_BYTES, LIST_BYTES};
use crate::methods;
use crate::operators::{self, add, multiply};
use crate::python::{self, str_of};

type Jinja<T> = std::result::Result<T, minijinja::Error>;

pub fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_fuel(Some(FUEL));
    env.set_unknown_method_callback(methods::call);
    env.set_formatter(|out, _state, value| {
        let text = str_of(value)?;
        charge(text.len())?;
        out.write_str(&text).map_err(minijinja::Error::from)
    });
    operators::register(&mut env);
    add_text_filters(&mut env);
    add_bounded(&mut env);
    env.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::String | ValueKind::Undefined)
    });
    // Unbounded, and used by no published template; chain, zip, lines and split are not Jinja's.
    for name in ["center", "format", "wordwrap", "batch", "slice", "pprint", "chain", "zip", "lines", "split"]
    {
        env.remove_filter(name);
    }
    env.remove_global("debug");
    env
}

fn add_text_filters(env: &mut Environment) {
    env.add_filter("tojson", python::tojson);
    env.add_filter("string", |value: &Value| str_of(value).map(Value::from));
    env.add_filter("trim", |state: &mut State, value: &Value, rest: Rest<Value>| {
        methods::call(state, &Value::from(str_of(value)?), "strip", &rest)
    });
    env.add_filter("replace", |state: &mut State, value: &Value, rest: Rest<Value>| {
        methods::call(state, &Value::from(str_of(value)?), "replace", &rest)
    });
    env.add_filter("join", join);
    env.add_filter("indent", indent);
    env.add_filter("sum", sum);
}

/// minijinja's own, whose results are at most so many bytes for a byte of text they are given, and one item for an
/// item (or for a character).
fn add_bounded(env: &mut Environment) {
    let text = |env: &mut Environment, name: &'static str, filter: Value, growth: usize| {
        env.add_filter(name, move |state: &mut State, args: Rest<Value>, kwargs: Kwargs| {
            charge(growth.saturating_mul(args.first().map_or(0, size_of)))?;
            filter.call(state, &together(args, kwargs))
        });
    };
    text(env, "upper", Value::from_function(filters::upper), 3);
    text(env, "lower", Value::from_function(filters::lower), 3);
    text(env, "title", Value::from_function(filters::title), 3);
    text(env, "capitalize", Value::from_function(filters::capitalize), 3);
    text(env, "escape", Value::from_function(filters::escape), 6);
    text(env, "e", Value::from_function(filters::escape), 6);
    text(env, "safe", Value::from_function(filters::safe), 1);
    let items = LIST_BYTES + ITEM_BYTES;
    text(env, "dictsort", Value::from_function(filters::dictsort), items);
    text(env, "items", Value::from_function(filters::items), items);
    text(env, "reverse", Value::from_function(filters::reverse), ITEM_BYTES);
    text(env, "sort", Value::from_function(filters::sort), 2 * ITEM_BYTES);
    text(env, "list", Value::from_function(filters::list), ITEM_BYTES);
    text(env, "select", Value::from_function(filters::select), ITEM_BYTES);
    text(env, "reject", Value::from_function(filters::reject), ITEM_BYTES);
    text(env, "selectattr", Value::from_function(filters::selectattr), ITEM_BYTES);
    text(env, "rejectattr", Value::from_function(filters::rejectattr), ITEM_BYTES);
    text(env, "map", Value::from_function(filters::map), ITEM_BYTES);
    text(env, "groupby", Value::from_function(filters::groupby), 2 * items);
    text(env, "unique", Value::from_function(filters::unique), items);
    for (name, filter) in [
        ("length", Value::from_function(filters::length)),
        ("count", Value::from_function(filters::length)),
        ("min", Value::from_function(filters::min)),
        ("max", Value::from_function(filters::max)),
        ("last", Value::from_function(filters::last)),
        ("int", Value::from_function(filters::int)),
        ("float", Value::from_function(filters::float)),
    ] {
        env.add_filter(name, move |state: &mut State, args: Rest<Value>, kwargs: Kwargs| {
            work(args.first().map_or(0, size_of))?;
            filter.call(state, &together(args, kwargs))
        });
    }
    for (name, function) in [
        ("dict", Value::from_function(functions::dict)),
        ("namespace", Value::from_function(functions::namespace)),
    ] {
        env.add_function(name, move |state: &mut State, args: Rest<Value>, kwargs: Kwargs| {
            let args = together(args, kwargs);
            let given: usize = args.iter().map(size_of).sum();
            charge(LIST_BYTES + 4 * ITEM_BYTES * given)?;
            function.call(state, &args)
        });
    }
}

/// The arguments as a call passes them: named ones are its last value.
fn together(args: Rest<Value>, kwargs: Kwargs) -> Vec<Value> {
    let mut args = args.0;
    if kwargs.args().next().is_some() {
        args.push(Value::from(kwargs));
    }
    args
}

fn join(value: &Value, separator: Option<&Value>, attribute: Option<&Value>) -> Jinja<Value> {
    let separator = separator.map(str_of).transpose()?.unwrap_or_default();
    let mut text = Text::default();
    for (i, item) in value.try_iter()?.enumerate() {
        text.push_str(if i > 0 { &separator } else { "" });
        match attribute {
            Some(name) => text.push_str(&str_of(&item.get_item(name)?)?),
            None => text.push_str(&str_of(&item)?),
        }
        text.check()?;
    }
    text.finish().map(Value::from)
}

/// Jinja's sum(attribute=None, start=0)
fn sum(values: &Value, rest: Rest<Value>, kwargs: Kwargs) -> Jinja<Value> {
    let option = |index: usize, name: &str| -> Jinja<Option<Value>> {
        let given: Option<Value> = kwargs.get(name)?;
        Ok(rest.get(index).cloned().or(given).filter(|v| !v.is_none()))
    };
    let (attribute, start) = (option(0, "attribute")?, option(1, "start")?);
    kwargs.assert_all_used()?;
    let mut total = start.unwrap_or_else(|| Value::from(0));
    for item in values.try_iter()? {
        let item = match &attribute {
            Some(name) => item.get_item(name)?,
            None => item,
        };
        if !item.is_undefined() {
            total = add(&total, &item)?;
        }
    }
    Ok(total)
}

/// Jinja's indent(width=4, first=False, blank=False); width may be the text to put in front.
fn indent(value: &Value, rest: Rest<Value>, kwargs: Kwargs) -> Jinja<Value> {
    let option = |index: usize, name: &str| -> Jinja<Option<Value>> {
        let given: Option<Value> = kwargs.get(name)?;
        Ok(rest.get(index).cloned().or(given))
    };
    let width = option(0, "width")?.unwrap_or_else(|| Value::from(4));
    let first = option(1, "first")?.is_some_and(|v| v.is_true());
    let blank = option(2, "blank")?.is_some_and(|v| v.is_true());
    kwargs.assert_all_used()?;
    let prefix = match width.as_str() {
        Some(text) => Value::from(text),
        None => multiply(&Value::from(" "), &width)?,
    };
    let prefix = prefix.as_str().unwrap_or_default();
    let text = str_of(value)?;
    charge(text.len() + 1)?;
    // As Jinja does: with a newline more, one at the end of the text survives splitting into lines.
    let text = [&*text, "\n"].concat();
    let mut out = Text::default();
    for (i, line) in methods::lines(&text).enumerate() {
        out.push_str(if i > 0 { "\n" } else { "" });
        if if i == 0 { first } else { blank || !line.is_empty() } {
            out.push_str(prefix);
        }
        out.push_str(line);
        out.check()?;
    }
    out.finish().map(Value::from)
}
