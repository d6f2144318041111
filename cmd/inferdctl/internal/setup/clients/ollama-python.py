{{if .Key}}import os

{{end}}from ollama import Client

client = Client(host={{quote .Base}}{{if .Key}}, headers={"Authorization": "Bearer " + os.environ["INFERD_HTTP_KEY"]}{{end}})
answer = client.chat(
    model={{quote .Model}},
    messages=[{"role": "user", "content": "Why is the sky blue?"}],
)
print(answer.message.content)
