//! One tokenizer: two pipelines over one shared model, because whether the text of a special token is
//! recognised is a property of a pipeline's added vocabulary, and a setter would race.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokenizers::{
    AddedToken, DecoderWrapper, Model, ModelWrapper, NormalizerWrapper, PostProcessorWrapper,
    PreTokenizerWrapper, Token, Trainer,
};

use crate::error::{data_loss, internal, invalid, Result};

type CrateResult<T> = tokenizers::Result<T>;

/// The model of both pipelines: vocabulary and merges are held once.
#[derive(Clone)]
pub struct SharedModel(Arc<ModelWrapper>);

impl Model for SharedModel {
    type Trainer = NoTrainer;

    fn tokenize(&self, sequence: &str) -> CrateResult<Vec<Token>> {
        self.0.tokenize(sequence)
    }
    fn token_to_id(&self, token: &str) -> Option<u32> {
        self.0.token_to_id(token)
    }
    fn id_to_token(&self, id: u32) -> Option<String> {
        self.0.id_to_token(id)
    }
    fn get_vocab(&self) -> HashMap<String, u32> {
        self.0.get_vocab()
    }
    fn get_vocab_size(&self) -> usize {
        self.0.get_vocab_size()
    }
    fn save(&self, folder: &Path, prefix: Option<&str>) -> CrateResult<Vec<PathBuf>> {
        self.0.save(folder, prefix)
    }
    fn get_trainer(&self) -> NoTrainer {
        NoTrainer
    }
}

/// The trait asks for a trainer; a tokenizer here is only used, never trained.
pub struct NoTrainer;

impl Trainer for NoTrainer {
    type Model = SharedModel;

    fn should_show_progress(&self) -> bool {
        false
    }
    fn train(&self, _model: &mut SharedModel) -> CrateResult<Vec<AddedToken>> {
        Err("training is not part of this library".into())
    }
    fn feed<I, S, F>(&mut self, _iterator: I, _process: F) -> CrateResult<()>
    where
        I: Iterator<Item = S> + Send,
        S: AsRef<str> + Send,
        F: Fn(&str) -> CrateResult<Vec<String>> + Sync,
    {
        Err("training is not part of this library".into())
    }
}

pub type Pipeline = tokenizers::TokenizerImpl<
    SharedModel,
    NormalizerWrapper,
    PreTokenizerWrapper,
    PostProcessorWrapper,
    DecoderWrapper,
>;

/// What a loader hands over: the parts of a pipeline.
pub struct Parts {
    pub model: ModelWrapper,
    pub normalizer: Option<NormalizerWrapper>,
    pub pre_tokenizer: Option<PreTokenizerWrapper>,
    pub post_processor: Option<PostProcessorWrapper>,
    pub decoder: Option<DecoderWrapper>,
}

pub struct Tokenizer {
    /// Recognises special tokens in text.
    parsing: Pipeline,
    /// Treats them as text.
    plain: Pipeline,
    special: HashSet<u32>,
    vocab_size: u32,
}

