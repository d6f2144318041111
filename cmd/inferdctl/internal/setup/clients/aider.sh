# aider speaks OpenAI's interface.
export OPENAI_API_BASE={{sh .Base "/v1"}}
export OPENAI_API_KEY={{if .Key}}"$INFERD_HTTP_KEY"{{else}}unused{{end}}
aider --model {{sh "openai/" .Model}}
