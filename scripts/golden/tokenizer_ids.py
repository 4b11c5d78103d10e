#!/usr/bin/env python3
"""Makes tests/data/text/tokenizers/: a multilingual sample, small tokenizers trained here (tokenizer.json and the
same thing as GGUF metadata), and the ids that transformers gives, also for the real SmolLM2 file. Then compares
quire with transformers on random Unicode strings.

Needs transformers, tokenizers, gguf and the helper `encode_lines` of a quire build.
  python scripts/golden/tokenizer_ids.py [--encode-lines build/tests/text/encode_lines] [--random 100000]
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys
import sysconfig

import tokenizers as hf
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast
from transformers.integrations.gguf.gguf_tokenizer_mapping import convert_gguf_tokenizer

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "text" / "tokenizers"

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SCRIPTS = {
    "Latin": "The quick brown fox's 12345 jumps; don't, we'll, I'VE — naïve café œuvre ĳ ŉ ﬁ",
    "Vietnamese": "Tiếng Việt có nhiều dấu thanh điệu",
    "Turkish": "İstanbul'da ışıklar ığdır şöför",
    "Greek": "Ὅμηρος ἔγραψε τὴν Ἰλιάδα· ΚΑΛΗΜΕΡΑ ς σ",
    "Cyrillic": "Съешь ещё этих мягких французских булок, Україна ѣ ѳ",
    "Armenian": "Բարեւ Ձեզ, աշխարհ",
    "Georgian": "გამარჯობა მსოფლიო ᲗᲑᲘᲚᲘᲡᲘ",
    "Hebrew": "שלום עולם בְּרֵאשִׁית",
    "Arabic": "السلام عليكم ٠١٢٣٤٥ مُحَمَّد لا",
    "Persian": "می‌خواهم ۱۲۳ گچپژ",
    "Syriac": "ܫܠܡܐ ܥܠܡܐ",
    "Devanagari": "नमस्ते दुनिया १२३ क्षत्रिय",
    "Bengali": "ওহে বিশ্ব ৪৫৬",
    "Gurmukhi": "ਸਤ ਸ੍ਰੀ ਅਕਾਲ",
    "Gujarati": "નમસ્તે દુનિયા",
    "Tamil": "வணக்கம் உலகம்",
    "Telugu": "నమస్కారం ప్రపంచం",
    "Kannada": "ನಮಸ್ಕಾರ ಪ್ರಪಂಚ",
    "Malayalam": "നമസ്കാരം ലോകം",
    "Sinhala": "ආයුබෝවන් ලෝකය",
    "Thai": "สวัสดีชาวโลก ๑๒๓",
    "Lao": "ສະບາຍດີຊາວໂລກ",
    "Tibetan": "བཀྲ་ཤིས་བདེ་ལེགས།",
    "Burmese": "မင်္ဂလာပါ ကမ္ဘာလောက",
    "Khmer": "សួស្តី​ពិភពលោក",
    "Ethiopic": "ሰላም ልዑል ፩፪፫",
    "Cherokee": "ᎣᏏᏲ ᎡᎶᎯ",
    "Mongolian": "ᠰᠠᠶᠢᠨ ᠪᠠᠶᠢᠨ᠎ᠠ",
    "Hangul": "안녕하세요 세계 한글",
    "Hiragana": "こんにちは せかい ゛が",
    "Katakana": "コンニチハ セカイ ｶﾞｷﾞ",
    "Han": "你好，世界！繁體中文 㐀 𠀀 一二三四",
    "Gothic": "𐌰𐌱𐌲 𝒜𝓫𝕔 𝟘𝟙",
}
OTHERS = [
    "",
    " ",
    "  leading and trailing  ",
    "a" * 300,
    " " * 200 + "x" + "\t" * 50 + "\n" * 40 + "\r\n" * 5 + "y",
    "tabs\tand\nnewlines\r\nand \u00a0no-break \u2003em \u3000ideographic \u200bzero \ufeffbom",
    "😀 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 👍🏽 ❤️ ☃ ✨✨✨ 🤷🏾‍♀️",
    "control \x00\x01\x07\x08\x0b\x0c\x1b[31m\x7f\x80\x85\x9f end",
    "e\u0301 vs é; n\u0303; Å Å Å; ﷺ ½ ² ³ Ⅷ ① ㍿; ΐ ΐ",
    "1 12 123 1234 12345 3.14159 1,000,000 0x1F 1e-9 2024-07-26 x² 10¹⁰ ½½",
    "def f(x):\n    if x > 0:\n        return x ** 2  # comment\n\telse: pass\n\n\nclass A:\n    pass\n",
    'int main() { printf("%d\\n", a[i]->b); /* c */ return x != y ? 0 : ~z; } // end',
    "<div class=\"a\">&amp;</div> {{ jinja }} {% if %} $x_1 `code` **bold** #tag @user https://example.org/?q=1&r=2",
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
    "text<|endoftext|><|endoftext|> <s>[INST] x [/INST]</s> <unk> <0x0A> <|begin_of_text|>",
    "<think>user defined</think> <tool_call>{\"a\": 1}</tool_call>  <pad>",
    "▁already▁meta ▁▁ Ġ Ċ Ã© <0xE5><0x8F>",
    "'s 'S 't 're 'RE 'll'd I'm  'x '' \"quoted\" ‘curly’ “quotes” … – —",
    "mixed日本語とEnglishと한국어и русскийوالعربية",
    "\u0301\u0302 combining first \ud7ff\ue000\uf8ff\ufffd \ufffe \U0010ffff \U000e0001 \U0001f1e6",
    "!!!???...,,,;;;:::---___===+++***///\\\\\\|||~~~^^^&&&%%%$$$###@@@",
]
SAMPLE = list(SCRIPTS.values()) + OTHERS + [" ".join(SCRIPTS.values())]


def corpus():
    stdlib = pathlib.Path(sysconfig.get_paths()["stdlib"])
    code = [path.read_text(errors="ignore") for path in sorted(stdlib.glob("[a-e]*.py"))]
    return SAMPLE * 4 + code


def finish(tokenizer, bos):
    tokenizer.add_special_tokens([hf.AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    tokenizer.add_tokens([hf.AddedToken(t, special=False, normalized=False) for t in USER_DEFINED])
    if bos:
        template = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
        tokenizer.post_processor = template
    return tokenizer


SPECIAL = ["<|begin_of_text|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
USER_DEFINED = ["<think>", "</think>", "<tool_call>", "</tool_call>"]


def train_byte_level(split, normalizer, bos, ignore_merges, vocab_size):
    tokenizer = hf.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizer
    if split:
        steps = [pre_tokenizers.Split(hf.Regex(split), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    else:
        steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.model.ignore_merges = ignore_merges
    return finish(tokenizer, bos)


def byte_level_spec(tokenizer, pre, bos):
    model = json.loads(tokenizer.to_str())["model"]
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    tokens = sorted(vocab, key=vocab.get)
    types = [3 if t in SPECIAL else 4 if t in USER_DEFINED else 1 for t in tokens]
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    spec = {"model": "gpt2", "pre": pre, "tokens": tokens, "merges": merges, "token_types": types}
    spec["eos"] = vocab["<|im_end|>"]
    if bos:
        spec |= {"bos": vocab[bos], "add_bos": True}
    return spec


def sentence_piece_spec(vocab_size):
    trained = hf.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(split=True)
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, limit_alphabet=150, show_progress=False)
    trained.train_from_iterator(corpus(), trainer)
    vocab = trained.get_vocab()
    merged = sorted((t for t in vocab if len(t) > 1), key=vocab.get)
    single = sorted((t for t in vocab if len(t) == 1), key=vocab.get)
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + merged + single
    tokens += ["<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    types = [2, 3, 3] + [6] * 256 + [1] * (len(merged) + len(single)) + [3, 3, 4, 4]
    scores = [0.0] * 259 + [-float(i) for i in range(len(merged))] + [-1e4 - i for i in range(len(single))] + [0.0] * 4
    spec = {"model": "llama", "pre": "default", "tokens": tokens, "scores": scores, "token_types": types}
    return spec | {"bos": 1, "eos": 2, "unk": 0, "add_bos": True}


def from_spec(spec):
    """The tokenizer that transformers builds from the same metadata."""
    names = {"model": "tokenizer_type", "pre": "pre_tokenizer_type", "token_types": "token_type"}
    tokenizer, _ = convert_gguf_tokenizer("llama", {names.get(k, k): v for k, v in spec.items()})
    return tokenizer


def with_bos(tokenizer, bos):
    template = [(bos, tokenizer.token_to_id(bos))]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=template)
    return tokenizer


def smollm2(path):
    """transformers' conversion keeps plain GPT-2 splitting; the published tokenizer.json splits digits first."""
    import gguf

    reader = gguf.GGUFReader(path)
    get = lambda key: reader.get_field(key).contents()
    spec = {"model": get("tokenizer.ggml.model"), "pre": get("tokenizer.ggml.pre")}
    spec["tokens"] = get("tokenizer.ggml.tokens")
    spec["merges"] = get("tokenizer.ggml.merges")
    spec["token_types"] = get("tokenizer.ggml.token_type")
    converted = from_spec(spec)
    published = hf.Tokenizer.from_str(converted.to_str())
    steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    published.pre_tokenizer = pre_tokenizers.Sequence(steps)
    lines = SAMPLE + random_strings(20000, 7)
    differ = sum(a.ids != b.ids for a, b in zip(converted.encode_batch(lines), published.encode_batch(lines)))
    print(f"smollm2: {differ} of {len(lines)} lines change when digits are split first, as the model was trained")
    return published


