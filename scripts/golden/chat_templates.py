#!/usr/bin/env python3
"""Makes tests/data/text/chat_templates/*.json: template, contexts, and what transformers renders.

Needs transformers and jinja2; the template of SmolLM2 is read from the model file (needs gguf).
  python scripts/golden/chat_templates.py [--model ~/.cache/quire/models/smollm2.gguf]
"""

import argparse
import datetime as dt
import json
import pathlib

import jinja2
from transformers.utils import chat_template_utils as utils

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE.parents[1] / "tests" / "data" / "text" / "chat_templates"
NOW = dt.datetime(2024, 7, 26, 9, 5, 3)  # what strftime_now sees

USER = {"role": "user", "content": "What is the capital of France?"}
BOT = {"role": "assistant", "content": "Paris."}
AGAIN = {"role": "user", "content": "  And of <Germany> & \"Österreich\"?\n\n  "}
SYSTEM = {"role": "system", "content": "You answer in one word.\n"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a <place> & its \"mood\"; größer als 0.5\u2028",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "City's name"},
                "days": {"type": "integer", "minimum": 1, "maximum": 1e16, "default": 1e-05},
                "unit": {"type": "string", "enum": ["C", "F"], "nullable": True},
            },
            "required": ["place"],
        },
    },
}
TIME = {
    "type": "function",
    "function": {"name": "now", "description": "The time", "parameters": {"type": "object", "properties": {}}},
}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {
            "id": "abcdef012",
            "type": "function",
            "function": {"name": "get_weather", "arguments": {"place": "Köln", "days": 2, "p": [1.0, True, None]}},
        }
    ],
}
ANSWER = {"role": "tool", "name": "get_weather", "tool_call_id": "abcdef012", "content": '{"t": 21.5}'}
THINKING = {"role": "assistant", "content": "<think>\nFrance... easy.\n</think>\n\nParis.", "reasoning_content": None}
REASONED = {"role": "assistant", "content": "Paris.", "reasoning_content": "\nIt is Paris.\n"}
PARTS = {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}

PLAIN = [
    {"messages": [USER], "add_generation_prompt": True},
    {"messages": [USER, BOT, AGAIN], "add_generation_prompt": True},
    {"messages": [USER, BOT], "add_generation_prompt": False},
]
WITH_SYSTEM = PLAIN + [{"messages": [SYSTEM, USER, BOT, AGAIN], "add_generation_prompt": True}]
WITH_TOOLS = WITH_SYSTEM + [
    {"messages": [USER], "tools": [WEATHER, TIME], "add_generation_prompt": True},
    {"messages": [SYSTEM, USER, CALL, ANSWER], "tools": [WEATHER], "add_generation_prompt": True},
    {"messages": [USER, CALL, ANSWER, BOT, AGAIN], "tools": [WEATHER], "add_generation_prompt": False},
]
WRONG_ORDER = [{"messages": [BOT, USER]}, {"messages": [USER, USER, BOT]}]
DOCUMENTS = [{"title": "T1", "text": "Paris is in France."}, {"title": "T2", "text": "Höhe: 35 m"}]
CASES = {
    "chatml": WITH_SYSTEM,
    "smollm2": WITH_SYSTEM,
    "llama2": WITH_SYSTEM + WRONG_ORDER,
    "llama3": WITH_SYSTEM,
    "llama3_tools": WITH_TOOLS + [{"messages": [USER], "tools": [TIME], "tools_in_user_message": False}],
    "mistral_v1": PLAIN + WRONG_ORDER,
    "mistral_v3": WITH_TOOLS + WRONG_ORDER,
    "qwen2_5": WITH_TOOLS,
    "qwen3": WITH_TOOLS
    + [
        {"messages": [USER, THINKING, AGAIN], "add_generation_prompt": True},
        {"messages": [USER, REASONED], "add_generation_prompt": False},
        {"messages": [USER, REASONED, AGAIN], "add_generation_prompt": True, "enable_thinking": False},
    ],
    "gemma": PLAIN + [{"messages": [SYSTEM, USER]}, {"messages": [PARTS]}] + WRONG_ORDER,
    "phi3": WITH_SYSTEM,
    "zephyr": WITH_SYSTEM,
    "deepseek": WITH_SYSTEM + [{"messages": [USER, THINKING, AGAIN], "add_generation_prompt": True}],
    "hermes": WITH_TOOLS[4:],
    "command_r": WITH_SYSTEM + [{"messages": [USER], "documents": DOCUMENTS, "add_generation_prompt": True}],
    "generation": WITH_SYSTEM,
    "python": [{"messages": [USER, BOT, AGAIN], "tools": [WEATHER], "text": " \x1cA b\tC, d\u2003\n", "n": 7}],
    "json": [
        {
            "messages": [USER],
            "values": [
                *(0.1, 1.0, 1e16, 1e15, 123456789012345680.0, 1e-4, 1e-5, 1.5e300, 5e-324, -0.0, 100.0, 2.5e-8),
                *(0, -7, 2**53 + 1, 2**63 - 1, 2**64 - 1, True, False, None, "", [], {}, [[]], {"a": {}}),
                "quotes \" ' backslash \\ slash / < > & \u2028 \u2029 \x00 \x1f \x7f \b\f\n\r\t é 漢 😀",
                {"z": 1, "a": [1, 2, {"k": None}], "é": "ü", "1": 1, "": 0},
            ],
        }
    ],
    "whitespace": PLAIN,
}
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


class FixedClock(dt.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


def render(template, case):
    arguments = {"add_generation_prompt": False, "tools": None, "documents": None, **TOKENS, **case}
    messages = arguments.pop("messages")
    try:
        rendered, _ = utils.render_jinja_template([messages], chat_template=template, **arguments)
        result = {"expected": rendered[0]}
    except jinja2.exceptions.TemplateError as e:
        result = {"error": str(e)}
    return {"context": {"messages": messages, **arguments}, **result}


def smollm2_template(path):
    import gguf

    field = gguf.GGUFReader(path).get_field("tokenizer.chat_template")
    return bytes(field.parts[field.data[0]]).decode()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=pathlib.Path.home() / ".cache/quire/models/smollm2.gguf")
    args = parser.parse_args()
    utils.datetime = FixedClock
    OUT.mkdir(parents=True, exist_ok=True)
    for name, cases in CASES.items():
        if name == "smollm2":
            template = smollm2_template(args.model)
        else:
            template = (HERE / "chat_templates" / f"{name}.jinja").read_text()
        rendered = [render(template, case) for case in cases]
        seconds = int((NOW - dt.datetime(1970, 1, 1)).total_seconds())
        golden = {"template": template, "local_seconds": seconds, "cases": rendered}
        (OUT / f"{name}.json").write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n")
        errors = [case["error"] for case in rendered if "error" in case]
        print(f"{name}: {len(rendered)} cases, {len(errors)} errors {sorted(set(errors))}")


if __name__ == "__main__":
    main()
