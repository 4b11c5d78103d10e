//! What one render may take, whatever its template says. A render has a thread to itself, so its budgets are
//! thread-local.
//!
//! Memory: everything a template makes is charged before it is made, and nothing is given back, so that what lives
//! at once is less. Instructions that are not charged one by one make at most a few dozen bytes each; FUEL bounds them.

use std::cell::Cell;

use minijinja::{Error, ErrorKind, Value};

/// Memory of a render beyond its messages. Half of it may be charged: a buffer that grows holds up to twice its content.
pub const MEMORY_LIMIT: usize = 256 << 20;
const CHARGE_LIMIT: usize = MEMORY_LIMIT / 2;
/// Bytes that comparisons and searches may read; some seconds.
const WORK_LIMIT: usize = 2 << 30;
/// Instructions of one render. Published templates use under 1000 a message.
pub const FUEL: u64 = 2_000_000;
/// A list or map and its allocations, without its items; and an item with the small object it may be.
pub const LIST_BYTES: usize = 128;
pub const ITEM_BYTES: usize = 32;

thread_local! {
    static MEMORY_LEFT: Cell<usize> = const { Cell::new(0) };
    static WORK_LEFT: Cell<usize> = const { Cell::new(0) };
}

/// Found again behind minijinja's errors: this error is about a limit, not about the template's input.
#[derive(Debug)]
pub struct LimitReached(pub String);

impl std::fmt::Display for LimitReached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for LimitReached {}

pub fn begin() {
    MEMORY_LEFT.set(CHARGE_LIMIT);
    WORK_LEFT.set(WORK_LIMIT);
}

fn take(budget: &Cell<usize>, amount: usize, message: impl Fn() -> String) -> Result<(), Error> {
    match budget.get().checked_sub(amount) {
        Some(left) => {
            budget.set(left);
            Ok(())
        }
        None => {
            budget.set(0);
            let error = Error::new(ErrorKind::InvalidOperation, message());
            Err(error.with_source(LimitReached(message())))
        }
    }
}

/// Takes `bytes` from the render's memory.
pub fn charge(bytes: usize) -> Result<(), Error> {
    MEMORY_LEFT.with(|left| {
        take(left, bytes, || {
            format!("the chat template needs more than {} MiB of memory", MEMORY_LIMIT >> 20)
        })
    })
}

/// Takes the reading of `bytes` from the render's time.
pub fn work(bytes: usize) -> Result<(), Error> {
    WORK_LEFT.with(|left| {
        take(left, bytes, || {
            format!(
                "the chat template reads more than {} GiB of text; it may loop without end",
                WORK_LIMIT >> 30
            )
        })
    })
}

/// Bytes of a text, items of a list or map.
pub fn size_of(value: &Value) -> usize {
    match value.as_str() {
        Some(text) => text.len(),
        None => value.len().unwrap_or_else(|| value.try_iter().map_or(0, |items| items.count())),
    }
}

/// A text that is charged as it grows. Beyond the limit it stays as it is, and check() says so.
#[derive(Default)]
pub struct Text {
    text: String,
    error: Option<Error>,
}

impl Text {
    pub fn push_str(&mut self, piece: &str) {
        if self.error.is_some() {
            return;
        }
        match charge(piece.len()) {
            Ok(()) => self.text.push_str(piece),
            Err(error) => self.error = Some(error),
        }
    }

    pub fn push(&mut self, c: char) {
        self.push_str(c.encode_utf8(&mut [0; 4]));
    }

    /// For loops: ends them at the limit.
    pub fn check(&mut self) -> Result<(), Error> {
        self.error.take().map_or(Ok(()), Err)
    }

    pub fn finish(mut self) -> Result<String, Error> {
        self.check()?;
        Ok(self.text)
    }
}
