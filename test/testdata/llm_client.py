"""llm, a command, against a daemon."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

from stock import case, soon, url

home = pathlib.Path(tempfile.mkdtemp())
models = ["gen", "loop", "json", "down", "drop", "slow", "gpt-9"]
(home / "extra-openai-models.yaml").write_text(
    "".join(f"- model_id: {m}\n  model_name: {m}\n  api_base: {url}\n  supports_tools: true\n  supports_schema: true\n" for m in models)
)
environment = os.environ | {"LLM_USER_PATH": str(home)}
command = str(pathlib.Path(sys.executable).parent / "llm")


def llm(*args, code=0):
    got = subprocess.run([command, *args], env=environment, capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL)
    assert got.returncode == code, (args, got)
    return got


@case
def text():
    assert llm("-m", "gen", "--no-stream", "hi").stdout == "Hello\n"


@case
def stream():
    assert llm("-m", "gen", "hi").stdout == "Hello\n"


@case
def usage():
    for more in [], ["--no-stream"]:
        assert "7 input, 2 output" in llm("-m", "gen", "-u", *more, "hi").stderr


@case
def a_conversation():
    assert llm("-c", "and?").stdout == "Hello\n"


look = """def look(place: str) -> str:
    "looks"
    return "a cat in " + place
"""


@case
def tool_round_trip():
    for more in [], ["--no-stream"]:
        got = llm("-m", "loop", "--functions", look, "--td", *more, "hi")
        assert got.stdout.endswith("a cat\n") and "a cat in Oslo" in got.stderr, got


@case
def structured_output():
    assert json.loads(llm("-m", "json", "--schema", "city str", "where?").stdout) == {"city": "Oslo"}


@case
def errors():
    assert "does not exist" in llm("-m", "gpt-9", "hi", code=1).stderr or "gpt-9" in llm("-m", "gpt-9", "hi", code=1).stderr
    assert "mock" in llm("-m", "down", "hi", code=1).stderr


@case
def error_in_the_middle_of_a_stream():
    got = llm("-m", "drop", "hi", code=1)
    assert got.stdout.strip() == "ab" and "terminal" in got.stderr, got


@case
def an_abort_frees_the_slot():
    def begin():
        with subprocess.Popen([command, "-m", "slow", "hi"], env=environment, stdout=subprocess.PIPE) as running:
            assert os.read(running.stdout.fileno(), 1) == b"a"
            running.send_signal(signal.SIGINT)

    begin()
    soon(begin)
