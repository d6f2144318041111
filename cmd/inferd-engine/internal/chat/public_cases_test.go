package chat_test

import (
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/chat"
	"github.com/inferd-go/inferd/internal/infer"
)

// conversations returns the conversations, by name, that are rendered with each public template, by
// this package and by the reference.
func conversations() map[string]*chat.Conversation {
	yes, no := true, false
	call := func(id, name, input string) *infer.CallPart {
		return &infer.CallPart{ID: id, Name: name, Input: []byte(input)}
	}
	result := func(id, text string) *infer.ResultPart {
		return &infer.ResultPart{ID: id, Content: []infer.Part{&infer.TextPart{Text: text}}}
	}
	system := infer.TextMessage(infer.System, "Be brief.")
	ask := infer.TextMessage(infer.User, "  What is the weather in Zürich & <Köln>? ")
	say := infer.TextMessage(infer.Assistant, "It is \"fine\".\n")
	tools := []infer.Tool{
		{Name: "get_weather", Description: "Weather of a <city> & its \"region\" – now", Schema: []byte(`{"type":"object","properties":{` +
			`"city":{"type":"string","description":"A name, as in \"Zürich\" or <Köln>"},"days":{"type":"integer","minimum":1,"default":3},` +
			`"unit":{"type":"string","enum":["°C","°F"]},"at":{"type":"object","properties":{"lat":{"type":"number"},"lon":{"type":"number","maximum":180.5}}},` +
			`"tags":{"type":"array","items":{"type":"string"}}},"required":["city","unit"],"additionalProperties":false}`)},
		{Name: "stop", Description: "Stops"},
	}
	hard := []infer.Tool{{Name: "get_weather", Description: "Of any place", Schema: []byte(`{"type":"object","properties":{` +
		`"at":{"type":["object","null"],"properties":{"lat":{"type":"number"}}},"way":{"anyOf":[{"type":"string"},{"$ref":"#/$defs/w"}]}},"$defs":{"w":{"const":1.50}}}`)}}
	one := infer.Message{Role: infer.Assistant, Content: []infer.Part{
		&infer.TextPart{Text: "I look."}, call("tc-1", "get_weather", `{"unit":"°C","city":"Zürich & <Köln>","days":3,"at":{"lat":47.0,"lon":8.55},"tags":["a",null,true]}`),
	}}
	bare := infer.Message{Role: infer.Assistant, Content: []infer.Part{call("tc-1", "get_weather", `{"city":"Köln","unit":"°F"}`)}}
	two := infer.Message{Role: infer.Assistant, Content: []infer.Part{
		call("tc-1", "get_weather", `{"city":"Köln","unit":"°F"}`), call("tc-2", "stop", `{}`),
	}}
	answered := infer.Message{Role: infer.User, Content: []infer.Part{result("tc-1", "{\"sun\": true, \"text\": \"<b>\"}")}}
	failed := infer.Message{Role: infer.User, Content: []infer.Part{
		result("tc-1", "12 °F"), &infer.ResultPart{ID: "tc-2", Failed: true, Content: []infer.Part{&infer.TextPart{Text: "no such thing"}}},
	}}
	thought := infer.Message{Role: infer.Assistant, Content: []infer.Part{&infer.ThinkingPart{Text: "They ask\nfor weather."}, &infer.TextPart{Text: "Fine."}}}
	considered := infer.Message{Role: infer.Assistant, Content: []infer.Part{&infer.ThinkingPart{Text: "I need a tool."}, call("tc-1", "get_weather", `{"city":"Köln","unit":"°F"}`)}}
	return map[string]*chat.Conversation{
		"plain":              {Messages: []infer.Message{system, ask, say, ask}},
		"plain, no system":   {Messages: []infer.Message{ask, say, ask}},
		"plain, late":        {Messages: []infer.Message{ask, say, system, ask, ask}},
		"plain, thoughts":    {Messages: []infer.Message{ask, thought, ask}},
		"plain, thinking":    {Messages: []infer.Message{ask}, Think: &yes},
		"plain, no thoughts": {Messages: []infer.Message{ask}, Think: &no},
		"tools":              {Messages: []infer.Message{system, ask}, Tools: tools},
		"tools, hard":        {Messages: []infer.Message{ask}, Tools: hard},
		"tools, one call":    {Messages: []infer.Message{system, ask, one, answered}, Tools: tools},
		"tools, bare call":   {Messages: []infer.Message{ask, bare, answered, say, ask}, Tools: tools},
		"tools, two calls":   {Messages: []infer.Message{ask, two, failed}, Tools: tools},
		"tools, interrupted": {Messages: []infer.Message{ask, bare, answered, ask}, Tools: tools},
		"tools, thoughts":    {Messages: []infer.Message{ask, considered, answered}, Tools: tools, Think: &yes},
	}
}

