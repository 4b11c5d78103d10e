//! The C ABI (quire_text.h) of Hugging Face tokenizers and minijinja. Only this file is unsafe, and one
//! line of compiled.rs. Every call runs inside `guard`, which turns a panic into an error.

mod budget;
mod compiled;
mod error;
mod filters;
mod gguf;
mod methods;
mod operators;
mod python;
mod stream;
mod strftime;
mod tags;
mod template;
mod tokenizer;

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Once};

use error::{data_loss, Code, Error, Result};
use stream::Stream;
use template::ChatTemplate;
use tokenizer::Tokenizer;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct View {
    data: *const u8,
    size: usize,
}

impl View {
    /// # Safety
    /// `data` points to `size` bytes that outlive the call.
    unsafe fn bytes<'a>(self) -> &'a [u8] {
        slice(self.data, self.size)
    }
}

/// Owned memory handed to C: bytes (`quire_text_bytes`) or ids (`quire_text_ids`).
#[repr(C)]
pub struct Buffer<T> {
    data: *mut T,
    size: usize,
    capacity: usize,
}

impl<T> From<Vec<T>> for Buffer<T> {
    fn from(vec: Vec<T>) -> Self {
        let mut vec = std::mem::ManuallyDrop::new(vec);
        Buffer { data: vec.as_mut_ptr(), size: vec.len(), capacity: vec.capacity() }
    }
}

impl<T> Buffer<T> {
    /// # Safety
    /// `self` came from a Vec of the same type and is freed once.
    unsafe fn free(self) {
        if !self.data.is_null() {
            drop(Vec::from_raw_parts(self.data, self.size, self.capacity));
        }
    }
}

#[repr(C)]
pub struct GgufSpec {
    model: View,
    pre: View,
    tokens: *const View,
    num_tokens: usize,
    merges: *const View,
    num_merges: usize,
    scores: *const f32,
    num_scores: usize,
    token_types: *const i32,
    num_token_types: usize,
    bos: i32,
    eos: i32,
    unk: i32,
    pad: i32,
    add_bos: i32,
    add_eos: i32,
    add_space_prefix: i32,
}

/// # Safety
/// `data` points to `size` values that outlive the call, or `size` is 0.
unsafe fn slice<'a, T>(data: *const T, size: usize) -> &'a [T] {
    if size == 0 {
        &[]
    } else {
        std::slice::from_raw_parts(data, size)
    }
}

/// Runs `call`; on an error or a panic writes the message to `error` and returns the code.
unsafe fn guard<T>(out: *mut T, error: *mut Buffer<u8>, call: impl FnOnce() -> Result<T>) -> i32 {
    // The message goes to the caller; a library does not print.
    static SILENCE: Once = Once::new();
    SILENCE.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    let result = catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string()))
            .unwrap_or_default();
        Err(Error::new(Code::Internal, format!("the text library failed: {text}")))
    });
    match result {
        Ok(value) => {
            out.write(value);
            0
        }
        Err(e) => {
            error.write(e.message.into_bytes().into());
            e.code as i32
        }
    }
}

fn text_of<'a>(bytes: &'a [u8], what: impl Fn() -> String) -> Result<&'a str> {
    std::str::from_utf8(bytes)
        .map_err(|e| data_loss(format!("{} is not valid UTF-8 at byte {}", what(), e.valid_up_to())))
}

fn handle<T>(value: T) -> *const T {
    Arc::into_raw(Arc::new(value))
}

#[no_mangle]
pub unsafe extern "C" fn quire_text_bytes_free(bytes: Buffer<u8>) {
    bytes.free();
}

#[no_mangle]
pub unsafe extern "C" fn quire_text_ids_free(ids: Buffer<i32>) {
    ids.free();
}

#[no_mangle]
pub unsafe extern "C" fn quire_text_tokenizer_from_json(
    json: View,
    out: *mut *const Tokenizer,
    error: *mut Buffer<u8>,
) -> i32 {
    guard(out, error, || Tokenizer::from_json(json.bytes()).map(handle))
}

#[no_mangle]
pub unsafe extern "C" fn quire_text_tokenizer_from_gguf(
    spec: *const GgufSpec,
    out: *mut *const Tokenizer,
    error: *mut Buffer<u8>,
) -> i32 {
    guard(out, error, || gguf::build(&read_spec(&*spec)?).map(handle))
}

unsafe fn read_spec(spec: &GgufSpec) -> Result<gguf::Spec<'_>> {
    let id = |id: i32| u32::try_from(id).ok();
    let flag = |flag: i32| (flag >= 0).then_some(flag != 0);
    let list = |data, size, name: &str| -> Result<Vec<&str>> {
        let views: &[View] = slice(data, size);
        let text = |(i, view): (usize, &View)| text_of(view.bytes(), || format!("{name} {i}"));
        views.iter().enumerate().map(text).collect()
    };
    Ok(gguf::Spec {
        model: text_of(spec.model.bytes(), || "tokenizer.ggml.model".to_string())?,
        pre: text_of(spec.pre.bytes(), || "tokenizer.ggml.pre".to_string())?,
        tokens: list(spec.tokens, spec.num_tokens, "token")?,
        merges: list(spec.merges, spec.num_merges, "merge")?,
        scores: slice(spec.scores, spec.num_scores),
        token_types: slice(spec.token_types, spec.num_token_types),
        bos: id(spec.bos),
        eos: id(spec.eos),
        unk: id(spec.unk),
        pad: id(spec.pad),
        add_bos: flag(spec.add_bos),
        add_eos: flag(spec.add_eos),
        add_space_prefix: flag(spec.add_space_prefix),
    })
}

