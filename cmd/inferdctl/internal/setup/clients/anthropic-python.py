{{if .Key}}import os

{{end}}from anthropic import Anthropic

client = Anthropic(base_url={{quote .Base}}, api_key={{if .Key}}os.environ["INFERD_HTTP_KEY"]{{else}}"unused"{{end}})
answer = client.messages.create(
    model={{quote .Model}},
    max_tokens=1024,
    messages=[{"role": "user", "content": "Why is the sky blue?"}],
)
print(answer.content[0].text)
