//! Decoding one id at a time. Every decoder step of the tokenizer is turned into a stage that returns text as
//! soon as no later id can change it, so each id costs what its own text costs, and the concatenation equals
//! decoding all ids at once.

use std::sync::Arc;

use tokenizers::decoders::strip::Strip;
use tokenizers::{Decoder, DecoderWrapper};

use crate::error::{internal, Result};
use crate::tokenizer::Tokenizer;

pub struct Stream {
    tokenizer: Arc<Tokenizer>,
    skip_special: bool,
    stages: Vec<Stage>,
}

/// A step sees a list of chunks (tokens at first). `Fuse` and `ByteLevel` make one chunk of the whole text;
/// what follows them sees that one chunk grow.
enum Stage {
    /// Each chunk on its own, the first one possibly treated differently (Replace, Strip, WordPiece, Metaspace).
    Each { decoder: DecoderWrapper, first: bool },
    /// The last chunk is treated differently (BPE with a word suffix): one chunk is held back.
    AllButLast { decoder: DecoderWrapper, held: Option<String> },
    /// A run of byte tokens is a string if the whole run is valid UTF-8, else one U+FFFD a byte: held until it ends.
    ByteRun(Vec<u8>),
    /// Bytes to text, invalid sequences as U+FFFD; holds the start of a character.
    Utf8(Vec<u8>),
    /// Strip of the growing chunk: up to `left` characters at its start.
    StripStart { content: char, left: usize },
    /// No decoder: tokens are joined by spaces.
    Spaces { first: bool },
    /// Anything else needs the whole list: everything is held until the end.
    Whole { decoder: DecoderWrapper, chunks: Vec<String> },
}

impl Stream {
    pub fn new(tokenizer: Arc<Tokenizer>, skip_special: bool) -> Self {
        let stages = stages(tokenizer.decoder());
        Stream { tokenizer, skip_special, stages }
    }

    pub fn push(&mut self, id: i32) -> Result<String> {
        match self.tokenizer.piece(id, self.skip_special) {
            Some(piece) => run(&mut self.stages, vec![piece]),
            None => Ok(String::new()),
        }
    }

    /// Returns what was held back and starts over.
    pub fn finish(&mut self) -> Result<String> {
        let mut text = String::new();
        for i in 0..self.stages.len() {
            let rest = self.stages[i].finish()?;
            text.push_str(&run(&mut self.stages[i + 1..], rest)?);
        }
        self.stages = stages(self.tokenizer.decoder());
        Ok(text)
    }
}

fn run(stages: &mut [Stage], mut chunks: Vec<String>) -> Result<String> {
    for stage in stages {
        if chunks.is_empty() {
            break;
        }
        let mut out = Vec::new();
        for chunk in chunks {
            stage.push(chunk, &mut out)?;
        }
        chunks = out;
    }
    Ok(chunks.concat())
}

fn stages(decoder: Option<&DecoderWrapper>) -> Vec<Stage> {
    let Some(decoder) = decoder else {
        return vec![Stage::Spaces { first: true }];
    };
    let mut steps = Vec::new();
    flatten(decoder, &mut steps);
    let mut stages = Vec::new();
    let mut fused = false;
    for step in &steps {
        match stage(step, fused) {
            Some(Some(stage)) => stages.push(stage),
            Some(None) => {}
            None => return vec![Stage::Whole { decoder: decoder.clone(), chunks: Vec::new() }],
        }
        fused |= matches!(step, DecoderWrapper::Fuse(_) | DecoderWrapper::ByteLevel(_));
    }
    stages
}

fn flatten(decoder: &DecoderWrapper, steps: &mut Vec<DecoderWrapper>) {
    match decoder {
        DecoderWrapper::Sequence(sequence) => sequence.get_decoders().iter().for_each(|d| flatten(d, steps)),
        other => steps.push(other.clone()),
    }
}

/// The stage of a step; Some(None) if the step changes nothing in a stream, None if it cannot be streamed.
fn stage(step: &DecoderWrapper, fused: bool) -> Option<Option<Stage>> {
    match step {
        DecoderWrapper::Fuse(_) => Some(None),
        DecoderWrapper::ByteLevel(_) if !fused => Some(Some(Stage::Utf8(Vec::new()))),
        DecoderWrapper::Strip(Strip { content, start, stop: 0, .. }) if fused => {
            Some(Some(Stage::StripStart { content: *content, left: *start }))
        }
        _ if fused => None,
        DecoderWrapper::ByteFallback(_) => Some(Some(Stage::ByteRun(Vec::new()))),
        DecoderWrapper::BPE(_) => Some(Some(Stage::AllButLast { decoder: step.clone(), held: None })),
        DecoderWrapper::Replace(_)
        | DecoderWrapper::Strip(_)
        | DecoderWrapper::WordPiece(_)
        | DecoderWrapper::Metaspace(_) => Some(Some(Stage::Each { decoder: step.clone(), first: true })),
        _ => None,
    }
}

