# Claude Code: then start claude in the same shell.
export ANTHROPIC_BASE_URL={{sh .Base}}
export ANTHROPIC_API_KEY={{if .Key}}"$INFERD_HTTP_KEY"{{else}}unused{{end}}
export ANTHROPIC_MODEL={{sh .Model}}
export ANTHROPIC_DEFAULT_HAIKU_MODEL={{sh .Model}}
export CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1
