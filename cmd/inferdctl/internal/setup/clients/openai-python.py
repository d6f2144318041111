{{if .Key}}import os

{{end}}from openai import OpenAI

client = OpenAI(base_url={{quote .Base "/v1"}}, api_key={{if .Key}}os.environ["INFERD_HTTP_KEY"]{{else}}"unused"{{end}})
answer = client.chat.completions.create(
    model={{quote .Model}},
    messages=[{"role": "user", "content": "Why is the sky blue?"}],
)
print(answer.choices[0].message.content)