impl Stage {
    fn push(&mut self, chunk: String, out: &mut Vec<String>) -> Result<()> {
        match self {
            Stage::Each { decoder, first } => {
                let list = if *first { vec![chunk] } else { vec![String::new(), chunk] };
                *first = false;
                out.extend(decode_chain(decoder, list)?.pop());
            }
            Stage::AllButLast { decoder, held } => {
                if let Some(previous) = held.replace(chunk) {
                    out.extend(decode_chain(decoder, vec![previous, String::new()])?.into_iter().next());
                }
            }
            Stage::ByteRun(run) => match byte_token(&chunk) {
                Some(byte) => run.push(byte),
                None => {
                    out.extend(end_byte_run(run));
                    out.push(chunk);
                }
            },
            Stage::Utf8(pending) => {
                pending.extend(byte_level_bytes(&chunk));
                out.push(drain_utf8(pending));
            }
            Stage::StripStart { content, left } => out.push(strip_start(chunk, *content, left)),
            Stage::Spaces { first } => {
                out.push(if *first { chunk } else { format!(" {chunk}") });
                *first = false;
            }
            Stage::Whole { chunks, .. } => chunks.push(chunk),
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<Vec<String>> {
        Ok(match self {
            Stage::AllButLast { decoder, held } => match held.take() {
                Some(last) => decode_chain(decoder, vec![last])?,
                None => Vec::new(),
            },
            Stage::ByteRun(run) => end_byte_run(run).into_iter().collect(),
            Stage::Utf8(pending) => vec![String::from_utf8_lossy(&std::mem::take(pending)).into_owned()],
            Stage::Whole { chunks, .. } if chunks.is_empty() => Vec::new(),
            Stage::Whole { decoder, chunks } => decode_chain(decoder, std::mem::take(chunks))?,
            Stage::Each { .. } | Stage::StripStart { .. } | Stage::Spaces { .. } => Vec::new(),
        })
    }
}

fn decode_chain(decoder: &DecoderWrapper, chunks: Vec<String>) -> Result<Vec<String>> {
    decoder.decode_chain(chunks).map_err(|e| internal(format!("decode: {e}")))
}

/// "<0x0A>" -> 10
fn byte_token(token: &str) -> Option<u8> {
    if token.len() != 6 || !token.starts_with("<0x") || !token.ends_with('>') {
        return None;
    }
    u8::from_str_radix(token.get(3..5)?, 16).ok()
}

fn end_byte_run(run: &mut Vec<u8>) -> Option<String> {
    if run.is_empty() {
        return None;
    }
    let bytes = std::mem::take(run);
    Some(String::from_utf8(bytes).unwrap_or_else(|e| "\u{FFFD}".repeat(e.as_bytes().len())))
}

/// The bytes of a byte-level token; one with a character outside the byte alphabet stands for itself.
fn byte_level_bytes(token: &str) -> Vec<u8> {
    token.chars().map(byte_of).collect::<Option<Vec<u8>>>().unwrap_or_else(|| token.as_bytes().to_vec())
}

/// GPT-2's alphabet: printable Latin-1 bytes are themselves, the other 68 are U+0100 onwards in order.
fn byte_of(character: char) -> Option<u8> {
    let code = character as u32;
    match code {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => Some(code as u8),
        0x100..=0x120 => Some((code - 0x100) as u8),
        0x121..=0x142 => Some((code - 0x121 + 0x7F) as u8),
        0x143 => Some(0xAD),
        _ => None,
    }
}

/// Takes whole characters from the front, each maximal invalid sequence as U+FFFD; leaves an incomplete one.
fn drain_utf8(pending: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut start = 0;
    loop {
        match std::str::from_utf8(&pending[start..]) {
            Ok(valid) => {
                text.push_str(valid);
                start = pending.len();
                break;
            }
            Err(e) => {
                let end = start + e.valid_up_to();
                text.push_str(std::str::from_utf8(&pending[start..end]).unwrap_or_default());
                start = end;
                match e.error_len() {
                    Some(bad) => {
                        text.push('\u{FFFD}');
                        start += bad;
                    }
                    None => break,
                }
            }
        }
    }
    pending.drain(..start);
    text
}

fn strip_start(chunk: String, content: char, left: &mut usize) -> String {
    let mut rest = chunk.as_str();
    while *left > 0 {
        let mut chars = rest.chars();
        match chars.next() {
            None => break,
            Some(c) if c == content => {
                *left -= 1;
                rest = chars.as_str();
            }
            Some(_) => *left = 0,
        }
    }
    rest.to_string()
}
