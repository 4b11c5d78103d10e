"""Reads a GGUF file of the Llama, Qwen2 or Qwen3 architecture into a transformers model in float32,
by way of the gguf package's dequantisation, and its byte-level BPE tokenizer into a transformers
tokenizer. GGUF stores the rows of Llama's q and k in the order of interleaved RoPE (rows 2i and
2i+1 rotate together); transformers wants the two halves of each head apart."""

import pathlib
import re

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast, Qwen2Config,
                          Qwen3Config)

CONFIGS = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}
LAYER_NAMES = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
TOP_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
CONTROL = 3  # tokenizer.ggml.token_type of special tokens


def to_interleaved(rows, num_heads):
    """transformers' row order of q or k to GGUF's."""
    halves = rows.reshape(num_heads, 2, -1, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


def to_halves(rows, num_heads):
    """GGUF's row order of q or k to transformers'."""
    pairs = rows.reshape(num_heads, -1, 2, *rows.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows.shape)


def transformers_name(name):
    layer = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    if layer:
        return f"model.layers.{layer[1]}.{LAYER_NAMES[layer[2]]}.{layer[3]}"
    stem, kind = name.rsplit(".", 1)
    return f"{TOP_NAMES[stem]}.{kind}"


class Metadata:
    def __init__(self, reader):
        self.fields = reader.fields
        self.architecture = self["general.architecture"]

    def __getitem__(self, key):
        return self.fields[key].contents()

    def get(self, key, default=None):
        return self[key] if key in self.fields else default

    def own(self, key, default=None):
        return self.get(f"{self.architecture}.{key}", default)


def rope_of(meta):
    rope = {"rope_type": "default", "rope_theta": meta.own("rope.freq_base", 10000.0)}
    scaling = meta.own("rope.scaling.type", "none")
    if scaling == "linear":
        rope |= {"rope_type": "linear", "factor": meta.own("rope.scaling.factor")}
    elif scaling == "yarn":
        rope |= {"rope_type": "yarn", "factor": meta.own("rope.scaling.factor"),
                 "original_max_position_embeddings":
                     meta.own("rope.scaling.original_context_length")}
    else:
        assert scaling == "none", scaling
    return rope


def config_of(meta, tied):
    heads, hidden = meta.own("attention.head_count"), meta.own("embedding_length")
    return CONFIGS[meta.architecture](
        hidden_size=hidden, num_attention_heads=heads, tie_word_embeddings=tied,
        num_key_value_heads=meta.own("attention.head_count_kv", heads),
        head_dim=meta.own("attention.key_length", hidden // heads),
        intermediate_size=meta.own("feed_forward_length"),
        num_hidden_layers=meta.own("block_count"),
        vocab_size=len(meta["tokenizer.ggml.tokens"]),
        max_position_embeddings=meta.own("context_length"),
        rms_norm_eps=meta.own("attention.layer_norm_rms_epsilon"),
        rope_parameters=rope_of(meta))


def load_model(*paths):
    """The model of a GGUF file, or of all parts of a split one; the metadata are in the first."""
    readers = [GGUFReader(path) for path in paths]
    meta = Metadata(readers[0])
    tensors = [tensor for reader in readers for tensor in reader.tensors]
    config = config_of(meta, tied=all(tensor.name != "output.weight" for tensor in tensors))
    state, frequency_factors = {}, None
    for tensor in tensors:
        if tensor.name == "rope_freqs.weight":
            frequency_factors = torch.from_numpy(tensor.data.copy())
            continue
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        name = transformers_name(tensor.name)
        if meta.architecture == "llama" and re.search(r"attn_[qk]\.", tensor.name):
            q = "attn_q" in tensor.name
            values = to_halves(
                values, config.num_attention_heads if q else config.num_key_value_heads)
        state[name] = torch.from_numpy(values)
    model = AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation="eager").eval()
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()
    if frequency_factors is not None:  # how GGUF says Llama 3.1's scaling
        model.model.rotary_emb.inv_freq /= frequency_factors
    return model


def load_tokenizer(path: pathlib.Path):
    """gpt2-type BPE with pre-tokenizer "smollm" (each digit by itself, then GPT-2's pattern)."""
    meta = Metadata(GGUFReader(path))
    assert meta["tokenizer.ggml.model"] == "gpt2" and meta["tokenizer.ggml.pre"] == "smollm"
    tokens = meta["tokenizer.ggml.tokens"]
    tokenizer = Tokenizer(models.BPE(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=[tuple(merge.split(" ")) for merge in meta["tokenizer.ggml.merges"]]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    kinds = meta["tokenizer.ggml.token_type"]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True)
                                  for token, kind in zip(tokens, kinds) if kind == CONTROL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, chat_template=meta["tokenizer.chat_template"],
        clean_up_tokenization_spaces=False)
