"""litellm against a daemon, through its providers for OpenAI, Anthropic and Ollama."""

import asyncio
import json
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it looks for prices elsewhere

import litellm
from pydantic import BaseModel

from stock import case, fails, soon, url

litellm.telemetry = False
litellm.suppress_debug_info = True
bases = {"openai": url + "/v1", "anthropic": url, "ollama_chat": url}
hi = [{"role": "user", "content": "hi"}]


def ask(provider, model="gen", **more):
    more = {"messages": hi, "max_tokens": 9, "timeout": 60, "num_retries": 0, "max_retries": 0} | more
    return litellm.completion(model=f"{provider}/{model}", api_base=bases[provider], api_key="unused", **more)


@case
def text():
    for provider in bases:
        choice = ask(provider).choices[0]
        assert (choice.message.content, choice.finish_reason) == ("Hello", "stop"), provider


def whole(chunks):
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


@case
def stream():
    for provider in bases:
        assert whole(ask(provider, stream=True)) == "Hello", provider


@case
def usage():
    for provider in bases:
        chunks = list(ask(provider, stream=True, stream_options={"include_usage": True}))
        for used in ask(provider).usage, chunks[-1].usage:
            assert (used.prompt_tokens, used.completion_tokens) == (7, 2), (provider, used)


tools = [
    {
        "type": "function",
        "function": {"name": "look", "description": "looks", "parameters": {"type": "object", "properties": {"place": {"type": "string"}}}},
    }
]


@case
def tool_round_trip():
    for provider in bases:
        for streaming in False, True:
            answer = ask(provider, "loop", tools=tools, stream=streaming)
            if streaming:
                answer = litellm.stream_chunk_builder(list(answer), messages=hi)
            choice = answer.choices[0]
            (call,) = choice.message.tool_calls
            assert choice.finish_reason == "tool_calls", (provider, choice)
            assert (call.function.name, json.loads(call.function.arguments)) == ("look", {"place": "Oslo"}), (provider, call)
            again = [*hi, choice.message.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": call.id, "content": "a cat"}]
            assert ask(provider, "loop", messages=again, tools=tools).choices[0].message.content == "a cat", provider


class Place(BaseModel):
    city: str


@case
def structured_output():
    for provider in "openai", "ollama_chat":
        got = ask(provider, "json", response_format=Place).choices[0].message.content
        assert Place.model_validate_json(got) == Place(city="Oslo"), provider


@case
def embeddings_in_both_encodings():
    want = [[0.5, 1.0], [0.25, 0.5]]
    for more in {}, {"encoding_format": "float"}:
        got = litellm.embedding(model="openai/vec", input=["a", "bcd"], api_base=bases["openai"], api_key="unused", **more)
        assert [d["embedding"] for d in got.data] == want, got
    got = litellm.embedding(model="ollama/vec", input=["a", "bcd"], api_base=url)
    assert [d["embedding"] for d in got.data] == want, got


@case
def errors():
    for provider in bases:
        fails(lambda: ask(provider, "gpt-9"), "gpt-9", kind=litellm.NotFoundError if provider != "ollama_chat" else Exception)
        fails(lambda: ask(provider, "down"))
        fails(lambda: list(ask(provider, "down", stream=True)))
    fails(lambda: ask("openai", "down"), kind=litellm.ServiceUnavailableError)


@case
def error_in_the_middle_of_a_stream():
    for provider in bases:
        seen = []

        def read():
            for chunk in ask(provider, "drop", stream=True):
                seen.append(chunk)

        fails(read, "terminal")
        assert whole(seen) == "ab", (provider, seen)
        assert all(c.choices[0].finish_reason is None for c in seen), (provider, seen)


@case
def an_abort_frees_the_slot():
    async def begin(provider):
        running = await litellm.acompletion(
            model=f"{provider}/slow", api_base=bases[provider], api_key="unused", messages=hi, max_tokens=1000, stream=True, num_retries=0
        )
        async for chunk in running:
            if chunk.choices[0].delta.content:
                break
        await running.aclose()

    for provider in bases:
        soon(lambda: asyncio.run(begin(provider)))
        fails(lambda: ask(provider, "slow", timeout=0.5), kind=litellm.Timeout)
    soon(lambda: asyncio.run(begin("openai")))
