"""instructor against a daemon, over the SDKs of OpenAI and of Anthropic."""

import anthropic
import instructor
import openai
from instructor.core.exceptions import InstructorRetryException
from pydantic import BaseModel

from stock import case, fails, soon, url

hi = [{"role": "user", "content": "hi"}]


class Place(BaseModel):
    city: str


def of_openai(mode, **more):
    return instructor.from_openai(openai.OpenAI(base_url=url + "/v1", api_key="unused", max_retries=0, timeout=60, **more), mode=mode)


def of_anthropic(mode):
    return instructor.from_anthropic(anthropic.Anthropic(base_url=url, api_key="unused", max_retries=0, timeout=60), mode=mode)


Mode = instructor.Mode
clients = [
    ("place", of_openai(Mode.TOOLS)),
    ("json", of_openai(Mode.JSON)),
    ("json", of_openai(Mode.JSON_SCHEMA)),
    ("place", of_anthropic(Mode.ANTHROPIC_TOOLS)),
    ("json", of_anthropic(Mode.ANTHROPIC_JSON)),
]


def ask(model, **more):
    return {"model": model, "messages": hi, "max_tokens": 99, "max_retries": 0, "response_model": Place} | more


@case
def structured_output():
    for model, client in clients:
        assert client.create(**ask(model)) .city == "Oslo", client.mode


@case
def text_and_usage():
    for model, client in clients[1:2]:
        place, raw = client.create_with_completion(**ask(model))
        assert place.city == "Oslo" and raw.choices[0].message.content == '{"city":"Oslo"}', raw
        assert (raw.usage.prompt_tokens, raw.usage.completion_tokens) == (7, 2), raw.usage


@case
def stream():
    for model, client in clients[:3]:
        *_, last = client.create_partial(**ask(model))
        assert last.city == "Oslo", client.mode


@case
def an_answer_that_does_not_fit():  # it asks again, with the error
    fails(lambda: clients[2][1].create(**ask("gen", max_retries=1)), "Place", kind=InstructorRetryException)


@case
def errors():
    for _, client in clients:
        fails(lambda: client.create(**ask("gpt-9")), "gpt-9")
        fails(lambda: client.create(**ask("down")), "Error code: 5")


@case
def error_in_the_middle_of_a_stream():
    client = clients[2][1]
    fails(lambda: list(client.create_partial(**ask("drop-json"))), "terminal")


@case
def an_abort_frees_the_slot():
    client = of_openai(Mode.JSON_SCHEMA)

    def begin():
        running = client.client.chat.completions.create(model="slow", messages=hi, stream=True)
        next(iter(running))
        running.close()

    begin()
    soon(begin)
    impatient = of_openai(Mode.JSON_SCHEMA).client.with_options(timeout=0.5)
    client = instructor.from_openai(impatient, mode=Mode.JSON_SCHEMA)
    fails(lambda: client.create(**ask("slow")), "timed out")
    soon(begin)
