"""Beam search of the default model by transformers, in float32 on the weights of the GGUF file,
dequantised: tests/data/golden/smollm2/beams.json, for the prompts of greedy.json whose answers are
short and for some others. README.md states its layout.

usage: beams.py [--model FILE]"""

import argparse
import json
import pathlib

import torch

import gguf_weights
import reference
from smollm2 import CACHE, END_OF_TURN, MODEL_SHA256, VERSIONS, sha256

PROMPTS = 32
WIDTHS = (2, 4, 6)
GENERATED = 20
PENALTIES = (1.0, 0.6, 1.4)
RULES = (False, False, False, True, False, False, "never", False)


def prompts():
    """Those that transformers answers within the limit first, then the shortest."""
    path = reference.GOLDEN / "smollm2" / "greedy.json"
    answers = json.loads(path.read_text(encoding="utf-8"))["answers"]
    answers.sort(key=lambda a: (len(a["generated_ids"]) > GENERATED, len(a["prompt_ids"])))
    return [answer["prompt_ids"] for answer in answers[:PROMPTS]]


def search(model, prompt, width, early_stopping, length_penalty):
    """[{ids, score}], best first; the ids end with the end token if it came."""
    ids = torch.tensor([prompt])
    with torch.no_grad():
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, num_beams=width,
            num_return_sequences=width, early_stopping=early_stopping,
            length_penalty=length_penalty, max_new_tokens=GENERATED, eos_token_id=END_OF_TURN,
            pad_token_id=END_OF_TURN, return_dict_in_generate=True, output_scores=True)
    answers = []
    for sequence, score in zip(out.sequences, out.sequences_scores):
        generated = sequence[len(prompt):].tolist()
        if END_OF_TURN in generated:
            generated = generated[:generated.index(END_OF_TURN) + 1]
        answers.append({"ids": generated, "score": round(float(score), 7)})
    return answers


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=pathlib.Path, default=CACHE / "models" / "smollm2.gguf")
    args = parser.parse_args()
    assert sha256(args.model) == MODEL_SHA256, f"{args.model} is another file"
    torch.set_num_threads(1)
    model = gguf_weights.load_model(args.model)
    searches = []
    for i, prompt in enumerate(prompts()):
        for j, width in enumerate(WIDTHS):
            rule = RULES[(len(WIDTHS) * i + j) % len(RULES)]
            penalty = PENALTIES[i % len(PENALTIES)]
            answers = search(model, prompt, width, rule, penalty)
            searches.append({"prompt_ids": prompt, "beam_width": width, "early_stopping": rule,
                             "length_penalty": penalty, "answers": answers})
            ended = sum(answer["ids"][-1] == END_OF_TURN for answer in answers)
            print(f"prompt {i}, width {width}: {ended} of {width} end, best "
                  f"{answers[0]['score']:.4f} of {len(answers[0]['ids'])} tokens", flush=True)
    rows = ",\n".join(json.dumps(row) for row in searches)
    path = reference.GOLDEN / "smollm2" / "beams.json"
    path.write_text(
        f'{{"about": "{VERSIONS}", "model_sha256": "{MODEL_SHA256}", "max_tokens": {GENERATED}, '
        f'"end_token_ids": [{END_OF_TURN}],\n"searches": [\n{rows}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
