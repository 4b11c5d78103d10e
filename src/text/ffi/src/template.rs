//! Chat templates as transformers renders them: the environment, its limits, and where minijinja's operators
//! are replaced by Python's.

use std::cell::Cell;

use minijinja::machinery::{
    eval, make_string_output, CompiledTemplate, Instruction, Instructions, TemplateConfig,
};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Rest, ValueKind};
use minijinja::{AutoEscape, Environment, ErrorKind, State, UndefinedBehavior, Value};

use crate::error::{data_loss, internal, invalid, Code, Error, Result};
use crate::methods;
use crate::python;
use crate::strftime::strftime;

type Jinja<T> = std::result::Result<T, minijinja::Error>;

/// Instructions of one render. Published templates use under 1000 a message.
const FUEL: u64 = 4_000_000;
/// Text that one render may produce, all intermediate strings counted.
const MAX_TEXT_BYTES: usize = 256 << 20;
const MAX_OUTPUT_BYTES: usize = 64 << 20;
const MAX_SOURCE_BYTES: usize = 1 << 20;
const MAX_LIST_ITEMS: usize = 1 << 20;
/// Values nested as deep as FUEL allows are dropped recursively; address space, not memory.
const STACK_BYTES: usize = 512 << 20;

thread_local! {
    /// A render has a thread to itself; these are its budget and its clock.
    static TEXT_LEFT: Cell<usize> = const { Cell::new(0) };
    static NOW: Cell<i64> = const { Cell::new(0) };
}

pub struct ChatTemplate {
    source: String,
    environment: Environment<'static>,
    fuel: u64,
}

/// Carries raise_exception's text through minijinja's errors.
#[derive(Debug)]
struct Raised(String);

impl std::fmt::Display for Raised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for Raised {}

impl ChatTemplate {
    pub fn compile(source: &[u8]) -> Result<Self> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(data_loss(format!(
                "the chat template has {} bytes, limit {MAX_SOURCE_BYTES}",
                source.len()
            )));
        }
        let source = std::str::from_utf8(source).map_err(|e| {
            data_loss(format!("the chat template is not valid UTF-8 at byte {}", e.valid_up_to()))
        })?;
        let source = replace_generation_tags(source);
        let fuel = FUEL.min((MAX_TEXT_BYTES / longest_literal(&source)?.max(1)) as u64);
        Ok(ChatTemplate { source, environment: environment(fuel), fuel })
    }

    /// `now`: seconds since 1970 on the local clock.
    pub fn render(&self, context: &[u8], now: i64) -> Result<String> {
        let context: serde_json::Value = serde_json::from_slice(context)
            .map_err(|e| invalid(format!("the template's context is not valid JSON: {e}")))?;
        if !context.is_object() {
            return Err(invalid("the template's context must be a JSON object"));
        }
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, || {
                    TEXT_LEFT.set(MAX_TEXT_BYTES);
                    NOW.set(now);
                    self.render_here(Value::from(minijinja::value::Serde(&context)))
                })
                .map_err(|e| {
                    Error::new(Code::ResourceExhausted, format!("no thread to render a template: {e}"))
                })?
                .join()
                .unwrap_or_else(|_| Err(internal("rendering the chat template failed")))
        })
    }

    fn render_here(&self, context: Value) -> Result<String> {
        let compiled = compile(&self.source)?;
        let mut text = String::new();
        let mut output = make_string_output(&mut text);
        let result = eval(
            &self.environment,
            &compiled.instructions,
            context,
            &compiled.blocks,
            &mut output,
            AutoEscape::None,
        );
        let result = result.map(|_| ());
        drop(output);
        result.map_err(|e| self.explain(e))?;
        if text.len() > MAX_OUTPUT_BYTES {
            return Err(Error::new(
                Code::ResourceExhausted,
                format!("the chat template wrote {} bytes, limit {MAX_OUTPUT_BYTES}", text.len()),
            ));
        }
        Ok(text)
    }

    fn explain(&self, error: minijinja::Error) -> Error {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(e) = cause {
            if let Some(raised) = e.downcast_ref::<Raised>() {
                return invalid(raised.0.clone());
            }
            cause = e.source();
        }
        match error.kind() {
            ErrorKind::OutOfFuel => Error::new(
                Code::ResourceExhausted,
                format!("the chat template ran for more than {} steps; it may loop without end", self.fuel),
            ),
            _ => invalid(format!("the chat template failed: {}", located(&error))),
        }
    }
}

fn located(error: &minijinja::Error) -> String {
    let detail = error.detail().map(|d| format!(": {d}")).unwrap_or_default();
    let line = error.line().map(|l| format!(" (line {l})")).unwrap_or_default();
    format!("{}{detail}{line}", error.kind())
}

