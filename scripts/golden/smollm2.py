"""Reference values of the default model: transformers' LlamaForCausalLM in float32 on the weights
of the GGUF file, dequantised. Makes

  tests/data/golden/smollm2/logits.safetensors   compact logits of 512 positions of real text
  tests/data/golden/smollm2/greedy.json          greedy answers to 64 conversations
  ~/.cache/quire/golden/smollm2_reference.safetensors   every logit, for `perplexity --kl-base`

README.md states the three layouts.

usage: smollm2.py [--model FILE] [--text FILE] [--chunks N] [--only logits|greedy]"""

import argparse
import hashlib
import os
import pathlib

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file

import gguf_weights
import reference
from chat_prompts import conversations

CONTEXT = 512
TOP = 64
COLUMNS = 192
GENERATED = 40
END_OF_TURN = 2  # <|im_end|>
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "quire"
MODEL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
VERSIONS = f"float32 by transformers {transformers.__version__}, torch {torch.__version__}"


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def chunk_logits(model, tokens):
    """[C, T, V] float32; chunks are evaluated by themselves, each from an empty cache."""
    with torch.no_grad():
        return np.concatenate([
            model(input_ids=torch.from_numpy(chunk.astype(np.int64))[None], use_cache=False)
            .logits.numpy() for chunk in tokens])


def save_full(tokens, logits):
    path = CACHE / "golden" / "smollm2_reference.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"model_sha256": MODEL_SHA256, "context": str(CONTEXT), "about": VERSIONS}
    partial = path.with_suffix(".partial")
    save_file({"tokens": tokens, "logits": logits}, partial, metadata=metadata)
    partial.rename(path)
    print(f"{path}: {path.stat().st_size:,} bytes, {tokens.shape[0]} chunks")


def save_compact(tokens, logits):
    """Of the first chunk: the best 64 of each position, the logarithm of the sum over all, and a
    random but fixed set of columns."""
    ids = np.argsort(-logits, axis=1, kind="stable")[:, :TOP].astype(np.int32)
    wide = logits.astype(np.float64)
    highest = wide.max(axis=1, keepdims=True)
    total = highest[:, 0] + np.log(np.exp(wide - highest).sum(axis=1))
    columns = reference.generator("smollm2", "columns").choice(
        logits.shape[1], COLUMNS, replace=False)
    columns = np.sort(columns).astype(np.int32)
    tensors = {
        "tokens": tokens, "top_ids": ids,
        "top_logits": np.take_along_axis(logits, ids.astype(np.int64), axis=1),
        "logsumexp": total.astype(np.float32), "columns": columns,
        "column_logits": np.ascontiguousarray(logits[:, columns]),
        "range": np.array([logits.min(), logits.max()], dtype=np.float32),
    }
    path = reference.GOLDEN / "smollm2" / "logits.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"about": VERSIONS})
    rest = 1 - np.exp(tensors["top_logits"] - total[:, None]).sum(axis=1)
    print(f"{path}: range {logits.min():.3f} .. {logits.max():.3f}; probability outside the best "
          f"{TOP}: mean {rest.mean():.4f}, highest {rest.max():.4f}")


def make_logits(model, tokenizer, text, chunks):
    ids = tokenizer.encode(text.read_text(encoding="utf-8"), add_special_tokens=False)
    assert len(ids) >= chunks * CONTEXT, f"{text} has only {len(ids)} tokens"
    tokens = np.array(ids[:chunks * CONTEXT], dtype=np.int32).reshape(chunks, CONTEXT)
    logits = chunk_logits(model, tokens)
    assert np.isfinite(logits).all()
    save_full(tokens, logits)
    save_compact(tokens[0], logits[0])
    after = logits[:, :-1].astype(np.float64)
    spread = np.log(np.exp(after - after.max(-1, keepdims=True)).sum(-1)) + after.max(-1)
    chosen = np.take_along_axis(after, tokens[:, 1:, None].astype(np.int64), axis=-1)[..., 0]
    print(f"perplexity over all positions {np.exp((spread - chosen).mean()):.4f}, over positions "
          f"{CONTEXT // 2}.. {np.exp((spread - chosen)[:, CONTEXT // 2:].mean()):.4f}")


def greedy(model, prompt):
    """Greedy ids (the end token included) and, for each, how far the best logit leads the next."""
    generated, margins, cache, step = [], [], None, prompt
    while len(generated) < GENERATED and generated[-1:] != [END_OF_TURN]:
        with torch.no_grad():
            out = model(input_ids=torch.tensor([step]), past_key_values=cache, use_cache=True)
        best = torch.topk(out.logits[0, -1], 2)
        generated.append(int(best.indices[0]))
        margins.append(round(float(best.values[0] - best.values[1]), 5))
        cache, step = out.past_key_values, generated[-1:]
    return generated, margins


def make_greedy(model, tokenizer):
    answers = []
    for messages in conversations():
        prompt = tokenizer.encode(
            tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False),
            add_special_tokens=False)
        generated, margins = greedy(model, prompt)
        stopped = generated[-1] == END_OF_TURN
        answers.append({
            "messages": messages, "prompt_ids": prompt, "generated_ids": generated,
            "finish_reason": "stop" if stopped else "length", "margins": margins,
            "text": tokenizer.decode(generated[:-1] if stopped else generated)})
        print(f"{len(answers):2} least margin {min(margins):.4f} {answers[-1]['text'][:70]!r}",
              flush=True)
    rows = ",\n".join(reference.json.dumps(answer, ensure_ascii=False) for answer in answers)
    path = reference.GOLDEN / "smollm2" / "greedy.json"
    path.write_text(
        f'{{"about": "{VERSIONS}", "model_sha256": "{MODEL_SHA256}", "max_tokens": {GENERATED}, '
        f'"end_token_ids": [{END_OF_TURN}],\n"answers": [\n{rows}\n]}}\n', encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=pathlib.Path, default=CACHE / "models" / "smollm2.gguf")
    parser.add_argument("--text", type=pathlib.Path,
                        default=pathlib.Path("/usr/share/common-licenses/GPL-3"))
    parser.add_argument("--chunks", type=int, default=2)
    parser.add_argument("--only", choices=["logits", "greedy"])
    args = parser.parse_args()
    assert sha256(args.model) == MODEL_SHA256, f"{args.model} is another file"
    torch.set_num_threads(2)
    model = gguf_weights.load_model(args.model)
    tokenizer = gguf_weights.load_tokenizer(args.model)
    if args.only != "greedy":
        make_logits(model, tokenizer, args.text, args.chunks)
    if args.only != "logits":
        make_greedy(model, tokenizer)


if __name__ == "__main__":
    main()
