"""Makes tests/data/golden/tiny: one small seeded checkpoint for each architecture and variant, as
the Hugging Face folder a user would have, with golden logits beside it (README.md).

usage: tiny_checkpoints.py [NAME ...]"""

import json
import shutil
import sys

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

import reference

BASE = {
    "bos_token_id": 0, "eos_token_id": 1, "hidden_size": 32, "intermediate_size": 48,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 272,
    "max_position_embeddings": 256, "rope_theta": 10000.0, "rope_scaling": None,
    "rms_norm_eps": 1e-3, "hidden_act": "silu", "attention_bias": False, "mlp_bias": False,
    "tie_word_embeddings": False, "torch_dtype": "float32", "initializer_range": 0.02,
}
OPT = {
    "architectures": ["OPTForCausalLM"], "model_type": "opt", "hidden_size": 32, "ffn_dim": 48,
    "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 272,
    "max_position_embeddings": 256, "word_embed_proj_dim": 32, "do_layer_norm_before": True,
    "_remove_final_layer_norm": False, "activation_function": "relu", "dropout": 0.0,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "torch_dtype": "float32",
    "layerdrop": 0.0, "attention_dropout": 0.0, "init_std": 0.02,
}


def without(config, *names):
    return {key: value for key, value in config.items() if key not in names}


def llama(**changes):
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **BASE, **changes}


def mistral(**changes):
    return {"architectures": ["MistralForCausalLM"], "model_type": "mistral",
            **without(BASE, "attention_bias", "mlp_bias"), **changes}


def qwen2(**changes):  # sliding_window stands in the file but use_sliding_window turns it off
    return {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2",
            **without(BASE, "attention_bias", "mlp_bias"), "rms_norm_eps": 2e-3,
            "use_sliding_window": False, "sliding_window": 16, "max_window_layers": 2, **changes}


def qwen3(**changes):
    return {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3",
            **without(BASE, "mlp_bias"), "rms_norm_eps": 2e-3, "rope_theta": 1000000.0,
            "use_sliding_window": False, "sliding_window": None, "max_window_layers": 2,
            **changes}


LLAMA3_ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
CONFIGS = {
    "llama_mha": llama(),
    "llama_gqa": llama(num_attention_heads=4, num_key_value_heads=2, head_dim=16,
                       tie_word_embeddings=True),
    "llama_mqa": llama(num_key_value_heads=1),
    "llama_gqa64": llama(hidden_size=64, intermediate_size=80, num_attention_heads=4,
                         num_key_value_heads=2, num_hidden_layers=1, tie_word_embeddings=True),
    "llama_bias": llama(attention_bias=True, mlp_bias=True),
    "llama31_rope": llama(num_key_value_heads=1, rope_theta=500000.0, rope_scaling=LLAMA3_ROPE,
                          eos_token_id=[1, 3]),
    # The same kind of scaling as transformers 5 writes it.
    "llama31_rope_v5": without(
        llama(num_key_value_heads=1, dtype="float32",
              rope_parameters={"rope_theta": 500000.0, **LLAMA3_ROPE}),
        "rope_theta", "rope_scaling", "torch_dtype"),
    "llama_linear_rope": llama(num_key_value_heads=1,
                               rope_scaling={"type": "linear", "factor": 2.5}),
    "llama_yarn_rope": llama(num_key_value_heads=1, rope_scaling={
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}),
    "llama_f16": llama(num_key_value_heads=1, torch_dtype="float16"),
    "llama_bf16": llama(num_key_value_heads=1, torch_dtype="bfloat16"),
    "mistral_window": mistral(num_key_value_heads=1, head_dim=16, sliding_window=24),
    "qwen2": qwen2(num_key_value_heads=1, tie_word_embeddings=True),
    "qwen2_untied": qwen2(num_attention_heads=4, num_key_value_heads=2),
    "qwen3": qwen3(num_attention_heads=4, num_key_value_heads=2, head_dim=16,
                   tie_word_embeddings=True),
    "opt_pre": OPT,
    "opt_post": {**OPT, "do_layer_norm_before": False, "word_embed_proj_dim": 16},
}
SHARDED = {"llama_mha"}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def fill(model, name, dtype):
    """Sets every parameter from its seed, rounded to the stored type; returns what is stored."""
    stored, tied = {}, model.config.tie_word_embeddings
    for key, parameter in model.named_parameters():  # a tied lm_head is not listed a second time
        values = reference.seeded_tensor(name, key, tuple(parameter.shape), tied)
        stored[key] = torch.from_numpy(np.ascontiguousarray(values)).to(dtype)
        parameter.data.copy_(stored[key].to(parameter.dtype))
    return stored


def save_weights(folder, name, stored):
    if name not in SHARDED:
        save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
        return
    keys = sorted(stored)
    parts = [keys[0::2], keys[1::2]]  # interleaved, so that each layer needs both files
    index = {"metadata": {"total_size": sum(t.nbytes for t in stored.values())}, "weight_map": {}}
    for number, part in enumerate(parts, 1):
        file = f"model-{number:05}-of-{len(parts):05}.safetensors"
        save_file({key: stored[key] for key in part}, folder / file, metadata={"format": "pt"})
        index["weight_map"] |= dict.fromkeys(part, file)
    reference.write_json(folder / "model.safetensors.index.json", index)


def check_reload(folder, name, model):
    """The folder as a user would load it must be the model whose logits were stored."""
    reloaded, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    tokens = reference.prompts(name)[1]
    again = reference.logits_of(reloaded, tokens)
    assert np.array_equal(again, reference.logits_of(model, tokens)), name


def make(name, config):
    folder = reference.GOLDEN / "tiny" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    reference.write_json(folder / "config.json", config)
    reference.write_json(folder / "generation_config.json", {
        "bos_token_id": 0, "eos_token_id": config["eos_token_id"], "do_sample": True,
        "temperature": 0.6, "top_p": 0.9})
    reference.save_tokenizer(folder)
    dtype = DTYPES[config.get("torch_dtype", config.get("dtype"))]
    loaded = AutoConfig.from_pretrained(folder)
    model = AutoModelForCausalLM.from_config(
        loaded, dtype=torch.float32, attn_implementation="eager").eval()
    save_weights(folder, name, fill(model, name, dtype))
    reference.save_golden(folder / "golden.safetensors", name, model)
    check_reload(folder, name, model)


def main():
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    for name in sys.argv[1:] or CONFIGS:
        make(name, CONFIGS[name])


if __name__ == "__main__":
    main()
