"""The stock openai client's completions against a daemon."""

import openai

from stock import case, url

client = openai.OpenAI(base_url=url, api_key="unused", max_retries=0, timeout=60)


@case
def text():
    answer = client.completions.create(model="gen", prompt="abc", max_tokens=4)
    choice = answer.choices[0]
    assert (choice.text, choice.finish_reason, choice.logprobs, answer.object) == ("defg", "length", None, "text_completion"), answer
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 4), answer


@case
def sixteen_tokens_by_default():
    assert client.completions.create(model="gen", prompt=["a"]).choices[0].text == "bcdefghijklmnopq"


@case
def tokens_and_echo():
    assert client.completions.create(model="gen", prompt=[97, 98, 99], max_tokens=2, echo=True).choices[0].text == "abcde"
    assert client.completions.create(model="gen", prompt="abc", max_tokens=2, echo=True).choices[0].text == "abcde"


@case
def stream():
    chunks = list(client.completions.create(model="gen", prompt="abc", max_tokens=4, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].text for c in chunks if c.choices) == "defg"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length" and chunks[-1].usage.total_tokens == 7
    assert len({c.id for c in chunks}) == 1


@case
def logprobs():
    all = client.completions.create(model="gen", prompt="abc", max_tokens=2, logprobs=2).choices[0].logprobs
    assert all.tokens == ["d", "e"] and all.text_offset == [0, 1] and all.token_logprobs == [0.0, 0.0] and "d" in all.top_logprobs[0], all


@case
def fill_in_the_middle():
    assert client.completions.create(model="code", prompt="a", suffix="z", max_tokens=3).choices[0].text == "mno"
    try:
        client.completions.create(model="gen", prompt="a", suffix="z")
    except openai.BadRequestError as e:
        assert e.param == "suffix", e.body
    else:
        raise AssertionError("a model without marks fills a gap")


@case
def errors():
    for more, param in (({"n": 2}, "n"), ({"prompt": ["a", "b"]}, "prompt"), ({"prompt": [1 << 20]}, None), ({"logprobs": 6}, "logprobs")):
        try:
            client.completions.create(**{"model": "gen", "prompt": "a", **more})
        except openai.BadRequestError as e:
            assert e.param == param, e.body
        else:
            raise AssertionError(more)
