//! A tokenizer from the metadata of a GGUF file: the same pipeline that the model's own tokenizer.json
//! describes.

use ahash::AHashMap as Map;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as DecoderSequence;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::replace::Replace;
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
    SplitDelimiterBehavior,
};

use crate::error::{data_loss, internal, unsupported, Result};
use crate::tokenizer::{Parts, Tokenizer};

/// Token types of the GGUF specification that matter here.
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

/// Longest token in bytes. Published vocabularies stay under 1000; reconstructing merges is quadratic in it.
const MAX_TOKEN_BYTES: usize = 4096;

const SUPPORTED_PRE: &str = "default, deepseek-r1-qwen, gpt-2, llama-bpe, llama-v3, llama3, qwen2, smollm";

const LLAMA3_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

pub struct Spec<'a> {
    pub model: &'a str,
    pub pre: &'a str,
    pub tokens: Vec<&'a str>,
    pub merges: Vec<&'a str>,
    pub scores: &'a [f32],
    pub token_types: &'a [i32],
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub unk: Option<u32>,
    pub pad: Option<u32>,
    pub add_bos: Option<bool>,
    pub add_eos: Option<bool>,
    pub add_space_prefix: Option<bool>,
}

pub fn build(spec: &Spec) -> Result<Tokenizer> {
    check(spec)?;
    let mut parts = match spec.model {
        "gpt2" => byte_level(spec)?,
        "llama" => sentence_piece(spec)?,
        other => {
            return Err(unsupported(format!(
                "tokenizer.ggml.model is \"{other}\"; supported: gpt2 (byte-level BPE), llama (SentencePiece BPE). \
                 Use a folder with the model's tokenizer.json instead"
            )))
        }
    };
    parts.post_processor = bos_eos_template(spec)?;
    Tokenizer::from_parts(parts, added_tokens(spec), spec.tokens.len() as u32)
}

fn check(spec: &Spec) -> Result<()> {
    let n = spec.tokens.len();
    if n == 0 || n > i32::MAX as usize {
        return Err(data_loss(format!("tokenizer.ggml.tokens has {n} entries; expected 1 to {}", i32::MAX)));
    }
    for (id, token) in spec.tokens.iter().enumerate() {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(data_loss(format!(
                "token {id} has {} bytes, limit {MAX_TOKEN_BYTES}; the file is damaged",
                token.len()
            )));
        }
    }
    for (name, len) in [("scores", spec.scores.len()), ("token_type", spec.token_types.len())] {
        if len != 0 && len != n {
            return Err(data_loss(format!(
                "tokenizer.ggml.{name} has {len} entries but tokenizer.ggml.tokens has {n}; the file is damaged"
            )));
        }
    }
    for (name, id) in [("bos", spec.bos), ("eos", spec.eos), ("unknown", spec.unk), ("padding", spec.pad)] {
        if let Some(id) = id.filter(|id| *id as usize >= n) {
            return Err(data_loss(format!(
                "tokenizer.ggml.{name}_token_id is {id} but there are {n} tokens; the file is damaged"
            )));
        }
    }
    Ok(())
}

fn token_type(spec: &Spec, id: usize) -> i32 {
    spec.token_types.get(id).copied().unwrap_or(1)
}

fn is_special(spec: &Spec, id: usize) -> bool {
    let named = [spec.bos, spec.eos, spec.unk, spec.pad];
    token_type(spec, id) == CONTROL || named.contains(&Some(id as u32))
}

fn added_tokens(spec: &Spec) -> Vec<AddedToken> {
    let added = |(id, content): (usize, &&str)| {
        let special = is_special(spec, id);
        (special || token_type(spec, id) == USER_DEFINED)
            .then(|| AddedToken::from(content.to_string(), special).normalized(false))
    };
    spec.tokens.iter().enumerate().filter_map(added).collect()
}

fn vocab(spec: &Spec) -> Map<String, u32> {
    spec.tokens.iter().enumerate().map(|(id, token)| (token.to_string(), id as u32)).collect()
}