#[no_mangle]
pub unsafe extern "C" fn quire_text_tokenizer_free(tokenizer: *const Tokenizer) {
    if !tokenizer.is_null() {
        drop(Arc::from_raw(tokenizer));
    }
}

#[no_mangle]
pub unsafe extern "C" fn quire_text_encode(
    tokenizer: *const Tokenizer,
    text: View,
    add_special_tokens: i32,
    parse_special_tokens: i32,
    out: *mut Buffer<i32>,
    error: *mut Buffer<u8>,
) -> i32 {
    guard(out, error, || {
        let ids = (*tokenizer).encode(text.bytes(), add_special_tokens != 0, parse_special_tokens != 0)?;
        Ok(ids.into())
    })
}

#[no_mangle]
pub unsafe extern "C" fn quire_text_decode(
    tokenizer: *const Tokenizer,
    ids: *const i32,
    num_ids: usize,
    skip_special_tokens: i32,
    out: *mut Buffer<u8>,
    error: *mut Buffer<u8>,
) -> i32 {
    guard(out, error, || {
        let text = (*tokenizer).decode(slice(ids, num_ids), skip_special_tokens != 0)?;
        Ok(text.into_bytes().into())
    })
}

#[no_mangle]
pub unsafe extern "C" fn quire_text_vocab_size(tokenizer: *const Tokenizer) -> i32 {
    (*tokenizer).vocab_size()
}

#[no_mangle]
pub unsafe extern "C" fn quire_text_token_to_id(tokenizer: *const Tokenizer, token: View) -> i32 {
    let id = std::str::from_utf8(token.bytes()).ok().and_then(|token| (*tokenizer).token_to_id(token));
    id.map_or(-1, |id| id as i32)
}

#[no_mangle]
pub unsafe extern "C" fn quire_text_id_to_token(
    tokenizer: *const Tokenizer,
    id: i32,
    out: *mut Buffer<u8>,
) -> i32 {
    match (*tokenizer).id_to_token(id as u32) {
        Some(token) => {
            out.write(token.into_bytes().into());
            1
        }
        None => 0,
    }
}

#[no_mangle]
pub unsafe extern "C" fn quire_text_is_special(tokenizer: *const Tokenizer, id: i32) -> i32 {
    (*tokenizer).is_special(id as u32) as i32
}

#[no_mangle]
pub unsafe extern "C" fn quire_text_stream_new(
    tokenizer: *const Tokenizer,
    skip_special_tokens: i32,
) -> *mut Stream {
    Arc::increment_strong_count(tokenizer);
    let tokenizer = Arc::from_raw(tokenizer);
    Box::into_raw(Box::new(Stream::new(tokenizer, skip_special_tokens != 0)))
}

#[no_mangle]
pub unsafe extern "C" fn quire_text_stream_free(stream: *mut Stream) {
    if !stream.is_null() {
        drop(Box::from_raw(stream));
    }
}

#[no_mangle]
pub unsafe extern "C" fn quire_text_stream_push(
    stream: *mut Stream,
    id: i32,
    out: *mut Buffer<u8>,
    error: *mut Buffer<u8>,
) -> i32 {
    guard(out, error, || Ok((*stream).push(id)?.into_bytes().into()))
}

#[no_mangle]
pub unsafe extern "C" fn quire_text_stream_finish(
    stream: *mut Stream,
    out: *mut Buffer<u8>,
    error: *mut Buffer<u8>,
) -> i32 {
    guard(out, error, || Ok((*stream).finish()?.into_bytes().into()))
}

#[no_mangle]
pub unsafe extern "C" fn quire_text_template_compile(
    source: View,
    out: *mut *mut ChatTemplate,
    error: *mut Buffer<u8>,
) -> i32 {
    guard(out, error, || ChatTemplate::compile(source.bytes()).map(|t| Box::into_raw(Box::new(t))))
}

#[no_mangle]
pub unsafe extern "C" fn quire_text_template_free(template: *mut ChatTemplate) {
    if !template.is_null() {
        drop(Box::from_raw(template));
    }
}

#[no_mangle]
pub unsafe extern "C" fn quire_text_template_render(
    template: *const ChatTemplate,
    context_json: View,
    local_seconds: i64,
    out: *mut Buffer<u8>,
    error: *mut Buffer<u8>,
) -> i32 {
    guard(out, error, || Ok((*template).render(context_json.bytes(), local_seconds)?.into_bytes().into()))
}
