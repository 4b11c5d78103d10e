"""Makes tests/data/golden/tiny_gguf: one small GGUF file for each weight format and architecture,
with golden logits of transformers on the same dequantised weights (README.md).

usage: tiny_gguf.py [NAME ...]"""

import re
import sys

import numpy as np
import torch
from gguf import GGUFWriter
from gguf.constants import GGMLQuantizationType as Type
from gguf.quants import quantize

import blocks
import gguf_weights
import reference

FOLDER = reference.GOLDEN / "tiny_gguf"
K_QUANTS = {Type.Q4_K, Type.Q5_K, Type.Q6_K}


def model(arch="llama", **changes):
    shape = {"arch": arch, "type": Type.Q8_0, "hidden": 64, "inter": 96, "layers": 2, "heads": 4,
             "kv_heads": 2, "head_dim": 16, "tied": True, "rope": {}, "split": 0}
    return {**shape, **changes}


SMALL = {"hidden": 32, "inter": 48, "heads": 2, "kv_heads": 1}
# As llama.cpp's converter writes the scaling of Llama 3.1: a divisor of each frequency.
LLAMA3 = {"factor": 8.0, "low": 1.0, "high": 4.0, "original": 64}
MODELS = {
    "llama_f32": model(type=Type.F32, **SMALL),
    "llama_f16": model(type=Type.F16, **SMALL),
    "llama_bf16": model(type=Type.BF16, **SMALL, tied=False),
    "llama_q8_0": model(type=Type.Q8_0),
    "llama_q4_0": model(type=Type.Q4_0),
    "llama_q4_1": model(type=Type.Q4_1),
    "llama_q5_0": model(type=Type.Q5_0),
    "llama_q5_1": model(type=Type.Q5_1),
    # As in real files: most tensors of one type, v and down and the embedding of a finer one.
    "llama_k_quants": model(type=Type.Q4_K, hidden=256, inter=256, layers=1, kv_heads=1,
                            head_dim=64, types={"attn_v": Type.Q6_K, "ffn_down": Type.Q5_K,
                                                "attn_output": Type.Q5_K, "attn_k": Type.Q5_K,
                                                "token_embd": Type.Q6_K}),
    "llama31_q8_0": model(type=Type.Q8_0, rope={"theta": 500000.0, "llama3": LLAMA3}),
    "llama_yarn_q8_0": model(type=Type.Q8_0, rope={
        "scaling": "yarn", "factor": 4.0, "original": 64}),
    "qwen2_q5_0": model("qwen2", type=Type.Q5_0, tied=False),
    "qwen3_q4_0": model("qwen3", type=Type.Q4_0, head_dim=32, kv_heads=1),
    "llama_split": model(type=Type.Q8_0, tied=False, split=11),
}


def tensor_shapes(spec):
    """GGUF names and shapes, in the order of real files."""
    hidden, inter = spec["hidden"], spec["inter"]
    q, kv = spec["heads"] * spec["head_dim"], spec["kv_heads"] * spec["head_dim"]
    shapes = {"token_embd.weight": (reference.VOCAB, hidden)}
    for layer in range(spec["layers"]):
        block = {"attn_norm.weight": (hidden,), "ffn_down.weight": (hidden, inter),
                 "ffn_gate.weight": (inter, hidden), "ffn_up.weight": (inter, hidden),
                 "ffn_norm.weight": (hidden,), "attn_k.weight": (kv, hidden),
                 "attn_output.weight": (hidden, q), "attn_q.weight": (q, hidden),
                 "attn_v.weight": (kv, hidden)}
        if spec["arch"] == "qwen2":
            block |= {"attn_q.bias": (q,), "attn_k.bias": (kv,), "attn_v.bias": (kv,)}
        if spec["arch"] == "qwen3":
            block |= {"attn_q_norm.weight": (spec["head_dim"],),
                      "attn_k_norm.weight": (spec["head_dim"],)}
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
    shapes["output_norm.weight"] = (hidden,)
    if not spec["tied"]:
        shapes["output.weight"] = (reference.VOCAB, hidden)
    return shapes