fn byte_level(spec: &Spec) -> Result<Parts> {
    let (normalizer, pre_tokenizer, ignore_merges) = pre_tokenizer(spec.pre)?;
    let vocab = vocab(spec);
    let merges = listed_merges(spec, &vocab)?;
    let bpe = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .ignore_merges(ignore_merges)
        .build()
        .map_err(|e| data_loss(format!("tokenizer.ggml.merges: {e}")))?;
    Ok(Parts {
        model: bpe.into(),
        normalizer,
        pre_tokenizer: Some(pre_tokenizer),
        post_processor: None,
        decoder: Some(ByteLevel::new(false, true, false).into()),
    })
}

/// Normalizer, pre-tokenizer and `ignore_merges` of the published tokenizer.json that a name stands for.
fn pre_tokenizer(pre: &str) -> Result<(Option<NormalizerWrapper>, PreTokenizerWrapper, bool)> {
    let gpt2 = || ByteLevel::new(false, true, true);
    Ok(match pre {
        "" | "default" | "gpt-2" => (None, gpt2().into(), false),
        "smollm" => {
            let steps = vec![Digits::new(true).into(), gpt2().into()];
            (None, PreTokenizerWrapper::Sequence(Sequence::new(steps)), false)
        }
        "llama-bpe" | "llama-v3" | "llama3" => (None, split_then_bytes(LLAMA3_SPLIT)?, true),
        "qwen2" | "deepseek-r1-qwen" => (Some(NFC.into()), split_then_bytes(QWEN2_SPLIT)?, false),
        other => {
            return Err(unsupported(format!(
            "tokenizer.ggml.pre is \"{other}\"; supported: {SUPPORTED_PRE}. Use a folder with the model's \
                 tokenizer.json instead"
        )))
        }
    })
}

fn split_then_bytes(regex: &str) -> Result<PreTokenizerWrapper> {
    let split = Split::new(SplitPattern::Regex(regex.to_string()), SplitDelimiterBehavior::Isolated, false)
        .map_err(|e| internal(format!("split pattern: {e}")))?;
    let steps = vec![split.into(), ByteLevel::new(false, true, false).into()];
    Ok(PreTokenizerWrapper::Sequence(Sequence::new(steps)))
}

/// tokenizer.ggml.merges, each checked: the crate indexes by them.
fn listed_merges(spec: &Spec, vocab: &Map<String, u32>) -> Result<Vec<(String, String)>> {
    let mut merges = Vec::with_capacity(spec.merges.len());
    let mut product = String::new();
    for (rank, merge) in spec.merges.iter().enumerate() {
        let Some((left, right)) = merge.split_once(' ') else {
            return Err(data_loss(format!(
                "merge {rank} is \"{merge}\", not two tokens; the file is damaged"
            )));
        };
        product.clear();
        product.push_str(left);
        product.push_str(right);
        for token in [left, right, &product] {
            if !vocab.contains_key(token) {
                return Err(data_loss(format!(
                    "merge {rank} \"{merge}\" needs token \"{token}\", which the vocabulary lacks; the file is damaged"
                )));
            }
        }
        merges.push((left.to_string(), right.to_string()));
    }
    Ok(merges)
}

fn sentence_piece(spec: &Spec) -> Result<Parts> {
    if spec.scores.is_empty() && spec.merges.is_empty() {
        return Err(data_loss(
            "a llama tokenizer needs tokenizer.ggml.scores or tokenizer.ggml.merges, the file has neither"
                .to_string(),
        ));
    }
    let vocab = vocab(spec);
    let merges =
        if spec.merges.is_empty() { merges_from_scores(spec, &vocab) } else { listed_merges(spec, &vocab)? };
    let mut builder = BPE::builder().vocab_and_merges(vocab, merges).fuse_unk(true).byte_fallback(true);
    if let Some(unk) = spec.unk {
        builder = builder.unk_token(spec.tokens[unk as usize].to_string());
    }
    let bpe = builder.build().map_err(|e| data_loss(format!("tokenizer.ggml: {e}")))?;
    let space_prefix = spec.add_space_prefix.unwrap_or(true);
    let scheme = if space_prefix { PrependScheme::First } else { PrependScheme::Never };
    let mut steps: Vec<DecoderWrapper> = vec![
        Replace::new("\u{2581}", " ").map_err(|e| internal(format!("decoder: {e}")))?.into(),
        ByteFallback::default().into(),
        Fuse::default().into(),
    ];
    if space_prefix {
        steps.push(Strip::new(' ', 1, 0).into());
    }
    Ok(Parts {
        model: bpe.into(),
        normalizer: None,
        pre_tokenizer: Some(Metaspace::new('\u{2581}', scheme, false).into()),
        post_processor: None,
        decoder: Some(DecoderWrapper::Sequence(DecoderSequence::new(steps))),
    })
}

