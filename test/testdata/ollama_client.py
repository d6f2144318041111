"""The stock ollama client against a daemon."""

import base64
import json
import threading

import httpx
import ollama

from stock import case, fails, soon, url as host

client = ollama.Client(host=host, timeout=60)
hi = [{"role": "user", "content": "hi"}]


def lines(path, body):
    """The lines of an answer, as JSON; none of them is empty."""
    answer = httpx.post(host + path, json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == ("application/json" if body.get("stream") is False else "application/x-ndjson")
    all = answer.text.removesuffix("\n").split("\n")
    assert all and "" not in all, answer.text
    return [json.loads(line) for line in all]


@case
def answers_have_the_types_of_the_client():
    for path, kind, body in (
        ("/api/chat", ollama.ChatResponse, {"model": "gen", "messages": hi, "logprobs": True}),
        ("/api/chat", ollama.ChatResponse, {"model": "thinks", "messages": hi, "think": True}),
        ("/api/chat", ollama.ChatResponse, {"model": "tool", "messages": hi}),
        ("/api/chat", ollama.ChatResponse, {"model": "gen", "messages": []}),
        ("/api/generate", ollama.GenerateResponse, {"model": "gen", "prompt": "hi"}),
        ("/api/generate", ollama.GenerateResponse, {"model": "thinks", "prompt": "hi", "think": True}),
        ("/api/generate", ollama.GenerateResponse, {"model": "gen", "prompt": ""}),
    ):
        for stream in (True, False):
            all = lines(path, body | {"stream": stream})
            for line in all:
                kind.model_validate(line, extra="ignore")
                assert set(line) >= {"model", "created_at", "done"}, line
            assert [line["done"] for line in all] == [False] * (len(all) - 1) + [True], all
            if all[-1]["done_reason"] != "load":
                assert all[-1]["eval_count"] > 0 and all[-1]["total_duration"] > 0, all
    ollama.EmbedResponse.model_validate(lines("/api/embed", {"model": "vec", "input": ["a"], "stream": False})[0])
    ollama.EmbeddingsResponse.model_validate(lines("/api/embeddings", {"model": "vec", "prompt": "a", "stream": False})[0])
    ollama.ProgressResponse.model_validate(lines("/api/pull", {"model": "gen"})[0])
    ollama.ShowResponse.model_validate(lines("/api/show", {"model": "gen", "stream": False})[0])
    ollama.ListResponse.model_validate(httpx.get(host + "/api/tags").json())
    ollama.ProcessResponse.model_validate(httpx.get(host + "/api/ps").json())


@case
def chat():
    answer = client.chat("gen", messages=hi)
    assert (answer.message.role, answer.message.content, answer.done, answer.done_reason) == ("assistant", "Hello", True, "stop"), answer
    assert (answer.prompt_eval_count, answer.eval_count, answer.model) == (7, 2, "gen"), answer


@case
def stream():
    chunks = list(client.chat("gen:latest", messages=hi, stream=True))
    assert "".join(c.message.content for c in chunks) == "Hello"
    assert [c.done for c in chunks] == [False] * (len(chunks) - 1) + [True] and chunks[0].model == "gen:latest"


@case
def generate():
    assert client.generate("gen", prompt="hi", system="be brief").response == "Hello"
    assert "".join(c.response for c in client.generate("gen", prompt="hi", raw=True, stream=True)) == "Hello"
    assert client.generate("gen", prompt="a", suffix="b").response == "Hello"
    assert client.generate("gen").done_reason == "load"


@case
def options_and_format():
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    options = {"temperature": 0, "num_ctx": 4096, "num_predict": 9, "seed": 1, "stop": ["x"]}
    answer = client.chat("json", messages=hi, format=schema, options=options, keep_alive="10m")
    assert json.loads(answer.message.content) == {"city": "Oslo"}
    assert json.loads(client.generate("json", prompt="hi", format="json", options=ollama.Options(top_k=3)).response) == {"city": "Oslo"}


@case
def thinking():
    answer = client.chat("thinks", messages=hi, think=True)
    assert (answer.message.thinking, answer.message.content) == ("hm, so", "Hello"), answer
    assert client.generate("thinks", prompt="hi", think="high").thinking == "hm, so"
    assert client.chat("thinks", messages=hi, think=False).message.thinking is None
    again = client.chat("thinks", messages=hi + [answer.message] + hi)
    assert again.message.content == "Hello"


def look() -> str:
    """looks"""
    return "a cat"


@case
def tool_round_trip():
    for streaming in (False, True):
        if streaming:
            calls = [c for chunk in client.chat("tool", messages=hi, tools=[look], stream=True) for c in chunk.message.tool_calls or []]
        else:
            answer = client.chat("tool", messages=hi, tools=[look])
            calls = answer.message.tool_calls
        assert [(c.function.name, c.function.arguments) for c in calls] == [("look", {})], calls
    again = hi + [answer.message, {"role": "tool", "tool_name": "look", "content": look()}]
    assert client.chat("gen", messages=again, tools=[look]).message.content == "Hello"


@case
def images():
    png = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
    assert client.chat("gen", messages=[{"role": "user", "content": "see", "images": [png]}]).message.content == "Hello"
    assert client.generate("gen", prompt="see", images=[png]).response == "Hello"


@case
def embeddings():
    assert client.embed("vec", input=["a", "bcd"]).embeddings == [[0.5, 1.0], [0.25, 0.5]]
    assert client.embed("vec", input="a", dimensions=1).embeddings == [[0.5]]
    assert client.embeddings("vec", prompt="a").embedding == [0.5, 1.0]


@case
def models():
    names = [m.model for m in client.list().models]
    assert "gen:latest" in names and len(names) == len(client.ps().models)
    shown = client.show("gen")
    assert "completion" in shown.capabilities and shown.modelinfo is not None, shown
    assert client.show("vec").capabilities is not None
    assert client.pull("gen").status == "success"
    assert [p.status for p in client.pull("gen", stream=True)] == ["success"]


def refused(status, text, f):
    e = fails(f, kind=ollama.ResponseError)
    assert e.status_code == status and text in e.error, (e.status_code, e.error)


@case
def errors():
    refused(404, "not found", lambda: client.chat("llama3", messages=hi))
    refused(404, "not found", lambda: list(client.chat("llama3", messages=hi, stream=True)))
    refused(404, "not found", lambda: client.show("llama3"))
    refused(503, "", lambda: client.chat("down", messages=hi))
    refused(503, "", lambda: list(client.chat("down", messages=hi, stream=True)))
    refused(400, "template", lambda: client.generate("gen", prompt="a", template="x"))
    refused(400, "is not a name", lambda: client.pull("../llama3"))
    refused(501, "not supported", lambda: client.delete("gen"))
    refused(501, "not supported", lambda: client.copy("gen", "other"))


@case
def error_in_the_middle_of_a_stream():
    seen = []
    try:
        for chunk in client.chat("drop", messages=hi, stream=True):
            seen.append(chunk)
    except ollama.ResponseError as e:
        assert "terminal" in e.error, e
    else:
        raise AssertionError("the stream looks complete")
    assert "".join(c.message.content for c in seen) == "ab" and not any(c.done for c in seen)


@case
def keep_alive_lines_in_a_slow_stream():
    chunks = list(client.chat("slow-start", messages=hi, stream=True))
    assert "".join(c.message.content for c in chunks) == "a" and len(chunks) >= 3, chunks


@case
def an_abort_frees_the_slot():
    def begin(running):
        assert next(running)["done"] is False
        running.close()

    begin(client.chat("slow", messages=hi, stream=True))
    soon(lambda: begin(client.generate("slow", prompt="hi", stream=True)))
    fails(lambda: ollama.Client(host=host, timeout=0.5).generate("slow", prompt="hi"), kind=httpx.TimeoutException)
    soon(lambda: begin(client.generate("slow", prompt="hi", stream=True)))


@case
def many_at_once():
    failed = []

    def ask():
        try:
            assert client.chat("gen", messages=hi).message.content == "Hello"
        except Exception as e:  # noqa: BLE001
            failed.append(e)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed, failed
