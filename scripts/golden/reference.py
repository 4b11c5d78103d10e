"""Shared by the makers of golden files: seeded weights, the float64 reference run, the tiny
tokenizer, and the one layout in which every golden logit is stored."""

import contextlib
import json
import pathlib
import zlib

import numpy as np
import torch
from safetensors.numpy import save_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "data" / "golden"
SEED = 20261122
VOCAB = 272  # 4 special tokens, 256 bytes, 12 merges
LENGTHS = (1, 17, 150)


def generator(*names):
    """A generator of its own for every thing made, so that adding one leaves the others alone."""
    return np.random.default_rng([SEED, *(zlib.crc32(str(name).encode()) for name in names)])


def prompts(name, vocab=VOCAB):
    rng = generator(name, "prompts")
    return [rng.integers(4, vocab, size=length, dtype=np.int32) for length in LENGTHS]


def kept_positions(length, every):
    """Positions whose logits are stored: all of a short prompt; of a long one every `every`-th and
    the last eight, which the keys and values of all other positions reach through attention."""
    if length <= 32:
        return np.arange(length, dtype=np.int32)
    return np.array(sorted({*range(0, length, every), *range(length - 8, length)}), dtype=np.int32)


@contextlib.contextmanager
def all_in_double():
    """transformers casts norms, softmax and RoPE to float32 by name; inside this context that name
    means float64, so a model turned to double stays double throughout."""
    float32, to_float = torch.float32, torch.Tensor.float
    try:
        torch.float32, torch.Tensor.float = torch.float64, torch.Tensor.double
        yield
    finally:
        torch.float32, torch.Tensor.float = float32, to_float


def logits_of(model, tokens, double=True):
    """[T, V] float32 logits of one sequence, computed in float64 (or in float32, to see what the
    difference is worth)."""
    model = model.double() if double else model.float()
    ids = torch.from_numpy(tokens.astype(np.int64))[None]
    with torch.no_grad(), all_in_double() if double else contextlib.nullcontext():
        logits = model(input_ids=ids, use_cache=False).logits[0]
    assert logits.dtype == (torch.float64 if double else torch.float32)
    return logits.numpy().astype(np.float32)


def save_golden(path, name, model, every=5):
    """tokens_i I32 [T], positions_i I32 [R], logits_i F32 [R, V] for i = 0, 1, 2."""
    tensors, worst, lowest, highest = {}, 0.0, np.inf, -np.inf
    for i, tokens in enumerate(prompts(name)):
        logits = logits_of(model, tokens)
        single = logits_of(model, tokens, double=False)
        kept = kept_positions(len(tokens), every)
        assert np.isfinite(logits).all()
        worst = max(worst, float(np.abs(logits - single).max()))
        lowest, highest = min(lowest, logits.min()), max(highest, logits.max())
        tensors |= {f"tokens_{i}": tokens, f"positions_{i}": kept, f"logits_{i}": logits[kept]}
    import transformers

    about = (f"float64 by transformers {transformers.__version__}, torch {torch.__version__}, "
             f"stored as float32; seed {SEED}")
    # One key only: safetensors writes several in an order that changes from run to run.
    save_file(tensors, path, metadata={"about": about})
    share = worst / (highest - lowest)
    print(f"{name:24} logits {lowest:7.2f} .. {highest:6.2f}  float32 differs {share:.1e} of range")
    assert share < 1e-5, "float32 and float64 of the reference disagree"


def byte_alphabet():
    """The printable stand-in of each byte in byte-level BPE (as GPT-2 defines it)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, extra = {}, 0
    for byte in range(256):
        if byte in shown:
            table[byte] = chr(byte)
        else:
            table[byte] = chr(256 + extra)
            extra += 1
    return [table[byte] for byte in range(256)]


SPECIAL = ["<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>"]
MERGES = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("i", "n"), ("e", "r"), ("o", "n"), ("a", "n"),
          ("Ġ", "a"), ("in", "g"), ("an", "d"), ("Ġ", "and"), ("r", "e")]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


def vocabulary():
    tokens = SPECIAL + byte_alphabet() + ["".join(pair) for pair in MERGES]
    assert len(tokens) == len(set(tokens)) == VOCAB
    return tokens


def save_tokenizer(folder):
    """tokenizer.json and tokenizer_config.json of a byte-level BPE over VOCAB tokens."""
    added = [{"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": True} for i, text in enumerate(SPECIAL)]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                  "use_regex": True}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": None, "pre_tokenizer": byte_level, "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(vocabulary())},
            "merges": [" ".join(pair) for pair in MERGES],
        },
    }
    write_json(folder / "tokenizer.json", tokenizer, indent=None)
    write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": SPECIAL[0],
        "eos_token": SPECIAL[3], "chat_template": CHAT_TEMPLATE, "model_max_length": 256,
        "clean_up_tokenization_spaces": False})


def write_json(path, value, indent=2):
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")


def seeded_tensor(model_name, name, shape, tied):
    """Weights that make every part matter: norms far from one, biases far from zero, attention
    scores of order one, logits of order ten."""
    rng = generator(model_name, name)
    values = rng.standard_normal(shape)
    if "norm" in name and name.endswith("weight"):
        return 1.0 + 0.3 * values
    if name.endswith("bias"):
        return 0.3 * values
    if "embed_positions" in name:
        return 0.5 * values
    if "embed_tokens" in name:
        return (1.8 / np.sqrt(shape[1]) if tied else 1.0) * values
    gain = 1.8 if "lm_head" in name else 1.3
    return gain / np.sqrt(shape[1]) * values