// families has the name of the dialect of each public template, by the name of the template.
var families = map[string]string{
	"Apertus-8B-Instruct":                           "apertus",
	"Apriel-1.6-15b-Thinker-fixed":                  "apriel",
	"Bielik-11B-v3.0-Instruct":                      "hermes",
	"ByteDance-Seed-OSS":                            "seed-oss",
	"Cohere2MoE":                                    "command-r7b",
	"CohereForAI-c4ai-command-r-plus-tool_use":      "generic",
	"CohereForAI-c4ai-command-r7b-12-2024-tool_use": "command-r7b",
	"GLM-4.6":                             "glm",
	"GLM-4.7-Flash":                       "glm",
	"GigaChat3-10B-A1.8B":                 "object",
	"GigaChat3.1-10B-A1.8B":               "object",
	"HuggingFaceTB-SmolLM3-3B":            "generic",
	"Kimi-K2-Instruct":                    "kimi-k2",
	"Kimi-K2-Thinking":                    "kimi-k2",
	"Kimi-K3":                             "generic",
	"LFM2-8B-A1B":                         "lfm2",
	"LFM2.5-8B-A1B":                       "lfm2",
	"LFM2.5-Instruct":                     "lfm2",
	"MiMo-VL":                             "hermes",
	"MiniMax-M1":                          "object",
	"MiniMax-M2":                          "minimax-m2",
	"MiniMax-M3":                          "generic",
	"Mistral-Small-3.2-24B-Instruct-2506": "mistral-small-3.2",
	"NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": "qwen3-coder",
	"NVIDIA-Nemotron-Nano-v2":             "nemotron-nano-v2",
	"NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use": "hermes",
	"NousResearch-Hermes-3-Llama-3.1-8B-tool_use":   "hermes",
	"Qwen-QwQ-32B":             "hermes",
	"Qwen-Qwen2.5-7B-Instruct": "hermes",
	"Qwen-Qwen3-0.6B":          "hermes",
	"Qwen3-Coder":              "qwen3-coder",
	"Qwen3.5-4B":               "qwen3-coder",
	"Reka-Edge":                "hermes",
	"Spark2.5":                 "glm",
	"StepFun3.5-Flash":         "qwen3-coder",
	"deepseek-ai-DeepSeek-R1-Distill-Llama-8B": "deepseek-r1",
	"deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": "deepseek-r1",
	"deepseek-ai-DeepSeek-V3.1":                "deepseek-v3.1",
	"deepseek-ai-DeepSeek-V3.2":                "deepseek-v3.2",
	"deepseek-ai-DeepSeek-V4-Flash-0731":       "deepseek-v3.2",
	"deepseek-ai-DeepSeek-V4":                  "deepseek-v3.2",
	"fireworks-ai-llama-3-firefunction-v2":     "array",
	"google-gemma-2-2b-it":                     "generic",
	"google-gemma-4-31B-it-interleaved":        "gemma4",
	"google-gemma-4-31B-it":                    "gemma4",
	"ibm-granite-granite-3.3-2B-Instruct":      "granite-3.3",
	"ibm-granite-granite-4.0":                  "hermes",
	"ibm-granite-granite-4.1":                  "hermes",
	"inclusionai-ling-3.0-flash":               "glm",
	"llama-cpp-deepseek-r1":                    "deepseek-r1",
	"llama-cpp-rwkv-world":                     "generic",
	"meetkai-functionary-medium-v3.1":          "named",
	"meetkai-functionary-medium-v3.2":          "generic",
	"meta-llama-Llama-3.1-8B-Instruct":         "llama3-json",
	"meta-llama-Llama-3.2-3B-Instruct":         "llama3-json",
	"meta-llama-Llama-3.3-70B-Instruct":        "llama3-json",
	"microsoft-Phi-3.5-mini-instruct":          "generic",
	"mistralai-Ministral-3-14B-Reasoning-2512": "devstral",
	"mistralai-Mistral-Nemo-Instruct-2407":     "mistral-nemo",
	"moonshotai-Kimi-K2":                       "kimi-k2",
	"muse-glimmer":                             "generic",
	"openai-gpt-oss-120b":                      "gpt-oss",
	"openbmb-MiniCPM5-1B":                      "params",
	"poolside-Laguna-S-2.1":                    "glm",
	"poolside-Laguna-XS-2.1":                   "glm",
	"poolside-Laguna-XS.2":                     "glm",
	"tencent-Hy3":                              "params",
	"unsloth-Apriel-1.5":                       "apriel",
	"unsloth-mistral-Devstral-Small-2507":      "devstral",
	"upstage-Solar-Open-100B":                  "named",
}
