"""The stock openai client against a daemon."""

import base64
import json
import struct
import threading

import openai

from stock import case, fails, soon, url

client = openai.OpenAI(base_url=url, api_key="unused", max_retries=0, timeout=60)
hi = [{"role": "user", "content": "hi"}]


@case
def text():
    answer = client.chat.completions.create(model="gen", messages=hi)
    choice = answer.choices[0]
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "Hello", "stop"), answer
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (7, 2, 9), answer
    assert answer.model == "gen" and answer.object == "chat.completion" and answer._request_id.startswith("req_")


@case
def stream():
    chunks = list(client.chat.completions.create(model="gen", messages=hi, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "Hello"  # every chunk has a choice
    assert [c.choices[0].finish_reason for c in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert len({c.id for c in chunks}) == 1 and chunks[0].choices[0].delta.role == "assistant"
    assert all(c.usage is None for c in chunks)


@case
def stream_with_usage():
    chunks = list(client.chat.completions.create(model="gen", messages=hi, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == [] and chunks[-1].usage.total_tokens == 9
    assert all(c.usage is None for c in chunks[:-1])


@case
def keep_alive_comment_in_a_slow_stream():  # openai/openai-python#2722
    chunks = list(client.chat.completions.create(model="slow-start", messages=hi, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "a"


tools = [{"type": "function", "function": {"name": "look", "description": "looks", "parameters": {"type": "object", "properties": {}}}}]


@case
def tool_round_trip():
    answer = client.chat.completions.create(model="tool", messages=hi, tools=tools, tool_choice="auto", parallel_tool_calls=False)
    choice = answer.choices[0]
    call = choice.message.tool_calls[0]
    assert (choice.finish_reason, call.type, call.function.name, json.loads(call.function.arguments)) == ("tool_calls", "function", "look", {})
    again = hi + [choice.message, {"role": "tool", "tool_call_id": call.id, "content": "a cat"}]
    assert client.chat.completions.create(model="gen", messages=again, tools=tools).choices[0].message.content == "Hello"


@case
def streamed_tool_call():
    with client.chat.completions.stream(model="tool", messages=hi, tools=tools) as events:
        final = events.get_final_completion()
    call = final.choices[0].message.tool_calls[0]
    assert (call.id, call.function.name, call.function.arguments) == ("mock-call-1", "look", "{}"), final


@case
def structured_output():
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
    answer = client.chat.completions.create(
        model="json", messages=hi, response_format={"type": "json_schema", "json_schema": {"name": "place", "strict": True, "schema": schema}}
    )
    assert json.loads(answer.choices[0].message.content) == {"city": "Oslo"}


@case
def embeddings_in_both_encodings():
    default = client.embeddings.create(model="vec", input=["a", "bcd"])  # the SDK asks for base64
    floats = client.embeddings.create(model="vec", input=["a", "bcd"], encoding_format="float")
    assert default.data[0].embedding == [0.5, 1.0] and default.data == floats.data, default
    raw = client.embeddings.with_raw_response.create(model="vec", input="a", encoding_format="base64").http_response.json()
    assert struct.unpack("<2f", base64.b64decode(raw["data"][0]["embedding"])) == (0.5, 1.0)
    assert client.embeddings.create(model="vec", input="a", dimensions=1).data[0].embedding == [0.5]


@case
def models():
    assert "gen" in [m.id for m in client.models.list()]
    assert client.models.retrieve("gen").owned_by == "inferd"


def refused(kind, status, code, f):
    e = fails(f, kind=kind)
    assert (e.status_code, e.code) == (status, code), (e.status_code, e.code, e.body)
    return e


@case
def errors():
    def create(**more):
        return lambda: client.chat.completions.create(**{"model": "gen", "messages": hi, **more})

    assert refused(openai.NotFoundError, 404, "model_not_found", create(model="gpt-9")).param == "model"
    assert refused(openai.BadRequestError, 400, None, create(n=2)).param == "n"
    refused(openai.InternalServerError, 503, "server_is_overloaded", create(model="down"))
    refused(openai.InternalServerError, 503, "server_is_overloaded", create(model="down", stream=True))
    assert refused(openai.BadRequestError, 400, None, lambda: client.embeddings.create(model="vec", input=[1, 2])).param == "input"


@case
def error_in_the_middle_of_a_stream():
    seen = []
    try:
        for chunk in client.chat.completions.create(model="drop", messages=hi, stream=True):
            seen.append(chunk.choices[0])
    except openai.APIError as e:
        assert "terminal" in str(e), e
    else:
        raise AssertionError("the stream looks complete")
    assert "".join(c.delta.content or "" for c in seen) == "ab" and all(c.finish_reason is None for c in seen)


@case
def retries_obey_the_daemon():  # two requests of "flaky" fail, and the third is answered
    patient = client.with_options(max_retries=2)
    assert patient.chat.completions.create(model="flaky", messages=hi).choices[0].message.content == "Hello"


@case
def an_abort_frees_the_slot():
    def begin():
        running = client.chat.completions.create(model="slow", messages=hi, stream=True)
        next(c for c in running if c.choices[0].delta.content)
        running.close()

    begin()
    soon(begin)
    fails(lambda: client.with_options(timeout=0.5).chat.completions.create(model="slow", messages=hi), kind=openai.APITimeoutError)
    soon(begin)


@case
def many_at_once():
    failed = []

    def ask():
        try:
            assert client.chat.completions.create(model="gen", messages=hi).choices[0].message.content == "Hello"
        except Exception as e:  # noqa: BLE001
            failed.append(e)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed, failed
