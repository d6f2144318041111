"""The stock anthropic client against a daemon."""

import anthropic
from anthropic.types import Message, MessageTokensCount, ModelInfo, RawMessageStreamEvent
from pydantic import TypeAdapter

from stock import case, fails, soon, url

client = anthropic.Anthropic(base_url=url, api_key="unused", max_retries=0, timeout=60)
hi = [{"role": "user", "content": "hi"}]
raw_event = TypeAdapter(RawMessageStreamEvent)


def create(**more):
    return client.messages.create(**{"model": "gen", "max_tokens": 9, "messages": hi, **more})


def strict(message):
    """Validates an answer against the client's types, because the client's own parsing accepts anything."""
    return Message.model_validate(message.to_dict())


@case
def text():
    answer = strict(create())
    assert (answer.role, answer.type, answer.stop_reason, answer.stop_sequence) == ("assistant", "message", "end_turn", None), answer
    assert [b.text for b in answer.content] == ["Hello"] and answer.model == "gen", answer
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.cache_read_input_tokens) == (7, 2, 0), answer
    assert create()._request_id.startswith("req_")


@case
def stream():
    with client.messages.stream(model="gen", max_tokens=9, messages=hi) as events:
        assert "".join(events.text_stream) == "Hello"
        final = strict(events.get_final_message())
    assert (final.stop_reason, final.usage.input_tokens, final.usage.output_tokens) == ("end_turn", 7, 2), final


@case
def every_event_of_a_stream():
    for more in {}, {"model": "tool"}, {"model": "thinks", "thinking": {"type": "adaptive"}}:
        kinds = []
        for event in create(stream=True, **more):
            kinds.append(raw_event.validate_python(event.to_dict()).type)
        assert kinds[0] == "message_start" and kinds[-2:] == ["message_delta", "message_stop"], kinds


tools = [{"name": "look", "description": "looks", "input_schema": {"type": "object", "properties": {}}}]


@case
def tool_round_trip():
    answer = strict(create(model="tool", tools=tools, tool_choice={"type": "auto", "disable_parallel_tool_use": True}))
    (use,) = answer.content
    assert (answer.stop_reason, use.type, use.name, use.input) == ("tool_use", "tool_use", "look", {}), answer
    result = {"type": "tool_result", "tool_use_id": use.id, "is_error": False, "content": [{"type": "text", "text": "a cat"}]}
    again = hi + [{"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
    assert create(messages=again, tools=tools).content[0].text == "Hello"


@case
def streamed_tool_call():
    with client.messages.stream(model="tool", max_tokens=9, messages=hi, tools=tools) as events:
        final = events.get_final_message()
    (use,) = final.content
    assert (final.stop_reason, use.id, use.name, use.input) == ("tool_use", "mock-call-1", "look", {}), final


@case
def thinking():
    for wish in {"type": "enabled", "budget_tokens": 1024}, {"type": "adaptive"}:
        answer = strict(create(model="thinks", thinking=wish))
        thought, said = answer.content
        assert (thought.type, thought.thinking, said.text) == ("thinking", "hm, so", "Hello") and thought.signature, answer
        with client.messages.stream(model="thinks", max_tokens=9, messages=hi, thinking=wish) as events:
            final = strict(events.get_final_message())
        assert final.content[0].thinking == "hm, so" and final.content[0].signature and final.content[1].text == "Hello", final
        again = hi + [{"role": "assistant", "content": answer.content}, {"role": "user", "content": "go on"}]
        assert create(model="thinks", messages=again, thinking=wish).content[1].text == "Hello"
    assert [b.type for b in create(model="thinks", thinking={"type": "disabled"}).content] == ["text"]


@case
def structured_output():
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
    answer = create(model="json", output_config={"format": {"type": "json_schema", "schema": schema}})
    assert answer.content[0].text == '{"city":"Oslo"}', answer


@case
def system_and_sampling():
    blocks = [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}]
    raw = client.messages.with_raw_response.create(
        model="gen", max_tokens=128000, system=blocks, messages=hi, stop_sequences=["X"], metadata={"user_id": "u"}, extra_body={"temperature": 0.5}
    )
    assert raw.parse().content[0].text == "Hello"
    assert raw.headers["inferd-ignored"] == "cache_control, metadata", raw.headers


@case
def count_tokens():
    count = client.messages.count_tokens(model="gen", messages=hi, system="be brief", tools=tools)
    assert MessageTokensCount.model_validate(count.to_dict()).input_tokens == 7, count
    assert client.beta.messages.count_tokens(model="gen", messages=hi).input_tokens == 7


@case
def beta():
    assert client.beta.messages.create(model="gen", max_tokens=9, messages=hi, betas=["interleaved-thinking-2025-05-14"]).content[0].text == "Hello"


@case
def models():
    names = []
    for model in client.models.list():
        names.append(ModelInfo.model_validate(model.to_dict(), strict=False).id)
    assert "gen" in names, names
    assert client.models.retrieve("gen").display_name == "gen"


def refused(kind, status, f):
    e = fails(f, kind=kind)
    assert e.status_code == status, (e.status_code, e.body)
    return e


@case
def errors():
    e = refused(anthropic.NotFoundError, 404, lambda: create(model="claude-9"))
    assert e.body["error"]["type"] == "not_found_error" and e.body["request_id"].startswith("req_"), e.body
    refused(anthropic.BadRequestError, 400, lambda: create(messages=[]))
    refused(anthropic.BadRequestError, 400, lambda: create(messages=hi + [{"role": "assistant", "content": "and"}]))
    refused(anthropic.NotFoundError, 404, lambda: client.models.retrieve("claude-9"))
    for streaming in (True, False):
        e = refused(anthropic.InternalServerError, 529, lambda: create(model="down", stream=streaming))
        assert e.body["error"]["type"] == "overloaded_error", e.body


@case
def error_in_the_middle_of_a_stream():
    seen = []
    try:
        for event in create(model="drop", stream=True):
            seen.append(event)
    except anthropic.APIError as e:
        assert "terminal" in str(e), e
    else:
        raise AssertionError("the stream looks complete")
    assert "".join(e.delta.text for e in seen if e.type == "content_block_delta") == "ab", seen


@case
def keep_alive_in_a_slow_stream():
    with client.messages.stream(model="slow-start", max_tokens=9, messages=hi) as events:
        assert events.get_final_message().content[0].text == "a"


@case
def retries_obey_the_daemon():  # two requests of "flaky" fail, and the third is answered
    assert client.with_options(max_retries=2).messages.create(model="flaky", max_tokens=9, messages=hi).content[0].text == "Hello"


@case
def an_abort_frees_the_slot():
    def begin():
        running = create(model="slow", max_tokens=1000, stream=True)
        next(e for e in running if e.type == "content_block_delta")
        running.close()

    begin()
    soon(begin)
    impatient = client.with_options(timeout=0.5)
    fails(lambda: impatient.messages.create(model="slow", max_tokens=1000, messages=hi), kind=anthropic.APITimeoutError)
    soon(begin)