fn syntax() -> Result<SyntaxConfig> {
    SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()
        .map_err(|e| internal(format!("template syntax: {e}")))
}

fn compile(source: &str) -> Result<CompiledTemplate<'_>> {
    let config = TemplateConfig {
        syntax_config: syntax()?,
        default_auto_escape: std::sync::Arc::new(|_: &str| AutoEscape::None),
    };
    let mut compiled = CompiledTemplate::new("chat_template", source, &config)
        .map_err(|e| data_loss(format!("the chat template cannot be compiled: {}", located(&e))))?;
    use_python_operators(&mut compiled.instructions);
    compiled.blocks.values_mut().for_each(use_python_operators);
    Ok(compiled)
}

/// `+`, `~` and `*` on text go through functions that write values as Python does and keep to the budget.
fn use_python_operators(instructions: &mut Instructions) {
    let mut index = 0;
    while let Some(instruction) = instructions.get_mut(index) {
        let function = match instruction {
            Instruction::Add => "operator +",
            Instruction::StringConcat => "operator ~",
            Instruction::Mul => "operator *",
            _ => "",
        };
        if !function.is_empty() {
            *instruction = Instruction::CallFunction(function, Some(2));
        }
        index += 1;
    }
}

fn longest_literal(source: &str) -> Result<usize> {
    let compiled = compile(source)?;
    let mut longest = 0;
    for instructions in std::iter::once(&compiled.instructions).chain(compiled.blocks.values()) {
        let mut index = 0;
        while let Some(instruction) = instructions.get(index) {
            if let Instruction::EmitRaw(text) = instruction {
                longest = longest.max(text.len());
            }
            index += 1;
        }
    }
    Ok(longest)
}

/// Takes `bytes` from the render's budget.
pub fn charge(bytes: usize) -> Jinja<()> {
    match TEXT_LEFT.get().checked_sub(bytes) {
        Some(left) => {
            TEXT_LEFT.set(left);
            Ok(())
        }
        None => Err(minijinja::Error::new(
            ErrorKind::InvalidOperation,
            format!("the template made more than {MAX_TEXT_BYTES} bytes of text"),
        )),
    }
}

fn environment(fuel: u64) -> Environment<'static> {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_fuel(Some(fuel));
    env.set_unknown_method_callback(methods::call);
    env.set_formatter(|out, _state, value| {
        let text = python::str_of(value)?;
        charge(text.len())?;
        out.write_str(&text).map_err(minijinja::Error::from)
    });
    env.add_function("raise_exception", |message: &Value| -> Jinja<Value> {
        let text = python::str_of(message)?;
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, text.clone()).with_source(Raised(text)))
    });
    env.add_function("strftime_now", |format: &str| strftime(format, NOW.get()));
    env.add_function("operator +", add);
    env.add_function("operator *", multiply);
    env.add_function("operator ~", |a: &Value, b: &Value| -> Jinja<Value> {
        let text = python::str_of(a)? + &python::str_of(b)?;
        charge(text.len())?;
        Ok(Value::from(text))
    });
    env.add_filter("tojson", |value: &Value, rest: Rest<Value>, kwargs: minijinja::value::Kwargs| {
        let json = python::tojson(value, rest, kwargs)?;
        charge(json.len().unwrap_or(0))?;
        Ok::<Value, minijinja::Error>(json)
    });
    env.add_filter("string", |value: &Value| python::str_of(value).map(Value::from));
    env.add_filter("trim", |state: &mut State, value: &Value, rest: Rest<Value>| {
        methods::call(state, &Value::from(python::str_of(value)?), "strip", &rest)
    });
    env.add_filter("replace", |state: &mut State, value: &Value, rest: Rest<Value>| {
        methods::call(state, &Value::from(python::str_of(value)?), "replace", &rest)
    });
    env.add_filter("join", join);
    env.add_filter("indent", indent);
    env.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::String | ValueKind::Undefined)
    });
    for unbounded in ["center", "format", "wordwrap", "batch", "slice", "pprint"] {
        env.remove_filter(unbounded);
    }
    env.remove_global("debug");
    env
}

fn join(value: &Value, separator: Option<&Value>, attribute: Option<&Value>) -> Jinja<Value> {
    let separator = separator.map(python::str_of).transpose()?.unwrap_or_default();
    let mut text = String::new();
    for (i, item) in value.try_iter()?.enumerate() {
        if i > 0 {
            text.push_str(&separator);
        }
        let start = text.len();
        match attribute {
            Some(name) => text.push_str(&python::str_of(&item.get_item(name)?)?),
            None => text.push_str(&python::str_of(&item)?),
        }
        charge(text.len() - start + separator.len())?;
    }
    Ok(Value::from(text))
}

