"""langchain-openai against a daemon."""

import openai
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

from stock import case, fails, soon, url


def chat(model="gen", **more):
    return ChatOpenAI(model=model, base_url=url, api_key="unused", max_retries=0, timeout=60, **more)


@case
def text():
    answer = chat().invoke("hi")
    assert (answer.content, answer.response_metadata["finish_reason"]) == ("Hello", "stop"), answer
    assert answer.response_metadata["model_name"] == "gen", answer


@case
def stream():
    assert "".join(c.content for c in chat().stream("hi")) == "Hello"


def whole(chunks):
    all = None
    for chunk in chunks:
        all = chunk if all is None else all + chunk
    return all


@case
def usage():
    for answer in chat().invoke("hi"), whole(chat(stream_usage=True).stream("hi")):
        assert (answer.usage_metadata["input_tokens"], answer.usage_metadata["output_tokens"]) == (7, 2), answer


@tool
def look(place: str) -> str:
    """looks"""
    return "a cat in " + place


@case
def tool_round_trip():
    model = chat("loop").bind_tools([look])
    asked = [HumanMessage("hi")]
    for answer in model.invoke(asked), whole(model.stream(asked)):
        (call,) = answer.tool_calls
        assert (call["name"], call["args"]) == ("look", {"place": "Oslo"}), answer
        result = look.invoke(call)
        assert result.content == "a cat in Oslo"
        assert model.invoke([*asked, answer, result]).content == "a cat"


class Place(BaseModel):
    city: str


@case
def structured_output():
    for model, method in ("json", "json_schema"), ("json", "json_mode"), ("place", "function_calling"):
        assert chat(model).with_structured_output(Place, method=method).invoke("where?") == Place(city="Oslo"), method


@case
def responses():
    model = chat(use_responses_api=True)
    answer = model.invoke("hi")
    assert answer.content[0]["text"] == "Hello" and answer.usage_metadata["total_tokens"] == 9, answer
    assert "".join(b["text"] for c in model.stream("hi") for b in c.content if "text" in b) == "Hello"
    tools = chat("loop", use_responses_api=True).bind_tools([look])
    asked = [HumanMessage("hi")]
    answer = tools.invoke(asked)
    again = tools.invoke([*asked, answer, look.invoke(answer.tool_calls[0])])
    assert again.content[0]["text"] == "a cat", again


@case
def embeddings_in_both_encodings():  # the SDK asks for base64
    for more in {}, {"model_kwargs": {"encoding_format": "float"}}:
        of = OpenAIEmbeddings(model="vec", base_url=url, api_key="unused", check_embedding_ctx_length=False, **more)
        assert of.embed_documents(["a", "bcd"]) == [[0.5, 1.0], [0.25, 0.5]], more
        assert of.embed_query("a") == [0.5, 1.0], more


@case
def errors():
    fails(lambda: chat("gpt-9").invoke("hi"), "gpt-9", kind=openai.NotFoundError)
    fails(lambda: chat("down").invoke("hi"), "503", kind=openai.InternalServerError)
    fails(lambda: list(chat("down").stream("hi")), "503", kind=openai.InternalServerError)


@case
def error_in_the_middle_of_a_stream():
    seen = []

    def read():
        for chunk in chat("drop").stream("hi"):
            seen.append(chunk.content)

    fails(read, "terminal", kind=openai.APIError)
    assert "".join(seen) == "ab", seen


@case
def an_abort_frees_the_slot():
    def begin():
        running = chat("slow").stream("hi")
        assert next(c.content for c in running if c.content) == "a"
        running.close()

    begin()
    soon(begin)
    fails(lambda: chat("slow", request_timeout=0.5).invoke("hi"), kind=openai.APITimeoutError)
    soon(begin)