def add_tensor(writer, name, spec, key, shape):
    values = reference.seeded_tensor(
        name, gguf_weights.transformers_name(key), shape, spec["tied"]).astype(np.float32)
    match = re.fullmatch(r"(?:blk\.\d+\.)?(\w+)\.(\w+)", key)
    if len(shape) == 1:
        writer.add_tensor(key, values)
        return
    kind = spec.get("types", {}).get(match[1], spec["type"])
    if kind in K_QUANTS:
        rng = reference.generator(name, key)
        data = blocks.random_blocks(rng, kind, shape, deviation=float(values.std()))
    else:
        if spec["arch"] == "llama" and match[1] in ("attn_q", "attn_k"):
            values = gguf_weights.to_interleaved(
                values, spec["heads"] if match[1] == "attn_q" else spec["kv_heads"])
        data = quantize(values, kind)
    writer.add_tensor(key, data, raw_dtype=kind)


def add_shape(writer, name, spec):
    writer.add_name(name)
    writer.add_license("apache-2.0")
    writer.add_context_length(256)
    writer.add_embedding_length(spec["hidden"])
    writer.add_block_count(spec["layers"])
    writer.add_feed_forward_length(spec["inter"])
    writer.add_head_count(spec["heads"])
    writer.add_head_count_kv(spec["kv_heads"])
    if spec["head_dim"] * spec["heads"] != spec["hidden"]:
        writer.add_key_length(spec["head_dim"])
        writer.add_value_length(spec["head_dim"])
    writer.add_layer_norm_rms_eps(1e-3)
    writer.add_rope_dimension_count(spec["head_dim"])
    writer.add_vocab_size(reference.VOCAB)
    rope = spec["rope"]
    writer.add_rope_freq_base(rope.get("theta", 10000.0))
    if "scaling" in rope:
        writer.add_string(f"{spec['arch']}.rope.scaling.type", rope["scaling"])
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original"])


def add_tokenizer(writer, spec):
    tokens = reference.vocabulary()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2" if spec["arch"].startswith("qwen") else "gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf_weights.CONTROL if token in reference.SPECIAL else 1
                            for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in reference.MERGES])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_eot_token_id(3)
    writer.add_add_bos_token(False)
    writer.add_chat_template(reference.CHAT_TEMPLATE)


def llama3_divisors(spec):
    """By how much Llama 3.1 divides each inverse frequency (wavelengths against the context of the
    first training: short ones stay, long ones are divided by the factor, smooth between)."""
    rope, size = spec["rope"]["llama3"], spec["head_dim"]
    wavelength = 2 * np.pi * spec["rope"]["theta"] ** (np.arange(0, size, 2) / size)
    smooth = (rope["original"] / wavelength - rope["low"]) / (rope["high"] - rope["low"])
    smooth = np.clip(smooth, 0.0, 1.0)
    return (1 / ((1 - smooth) / rope["factor"] + smooth)).astype(np.float32)


def write(name, spec):
    for old in FOLDER.glob(f"{name}*"):
        old.unlink()
    path = FOLDER / f"{name}.gguf"
    writer = GGUFWriter(path, spec["arch"], split_max_tensors=spec["split"])
    add_shape(writer, name, spec)
    add_tokenizer(writer, spec)
    if "llama3" in spec["rope"]:
        writer.add_tensor("rope_freqs.weight", llama3_divisors(spec))
    for key, shape in tensor_shapes(spec).items():
        add_tensor(writer, name, spec, key, shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(FOLDER.glob(f"{name}*.gguf"))


def main():
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[1:] or MODELS:
        paths = write(name, MODELS[name])
        reference.save_golden(FOLDER / f"{name}.golden.safetensors", name,
                              gguf_weights.load_model(*paths), every=15)


if __name__ == "__main__":
    main()