/// SentencePiece keeps no merges, only a score per piece. Every way to cut a piece into two pieces is a merge;
/// better scores come first, then longer left and right parts, then the order of the ids.
fn merges_from_scores(spec: &Spec, vocab: &Map<String, u32>) -> Vec<(String, String)> {
    struct Merge<'a> {
        left: &'a str,
        right: &'a str,
        key: (f32, usize, usize),
    }
    let mut merges: Vec<Merge> = Vec::new();
    for (id, token) in spec.tokens.iter().enumerate() {
        // Text must never merge into a special token; the first of two equal tokens cannot be produced.
        if is_special(spec, id) || vocab.get(*token) != Some(&(id as u32)) {
            continue;
        }
        let score = spec.scores[id] + 0.0; // -0.0 counts as 0.0
        let chars = token.chars().count();
        let mut local: Vec<(u32, u32, Merge)> = Vec::new();
        for (left_chars, (cut, _)) in token.char_indices().enumerate().skip(1) {
            let (left, right) = token.split_at(cut);
            if let (Some(l), Some(r)) = (vocab.get(left), vocab.get(right)) {
                local.push((*l, *r, Merge { left, right, key: (score, left_chars, chars - left_chars) }));
            }
        }
        local.sort_by_key(|(l, r, _)| (*l, *r));
        merges.extend(local.into_iter().map(|(_, _, merge)| merge));
    }
    merges.sort_by(|a, b| {
        b.key.0.total_cmp(&a.key.0).then_with(|| (b.key.1, b.key.2).cmp(&(a.key.1, a.key.2)))
    });
    merges.into_iter().map(|m| (m.left.to_string(), m.right.to_string())).collect()
}

fn bos_eos_template(spec: &Spec) -> Result<Option<PostProcessorWrapper>> {
    let bos_by_default = spec.model == "llama" || matches!(spec.pre, "llama-bpe" | "llama-v3" | "llama3");
    let bos = spec.bos.filter(|_| spec.add_bos.unwrap_or(bos_by_default));
    let eos = spec.eos.filter(|_| spec.add_eos.unwrap_or(false));
    if bos.is_none() && eos.is_none() {
        return Ok(None);
    }
    let piece = |id: u32| serde_json::json!({"SpecialToken": {"id": spec.tokens[id as usize], "type_id": 0}});
    let template = |sequences: &[&str]| {
        let mut pieces = Vec::new();
        for sequence in sequences {
            pieces.extend(bos.map(piece));
            pieces.push(serde_json::json!({"Sequence": {"id": sequence, "type_id": 0}}));
            pieces.extend(eos.map(piece));
        }
        pieces
    };
    let mut special = serde_json::Map::new();
    for id in [bos, eos].into_iter().flatten() {
        let token = spec.tokens[id as usize];
        special.insert(token.to_string(), serde_json::json!({"id": token, "ids": [id], "tokens": [token]}));
    }
    let json = serde_json::json!({
        "type": "TemplateProcessing",
        "single": template(&["A"]),
        "pair": template(&["A", "B"]),
        "special_tokens": special,
    });
    let template = serde_json::from_value(json).map_err(|e| internal(format!("BOS/EOS template: {e}")))?;
    Ok(Some(template))
}
