"""pydantic-ai against a daemon, through its models for OpenAI and Anthropic."""

import asyncio

from pydantic import BaseModel
from pydantic_ai import Agent, ModelHTTPError, NativeOutput
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from stock import case, fails, soon, url

openai = OpenAIProvider(base_url=url + "/v1", api_key="unused")
anthropic = AnthropicProvider(base_url=url, api_key="unused")
kinds = {
    "chat": lambda name: OpenAIChatModel(name, provider=openai),
    "responses": lambda name: OpenAIResponsesModel(name, provider=openai),
    "anthropic": lambda name: AnthropicModel(name, provider=anthropic),
}


def agent(kind, model="gen", **more):
    return Agent(kinds[kind](model), retries=0, **more)


def run(agent, **more):
    async def ask():
        return await agent.run("hi", **more)

    return asyncio.run(ask())


@case
def text():
    for kind in kinds:
        assert run(agent(kind)).output == "Hello", kind


async def streamed(agent):
    async with agent.run_stream("hi") as result:
        return [text async for text in result.stream_text(delta=True, debounce_by=None)], result.usage


@case
def stream_and_usage():
    for kind in kinds:
        parts, used = asyncio.run(streamed(agent(kind)))
        assert "".join(parts) == "Hello", kind
        for usage in used, run(agent(kind)).usage:
            assert (usage.input_tokens, usage.output_tokens) == (7, 2), (kind, usage)


@case
def tool_round_trip():
    for kind in kinds:
        seen = []

        def look(place: str) -> str:
            """looks"""
            seen.append(place)
            return "a cat"

        assert run(agent(kind, "loop", tools=[look])).output == "a cat" and seen == ["Oslo"], (kind, seen)
        parts, _ = asyncio.run(streamed(agent(kind, "loop", tools=[look])))
        assert "".join(parts) == "a cat" and seen == ["Oslo"] * 2, (kind, seen)


class Place(BaseModel):
    city: str


@case
def structured_output():
    for kind in kinds:
        assert run(agent(kind, "final", output_type=Place)).output == Place(city="Oslo"), kind
        if kind != "anthropic":  # it knows the models that have it
            assert run(agent(kind, "json", output_type=NativeOutput(Place))).output == Place(city="Oslo"), kind


@case
def errors():
    for kind in kinds:
        e = fails(lambda: run(agent(kind, "gpt-9")), kind=ModelHTTPError)
        assert e.status_code == 404, e
        e = fails(lambda: run(agent(kind, "down")), kind=ModelHTTPError)
        assert e.status_code == (529 if kind == "anthropic" else 503), e


@case
def error_in_the_middle_of_a_stream():
    for kind in kinds:
        fails(lambda: asyncio.run(streamed(agent(kind, "drop"))), "terminal")


@case
def an_abort_frees_the_slot():
    async def begin(kind):
        async with agent(kind, "slow").run_stream("hi") as result:
            async for _ in result.stream_text(delta=True, debounce_by=None):
                break

    async def impatient(kind):
        await asyncio.wait_for(agent(kind, "slow").run("hi"), 0.5)

    for kind in kinds:
        soon(lambda: asyncio.run(begin(kind)))
        fails(lambda: asyncio.run(impatient(kind)), kind=TimeoutError)
    soon(lambda: asyncio.run(begin("chat")))