impl Tokenizer {
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let whole = tokenizers::Tokenizer::from_bytes(json)
            .map_err(|e| data_loss(format!("tokenizer.json cannot be read: {e}; download it again")))?;
        let parts = Parts {
            model: whole.get_model().clone(),
            normalizer: whole.get_normalizer().cloned(),
            pre_tokenizer: whole.get_pre_tokenizer().cloned(),
            post_processor: whole.get_post_processor().cloned(),
            decoder: whole.get_decoder().cloned(),
        };
        let added = whole.get_added_vocabulary().clone();
        drop(whole);
        let mut pipeline = assemble(parts)?;
        pipeline.with_added_vocabulary(added);
        Ok(Self::from_pipeline(pipeline, 0))
    }

    /// `added` must be in the model's vocabulary already, which gives them their ids.
    pub fn from_parts(parts: Parts, added: Vec<AddedToken>, min_vocab_size: u32) -> Result<Self> {
        let mut pipeline = assemble(parts)?;
        pipeline.add_tokens(added).map_err(|e| internal(format!("added tokens: {e}")))?;
        Ok(Self::from_pipeline(pipeline, min_vocab_size))
    }

    fn from_pipeline(parsing: Pipeline, min_vocab_size: u32) -> Self {
        let mut plain = parsing.clone();
        plain.set_encode_special_tokens(true);
        let added = parsing.get_added_vocabulary();
        let special = added
            .get_added_tokens_decoder()
            .iter()
            .filter(|(_, token)| added.is_special_token(&token.content))
            .map(|(id, _)| *id)
            .collect();
        let highest = parsing.get_vocab(true).values().map(|id| id.saturating_add(1)).max();
        let vocab_size = highest.unwrap_or(0).max(min_vocab_size);
        Tokenizer { parsing, plain, special, vocab_size }
    }

    pub fn encode(&self, text: &[u8], add_special: bool, parse_special: bool) -> Result<Vec<i32>> {
        let text = std::str::from_utf8(text).map_err(|e| {
            invalid(format!(
                "the text is not valid UTF-8: first bad byte 0x{:02x} at offset {} of {}; convert it to UTF-8",
                text[e.valid_up_to()],
                e.valid_up_to(),
                text.len()
            ))
        })?;
        let pipeline = if parse_special { &self.parsing } else { &self.plain };
        let encoding =
            pipeline.encode_fast(text, add_special).map_err(|e| internal(format!("encode: {e}")))?;
        let ids = encoding.get_ids();
        if parse_special {
            return Ok(ids.iter().map(|id| *id as i32).collect());
        }
        let mask = encoding.get_special_tokens_mask();
        let mut out = Vec::with_capacity(ids.len());
        for (id, from_template) in ids.iter().zip(mask) {
            if *from_template == 0 && self.special.contains(id) {
                self.spell_out(*id, &mut out)?;
            } else {
                out.push(*id as i32);
            }
        }
        Ok(out)
    }

    /// A model whose vocabulary holds its special tokens can produce one from plain text (a merge that spells
    /// it, `ignore_merges`, a Unigram piece). Such text stays text: it is encoded character by character.
    fn spell_out(&self, id: u32, out: &mut Vec<i32>) -> Result<()> {
        let token = self.id_to_token(id).unwrap_or_default();
        let mut buffer = [0u8; 4];
        for character in token.chars() {
            let pieces = self
                .plain
                .get_model()
                .tokenize(character.encode_utf8(&mut buffer))
                .map_err(|e| internal(format!("encode: {e}")))?;
            out.extend(pieces.iter().map(|piece| piece.id as i32));
        }
        Ok(())
    }

    pub fn decode(&self, ids: &[i32], skip_special: bool) -> Result<String> {
        // An id outside the vocabulary has no text; a negative one maps outside.
        let ids: Vec<u32> = ids.iter().map(|id| *id as u32).collect();
        self.parsing.decode(&ids, skip_special).map_err(|e| internal(format!("decode: {e}")))
    }

    /// The text form of an id as decoding sees it; None if it contributes nothing.
    pub fn piece(&self, id: i32, skip_special: bool) -> Option<String> {
        let token = self.id_to_token(id as u32)?;
        let hidden = skip_special && self.parsing.get_added_vocabulary().is_special_token(&token);
        (!hidden).then_some(token)
    }

    pub fn decoder(&self) -> Option<&DecoderWrapper> {
        self.parsing.get_decoder()
    }

    pub fn vocab_size(&self) -> i32 {
        self.vocab_size as i32
    }

    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.parsing.token_to_id(token)
    }

    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.parsing.id_to_token(id)
    }

    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }
}

fn assemble(parts: Parts) -> Result<Pipeline> {
    let mut pipeline = Pipeline::new(SharedModel(Arc::new(parts.model)));
    pipeline.with_normalizer(parts.normalizer).map_err(|e| internal(format!("normalizer: {e}")))?;
    pipeline.with_pre_tokenizer(parts.pre_tokenizer);
    pipeline.with_post_processor(parts.post_processor);
    pipeline.with_decoder(parts.decoder);
    // Truncation and padding of the file are training settings: a prompt is never cut silently.
    Ok(pipeline)
}
