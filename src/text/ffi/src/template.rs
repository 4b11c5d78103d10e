//! Chat templates as transformers renders them.

use std::cell::Cell;

use minijinja::machinery::{eval, make_string_output};
use minijinja::{AutoEscape, Environment, ErrorKind, Value};

use crate::budget::{self, LimitReached, FUEL};
use crate::compiled::Compiled;
use crate::error::{internal, invalid, Code, Error, Result};
use crate::filters::environment;
use crate::python::str_of;
use crate::strftime::strftime;

const MAX_OUTPUT_BYTES: usize = 64 << 20;
/// Values nested as deep as FUEL allows are dropped recursively; address space, not memory.
const STACK_BYTES: usize = 512 << 20;

thread_local! {
    /// A render has a thread to itself; this is its clock.
    static NOW: Cell<i64> = const { Cell::new(0) };
}

pub struct ChatTemplate {
    compiled: Compiled,
    environment: Environment<'static>,
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
        let mut environment = environment();
        environment.add_function(
            "raise_exception",
            |message: &Value| -> std::result::Result<Value, minijinja::Error> {
                let text = str_of(message)?.into_owned();
                let error = minijinja::Error::new(ErrorKind::InvalidOperation, text.clone());
                Err(error.with_source(Raised(text)))
            },
        );
        environment.add_function("strftime_now", |format: &str| strftime(format, NOW.get()));
        Ok(ChatTemplate { compiled: Compiled::new(source)?, environment })
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
                    budget::begin();
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
        let mut text = String::new();
        let mut output = make_string_output(&mut text);
        let result = eval(
            &self.environment,
            self.compiled.instructions(),
            context,
            self.compiled.blocks(),
            &mut output,
            AutoEscape::None,
        );
        let result = result.map(|_| ());
        drop(output);
        result.map_err(explain)?;
        if text.len() > MAX_OUTPUT_BYTES {
            return Err(Error::new(
                Code::ResourceExhausted,
                format!("the chat template wrote {} bytes, limit {MAX_OUTPUT_BYTES}", text.len()),
            ));
        }
        Ok(text)
    }
}

fn explain(error: minijinja::Error) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(e) = cause {
        if let Some(raised) = e.downcast_ref::<Raised>() {
            return invalid(raised.0.clone());
        }
        if let Some(limit) = e.downcast_ref::<LimitReached>() {
            return Error::new(Code::ResourceExhausted, limit.0.clone());
        }
        cause = e.source();
    }
    match error.kind() {
        ErrorKind::OutOfFuel => Error::new(
            Code::ResourceExhausted,
            format!("the chat template ran for more than {FUEL} steps; it may loop without end"),
        ),
        _ => invalid(format!("the chat template failed: {}", located(&error))),
    }
}

/// What minijinja says, and where.
pub fn located(error: &minijinja::Error) -> String {
    let detail = error.detail().map(|d| format!(": {d}")).unwrap_or_default();
    let line = error.line().map(|l| format!(" (line {l})")).unwrap_or_default();
    format!("{}{detail}{line}", error.kind())
}
