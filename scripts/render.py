"""Renders chat templates as Hugging Face's transformers do, for the test of templates.

Reads lines of JSON {"template": FILE, "context": {...}}; writes lines {"text": ...} or {"error": ...}.

Where transformers would refuse a public template or spoil its text, this program does the same as llama.cpp:
templates may append to lists, undefined values add no text, JSON shows a generator as a list, and the filter safe
changes nothing (otherwise one template of 70 would get its descriptions escaped for HTML).
"""

import json
import sys
from datetime import datetime

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox


class Generation(jinja2.ext.Extension):
    """The tag generation, which marks the assistant's part and changes no text."""

    tags = {"generation"}

    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(["name:endgeneration"], drop_needle=True)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys, default=list)


class Lenient(jinja2.Undefined):
    def __add__(self, other):
        return other

    def __radd__(self, other):
        return other


def environment():
    env = jinja2.sandbox.SandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, undefined=Lenient, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    env.filters["safe"] = str
    env.filters["tojson"] = tojson
    env.filters["from_json"] = json.loads  # llama.cpp's, which some of its templates use
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda text: datetime.now().strftime(text)
    return env


def main():
    env = environment()
    compiled = {}
    for line in sys.stdin:
        case = json.loads(line)
        name = case["template"]
        try:
            if name not in compiled:
                with open(name, encoding="utf-8", newline="") as f:
                    compiled[name] = env.from_string(f.read())
            out = {"text": compiled[name].render(**case["context"])}
        except Exception as e:  # a template may raise anything
            out = {"error": f"{type(e).__name__}: {e}"}
        print(json.dumps(out), flush=True)


main()
