curl -s {{if .Base}}{{sh .Base "/v1/chat/completions"}}{{else}}--unix-socket {{sh .Socket}} http://inferd/v1/chat/completions{{end}} \
  -H 'Content-Type: application/json' \
{{- if and .Key .Base}}
  -H "Authorization: Bearer $INFERD_HTTP_KEY" \
{{- end}}
  -d {{sh "{\"model\": " (quote .Model) ", \"messages\": [{\"role\": \"user\", \"content\": \"Why is the sky blue?\"}]}"}}