def wrap(tokenizer):
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def golden(tokenizer):
    fast = wrap(tokenizer)
    plain = [fast.encode(t, add_special_tokens=False, split_special_tokens=True) for t in SAMPLE]
    ids = [fast.encode(t) for t in SAMPLE]
    decode = lambda skip: [fast.decode(i, skip_special_tokens=skip, clean_up_tokenization_spaces=False) for i in ids]
    return {"ids": ids, "plain_ids": plain, "text": decode(False), "text_without_special": decode(True)}


def random_strings(count, seed):
    rng = random.Random(seed)
    blocks = [(0x20, 0x7E), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x5FF), (0x600, 0x8FF), (0x900, 0xDFF)]
    blocks += [(0xE00, 0x10FF), (0x1100, 0x1FFF), (0x2000, 0x2BFF), (0x3000, 0x9FFF), (0xAC00, 0xD7A3)]
    blocks += [(0xE000, 0xFFFD), (0x10000, 0x1FFFF), (0x20000, 0x2FFFF), (0xE0000, 0x10FFFF), (0, 0x1F)]
    words = [w for text in SAMPLE for w in text.split(" ") if len(w) < 40]
    strings = []
    for _ in range(count):
        pieces = []
        for _ in range(rng.randint(1, 12)):
            kind = rng.random()
            if kind < 0.4:
                low, high = rng.choice(blocks)
                pieces.append("".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 6))))
            elif kind < 0.7:
                pieces.append(rng.choice(words))
            elif kind < 0.9:
                pieces.append(rng.choice([" ", "  ", "\n", "\t", " \n ", "\r\n", "\u00a0", "   "]))
            else:
                pieces.append(rng.choice(SPECIAL + USER_DEFINED + ["'s", "'LL", "123", "7", "<0x41>", "▁"]))
        strings.append("".join(pieces))
    return strings