/// Jinja's indent(width=4, first=False, blank=False); width may be the text to put in front.
fn indent(value: &Value, rest: Rest<Value>, kwargs: minijinja::value::Kwargs) -> Jinja<Value> {
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
    // As Jinja does: with a newline more, one at the end of the text survives splitting into lines.
    let text = python::str_of(value)? + "\n";
    let lines = methods::lines(&text);
    let mut out = String::new();
    for (i, line) in lines.iter().enumerate() {
        out.push_str(if i > 0 { "\n" } else { "" });
        if if i == 0 { first } else { blank || !line.is_empty() } {
            charge(prefix.len())?;
            out.push_str(prefix);
        }
        out.push_str(line);
    }
    charge(out.len())?;
    Ok(Value::from(out))
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

fn add(a: &Value, b: &Value) -> Jinja<Value> {
    if let (Some(x), Some(y)) = (a.as_str(), b.as_str()) {
        charge(x.len() + y.len())?;
        return Ok(Value::from([x, y].concat()));
    }
    if is_number(a) && is_number(b) {
        return number_op("+", a, b, i128::checked_add, |x, y| x + y);
    }
    if is_list(a) && is_list(b) && a.is_tuple() == b.is_tuple() {
        let mut items = Vec::new();
        for item in a.try_iter()?.chain(b.try_iter()?) {
            push_item(&mut items, item)?;
        }
        return Ok(list(items, a.is_tuple()));
    }
    Err(impossible("+", a, b))
}

fn multiply(a: &Value, b: &Value) -> Jinja<Value> {
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
    let mut items = Vec::new();
    for _ in 0..if once.is_empty() { 0 } else { count } {
        for item in &once {
            push_item(&mut items, item.clone())?;
        }
    }
    Ok(list(items, sequence.is_tuple()))
}

/// Lists are charged too, at the size of a value.
fn push_item(items: &mut Vec<Value>, item: Value) -> Jinja<()> {
    if items.len() >= MAX_LIST_ITEMS {
        let message = format!("a list of more than {MAX_LIST_ITEMS} items");
        return Err(minijinja::Error::new(ErrorKind::InvalidOperation, message));
    }
    charge(std::mem::size_of::<Value>())?;
    items.push(item);
    Ok(())
}

fn list(items: Vec<Value>, tuple: bool) -> Value {
    if tuple {
        Value::from(minijinja::value::Tuple::from(items))
    } else {
        Value::from(items)
    }
}

/// {% generation %}...{% endgeneration %} only marks text for training; `with` has its scope and whitespace rules.
fn replace_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(open) = rest.find('{') {
        out.push_str(&rest[..open]);
        rest = &rest[open..];
        let end = match rest.as_bytes().get(1) {
            Some(b'#') => rest.find("#}").map_or(rest.len(), |i| i + 2),
            Some(b'{') => end_of_code(rest, "}}"),
            Some(b'%') => {
                let end = end_of_code(rest, "%}");
                let name_start = rest[2..end].find(|c: char| !c.is_whitespace() && c != '-' && c != '+');
                let start = 2 + name_start.unwrap_or(0);
                let name_end = rest[start..end].find(|c: char| !c.is_alphanumeric() && c != '_');
                let name = &rest[start..start + name_end.unwrap_or(0)];
                let replacement = match name {
                    "generation" => "with",
                    "endgeneration" => "endwith",
                    "raw" => {
                        let end = end_of_raw(rest, end);
                        out.push_str(&rest[..end]);
                        rest = &rest[end..];
                        continue;
                    }
                    other => other,
                };
                out.push_str(&rest[..start]);
                out.push_str(replacement);
                rest = &rest[start + name.len()..];
                end - start - name.len()
            }
            _ => 1,
        };
        out.push_str(&rest[..end]);
        rest = &rest[end..];
    }
    out + rest
}

/// Length of a `{% ... %}` or `{{ ... }}` whose closing marker is not inside a string.
fn end_of_code(code: &str, close: &str) -> usize {
    let mut quote = None;
    let mut escaped = false;
    for (i, c) in code.char_indices().skip(2) {
        match quote {
            Some(q) => {
                if !escaped && c == q {
                    quote = None;
                }
                escaped = !escaped && c == '\\';
            }
            None if c == '"' || c == '\'' => quote = Some(c),
            None if code[i..].starts_with(close) => return i + 2,
            None => {}
        }
    }
    code.len()
}

fn end_of_raw(code: &str, from: usize) -> usize {
    let mut at = from;
    while let Some(i) = code[at..].find("{%") {
        at += i + 2;
        let name = code[at..].trim_start_matches(['-', '+']).trim_start();
        if name.starts_with("endraw") {
            return at + code[at..].find("%}").map_or(0, |i| i + 2);
        }
    }
    code.len()
}
