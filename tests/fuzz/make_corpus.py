"""Writes tests/fuzz/corpus: small well-formed and nearly well-formed files from which the fuzzers
start. Inputs that once failed are kept beside them under their own names.

usage: make_corpus.py"""

import json
import pathlib
import struct

CORPUS = pathlib.Path(__file__).parent / "corpus"
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
CODES = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q",
         I64: "q", F64: "d"}


def text(value):
    return struct.pack("<Q", len(value.encode())) + value.encode()


def value(kind, item):
    if kind == STRING:
        return text(item)
    if kind == ARRAY:
        element, items = item
        return struct.pack("<IQ", element, len(items)) + b"".join(value(element, x) for x in items)
    return struct.pack("<" + CODES[kind], item)


def gguf(values, tensors=(), version=3, alignment=32, order="<"):
    """tensors: (name, dims innermost first, type id, data)"""
    out = b"GGUF" + struct.pack(order + "IQQ", version, len(tensors), len(values))
    for key, (kind, item) in values.items():
        out += text(key) + struct.pack("<I", kind) + value(kind, item)
    offset, data = 0, b""
    for name, dims, kind, payload in tensors:
        out += text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, len(data))
        data += payload + bytes(-len(payload) % alignment)
    return out + bytes(-len(out) % alignment) + data


def llama(arch="llama", **more):
    values = {
        "general.architecture": (STRING, arch), f"{arch}.block_count": (U32, 1),
        f"{arch}.embedding_length": (U32, 4), f"{arch}.feed_forward_length": (U32, 4),
        f"{arch}.attention.head_count": (U32, 2), f"{arch}.attention.head_count_kv": (U32, 1),
        f"{arch}.context_length": (U32, 16), f"{arch}.rope.freq_base": (F32, 1e4),
        f"{arch}.attention.layer_norm_rms_epsilon": (F32, 1e-5),
        "tokenizer.ggml.model": (STRING, "gpt2"), "tokenizer.ggml.pre": (STRING, "smollm"),
        "tokenizer.ggml.tokens": (ARRAY, (STRING, ["a", "b", "ab"])),
        "tokenizer.ggml.merges": (ARRAY, (STRING, ["a b"])),
        "tokenizer.ggml.token_type": (ARRAY, (I32, [1, 1, 3])),
        "tokenizer.ggml.eos_token_id": (U32, 2), "tokenizer.ggml.eot_token_id": (U32, 1),
        "tokenizer.ggml.add_bos_token": (BOOL, True)}
    return values | more


def every_type():
    return {"u8": (U8, 1), "i8": (I8, -1), "u16": (U16, 2), "i16": (I16, -2), "u32": (U32, 3),
            "i32": (I32, -3), "f32": (F32, 0.5), "bool": (BOOL, True), "string": (STRING, "x"),
            "u64": (U64, 1 << 40), "i64": (I64, -4), "f64": (F64, 0.25),
            "reals": (ARRAY, (F64, [1.0, 2.0])), "bools": (ARRAY, (BOOL, [True, False])),
            "nested": (ARRAY, (ARRAY, [(U16, [1, 2]), (ARRAY, [(STRING, ["y"])])]))}


def safetensors(header, data=b""):
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


CONFIG = {"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2,
          "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96,
          "vocab_size": 256, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
          "eos_token_id": [1, 2], "hidden_act": "silu", "rope_theta": 10000.0}


def scaled(**scaling):
    return CONFIG | {"rope_scaling": scaling}


FILES = {
    "gguf/llama_v3": gguf(llama(), [("token_embd.weight", (4, 3), 0, bytes(48)),
                                    ("blk.0.attn_q.weight", (4, 4), 1, bytes(32))]),
    "gguf/qwen2_v2": gguf(llama("qwen2"), [("token_embd.weight", (4, 3), 30, bytes(24))],
                          version=2),
    "gguf/yarn": gguf(llama(**{"llama.rope.scaling.type": (STRING, "yarn"),
                               "llama.rope.scaling.factor": (F32, 4.0),
                               "llama.rope.scaling.original_context_length": (U32, 4)}),
                      [("token_embd.weight", (4, 3), 0, bytes(48)),
                       ("rope_freqs.weight", (1,), 0, struct.pack("<f", 2.0))]),
    "gguf/every_type": gguf(every_type()),
    "gguf/quantised": gguf({"general.alignment": (U32, 64)},
                           [("a", (32, 2), 2, bytes(36)), ("b", (256, 1), 12, bytes(144)),
                            ("c", (32,), 8, bytes(34))], alignment=64),
    "gguf/split": gguf({"split.no": (U16, 0), "split.count": (U16, 2)}),
    "gguf/empty": gguf({}),
    "gguf/big_endian": gguf({}, order=">"),
    "safetensors/two": safetensors({"__metadata__": {"format": "pt"},
                                    "a": entry("F32", [2, 2], 0, 16),
                                    "b": entry("BF16", [4], 16, 24)}, bytes(24)),
    "safetensors/gap": safetensors({"a": entry("I64", [1], 8, 16), "b": entry("U8", [], 0, 1)},
                                   bytes(16)),
    "safetensors/empty": safetensors({}),
    "config_json/llama": json.dumps(CONFIG).encode(),
    "config_json/llama3": json.dumps(scaled(
        rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=64)).encode(),
    "config_json/yarn": json.dumps(scaled(
        type="yarn", factor=4.0, original_max_position_embeddings=32, beta_fast=16,
        mscale=1.0, mscale_all_dim=0.5)).encode(),
    "config_json/linear": json.dumps(scaled(type="linear", factor=2)).encode(),
    "config_json/mistral": json.dumps(CONFIG | {
        "architectures": ["MistralForCausalLM"], "sliding_window": 32, "head_dim": 32}).encode(),
    "config_json/qwen3": json.dumps(CONFIG | {
        "architectures": ["Qwen3ForCausalLM"], "use_sliding_window": True, "sliding_window": 8,
        "layer_types": ["full_attention", "sliding_attention"],
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}).encode(),
    "config_json/opt": json.dumps({
        "architectures": ["OPTForCausalLM"], "hidden_size": 32, "ffn_dim": 48,
        "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 272,
        "max_position_embeddings": 256, "word_embed_proj_dim": 16, "do_layer_norm_before": False,
        "activation_function": "relu"}).encode(),
    "config_json/generation": json.dumps({
        "do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 50, "min_p": 0.1,
        "repetition_penalty": 1.1, "eos_token_id": [1, 2]}).encode(),
}


def main():
    for name, data in FILES.items():
        assert len(data) < 4096, name
        path = CORPUS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        print(f"{len(data):5} {name}")


if __name__ == "__main__":
    main()