def compare(encode_lines, arguments, tokenizer, count, parse):
    strings = random_strings(count, 2024 + parse)
    fast = wrap(tokenizer)
    if parse:
        expected = [fast.encode(s) for s in strings]
    else:
        expected = [fast.encode(s, add_special_tokens=False, split_special_tokens=True) for s in strings]
    command = [encode_lines, *arguments, "--parse" if parse else "--plain"]
    lines = "".join(json.dumps(s) + "\n" for s in strings)
    output = subprocess.run(command, input=lines, capture_output=True, text=True, check=True).stdout
    got = [[int(i) for i in line.split()] for line in output.split("\n")[: len(strings)]]
    bad = [i for i in range(len(strings)) if got[i] != expected[i]]
    print(f"{' '.join(map(str, command[1:]))}: {len(strings) - len(bad)} of {len(strings)} random strings equal")
    for i in bad[:3]:
        print(f"  {strings[i]!r}\n    transformers {expected[i]}\n    quire        {got[i]}")
    return not bad


def write(name, data):
    (OUT / name).write_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=pathlib.Path.home() / ".cache/quire/models/smollm2.gguf")
    parser.add_argument("--encode-lines", default="build/tests/text/encode_lines")
    parser.add_argument("--random", type=int, default=100_000, help="strings over all tokenizers and modes")
    parser.add_argument("--keep", action="store_true", help="compare only, with the files that are there")
    args = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    bos = SPECIAL[0]
    if not args.keep:
        write("sample.json", SAMPLE)
        byte_level = {
            "llama3": ("llama-bpe", train_byte_level(SPLIT % "{1,3}", None, bos, True, 1600), bos),
            "qwen2": ("qwen2", train_byte_level(SPLIT % "", normalizers.NFC(), None, False, 1200), None),
            "smollm": ("smollm", train_byte_level(None, None, None, False, 1000), None),
        }
        for name, (pre, tokenizer, first) in byte_level.items():
            write(f"{name}.gguf.json", byte_level_spec(tokenizer, pre, first))
            (OUT / f"{name}.tokenizer.json").write_text(tokenizer.to_str())
        spec = sentence_piece_spec(1500)
        write("llama2.gguf.json", spec)
        (OUT / "llama2.tokenizer.json").write_text(with_bos(from_spec(spec), "<s>").to_str())
    small = ["llama3", "qwen2", "smollm", "llama2"]
    loaded = {name: hf.Tokenizer.from_file(str(OUT / f"{name}.tokenizer.json")) for name in small}
    loaded["smollm2"] = smollm2(args.model)
    if not args.keep:
        for name, tokenizer in loaded.items():
            write(f"{name}.ids.json", golden(tokenizer))
    if not pathlib.Path(args.encode_lines).exists():
        sys.exit(f"{args.encode_lines} is not built; the random comparison was left out")
    sources = {name: ["--spec", OUT / f"{name}.gguf.json"] for name in small} | {"smollm2": ["--gguf", args.model]}
    runs = [(sources[name], tokenizer) for name, tokenizer in loaded.items()]
    runs += [(["--json", OUT / f"{name}.tokenizer.json"], loaded[name]) for name in small]
    each = args.random // (2 * len(runs)) + 1
    equal = [compare(args.encode_lines, source, t, each, parse) for source, t in runs for parse in (True, False)]
    sys.exit(0 if all(equal) else 1)


if __name__ == "__main__":
    main()
