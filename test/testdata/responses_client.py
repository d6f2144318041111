"""The Responses interface of the stock openai client against a daemon."""

import json

import openai
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from stock import case, fails, soon, url

client = openai.OpenAI(base_url=url, api_key="unused", max_retries=0, timeout=60)
event_type = TypeAdapter(ResponseStreamEvent)


def create(**more):
    return client.responses.create(**{"model": "gen", "input": "hi", **more})


def strict(answer):
    """Validates an answer against the client's types, because the client's own parsing accepts anything."""
    return Response.model_validate(answer.to_dict())


@case
def text():
    answer = strict(create(instructions="be brief", max_output_tokens=50))
    assert (answer.output_text, answer.status, answer.model, answer.object) == ("Hello", "completed", "gen", "response"), answer
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (7, 2, 9), answer
    assert answer.id.startswith("resp_") and answer.instructions == "be brief" and create()._request_id.startswith("req_")


tools = [
    {"type": "function", "name": "look", "description": "looks", "parameters": {"type": "object", "properties": {}}, "strict": False},
    {"type": "web_search"},
    {"type": "namespace", "name": "files", "description": "files", "tools": [{"type": "function", "name": "open", "parameters": {"type": "object"}}]},
    {"type": "custom", "name": "patch", "description": "patches"},
]


@case
def every_event_of_a_stream():
    for more in {}, {"model": "tool"}, {"model": "custom"}, {"model": "inside"}, {"model": "thinks", "reasoning": {"effort": "low"}}, {
        "model": "thinks",
        "reasoning": {"effort": "low", "summary": "auto"},
    }:
        events = []
        for event in create(stream=True, tools=tools, **more):
            events.append(event_type.validate_python(event.to_dict()))
        assert [e.sequence_number for e in events] == list(range(len(events))), events
        assert [e.type for e in events[:2]] == ["response.created", "response.in_progress"] and events[-1].type == "response.completed", events
        strict(events[-1].response)


@case
def stream():
    with client.responses.stream(model="gen", input="hi") as events:
        said = "".join(e.delta for e in events if e.type == "response.output_text.delta")
        final = events.get_final_response()
    assert said == final.output_text == "Hello" and final.usage.total_tokens == 9, final


@case
def tool_round_trip():
    raw = client.responses.with_raw_response.create(model="tool", input="hi", tools=tools, tool_choice="auto", parallel_tool_calls=False)
    assert raw.headers["inferd-ignored"] == "web_search", raw.headers
    answer = strict(raw.parse())
    (call,) = answer.output
    assert (call.type, call.name, json.loads(call.arguments), answer.parallel_tool_calls) == ("function_call", "look", {}, False), answer
    again = [{"role": "user", "content": "hi"}, *answer.output, {"type": "function_call_output", "call_id": call.call_id, "output": "a cat"}]
    assert create(input=again, tools=tools).output_text == "Hello"


@case
def a_namespace_and_a_custom_tool():
    (inside,) = strict(create(model="inside", tools=tools)).output
    assert (inside.type, inside.name, inside.namespace) == ("function_call", "open", "files"), inside
    (custom,) = strict(create(model="custom", tools=tools)).output
    assert (custom.type, custom.name, custom.input) == ("custom_tool_call", "patch", "{}"), custom
    again = [
        {"role": "user", "content": "hi"},
        inside,
        {"type": "function_call_output", "call_id": inside.call_id, "output": [{"type": "input_text", "text": "a"}]},
        custom,
        {"type": "custom_tool_call_output", "call_id": custom.call_id, "output": "b"},
    ]
    assert create(input=again, tools=tools).output_text == "Hello"


@case
def streamed_tool_call():
    with client.responses.stream(model="tool", input="hi", tools=tools) as events:
        final = events.get_final_response()
    assert (final.output[0].call_id, final.output[0].name, final.output[0].arguments) == ("mock-call-1", "look", "{}"), final


@case
def reasoning():
    answer = strict(create(model="thinks", reasoning={"effort": "high"}))
    thought, said = answer.output
    assert thought.type == "reasoning" and thought.content[0].text == "hm, so" and said.content[0].text == "Hello", answer
    assert answer.usage.output_tokens_details.reasoning_tokens == 2, answer.usage
    sealed = strict(create(model="thinks", reasoning={"effort": "high", "summary": "auto"}, include=["reasoning.encrypted_content"]))
    assert sealed.output[0].summary[0].text == "hm, so" and sealed.output[0].encrypted_content, sealed
    again = [{"role": "user", "content": "hi"}, *sealed.output, {"role": "user", "content": "go on"}]
    assert create(model="thinks", input=again).output_text == "Hello"


class Place(BaseModel):
    city: str


@case
def structured_output():
    assert client.responses.parse(model="json", input="hi", text_format=Place).output_parsed == Place(city="Oslo")
    with client.responses.stream(model="json", input="hi", text_format=Place) as events:
        assert events.get_final_response().output_parsed == Place(city="Oslo")


def refused(kind, status, code, f):
    e = fails(f, kind=kind)
    assert (e.status_code, e.code) == (status, code), (e.status_code, e.code, e.body)
    return e


@case
def errors():
    assert refused(openai.NotFoundError, 404, "model_not_found", lambda: create(model="gpt-9")).param == "model"
    for member, value in {"previous_response_id": "resp_1", "conversation": "conv_1", "background": True, "input": []}.items():
        assert refused(openai.BadRequestError, 400, None, lambda: create(**{member: value})).param == member
    for streaming in (True, False):
        refused(openai.InternalServerError, 503, "server_is_overloaded", lambda: create(model="down", stream=streaming))
    refused(openai.NotFoundError, 404, "unknown_url", lambda: client.responses.retrieve("resp_1"))


@case
def error_in_the_middle_of_a_stream():
    events = list(create(model="drop", stream=True))
    last = event_type.validate_python(events[-1].to_dict())
    assert last.type == "response.failed" and last.response.status == "failed" and "terminal" in last.response.error.message, last
    assert last.response.output[0].content[0].text == "ab" and last.response.output[0].status == "incomplete", last


@case
def keep_alive_comment_in_a_slow_stream():
    with client.responses.stream(model="slow-start", input="hi") as events:
        assert events.get_final_response().output_text == "a"


@case
def an_abort_frees_the_slot():
    def begin():
        running = create(model="slow", stream=True)
        next(e for e in running if e.type == "response.output_text.delta")
        running.close()

    begin()
    soon(begin)
    fails(lambda: client.with_options(timeout=0.5).responses.create(model="slow", input="hi"), kind=openai.APITimeoutError)
    soon(begin)
