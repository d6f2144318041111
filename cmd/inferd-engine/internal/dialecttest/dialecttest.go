// Package dialecttest has dialects written by hand, and short templates in the same notations, for tests
// only. Tests check that package dialect reads each dialect off the template of the same name; other packages
// are tested with both.
package dialecttest

import (
	"strings"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
)

// Fixtures returns the dialects by name. The caller may change them.
func Fixtures() map[string]*dialect.Dialect {
	all := make(map[string]*dialect.Dialect)
	for _, d := range []*dialect.Dialect{
		hermes(), llama3(), mistralNemo(), mistralSmall(), qwenCoder(), lfm2(), gemma4(), gptOSS(), deepSeek31(), dialect.Generic(),
		deepSeek1(), deepSeek32(), kimi2(), glm(), seed(), miniMax(), devstral(), granite(), command(), nemotron(), apertus(), apriel(), functionGemma(), llama4(), phi4(),
	} {
		all[d.Name] = d
	}
	return all
}

// variable has the pieces of a call that are not fixed text, by the letter that stands for each in [spell].
var variable = map[string]dialect.Piece{
	"N": {Kind: dialect.Name}, "A": {Kind: dialect.Arguments}, "9": {Kind: dialect.ID, Text: dialect.Nine},
	"C": {Kind: dialect.NumberInConversation}, "I": {Kind: dialect.NumberInAnswer},
}

// spell returns the pieces of a call. In text, letters in guillemets stand for variable pieces: N for the
// name, A for the arguments, 9 for an id of nine characters, C for the number of the call in the
// conversation, I for its number in the answer. The rest is fixed text.
func spell(text string) (pieces []dialect.Piece) {
	for text != "" {
		fixed, rest, ok := strings.Cut(text, "«")
		if fixed != "" {
			pieces = append(pieces, dialect.Piece{Kind: dialect.Fixed, Text: fixed})
		}
		if !ok {
			break
		}
		sign, behind, _ := strings.Cut(rest, "»")
		pieces = append(pieces, variable[sign])
		text = behind
	}
	return pieces
}

// hermes is the dialect of Qwen 3.
func hermes() *dialect.Dialect {
	return &dialect.Dialect{
		Name: "hermes", Shape: dialect.Object,
		Calls: dialect.Calls{
			Separator: "\n", Lead: "\n", Several: true,
			Call:   spell("<tool_call>\n{\"name\": \"«N»\", \"arguments\": «A»}\n</tool_call>"),
			Others: [][]dialect.Piece{spell("<tool_call>\n{\"arguments\": «A», \"name\": \"«N»\"}\n</tool_call>")},
		},
		Thinking: dialect.Thinking{
			Begin: "<think>\n", End: "\n</think>\n\n", Variable: "enable_thinking", On: true, Off: false,
			Closed: "<think>\n\n</think>\n\n",
		},
	}
}

func llama3() *dialect.Dialect {
	return &dialect.Dialect{
		Name: "llama3-json", Shape: dialect.Object,
		Calls: dialect.Calls{
			Alone: true, Call: spell(`{"name": "«N»", "parameters": «A»}`),
			Others: [][]dialect.Piece{spell(`{"parameters": «A», "name": "«N»"}`)},
		},
	}
}

func mistralNemo() *dialect.Dialect {
	return &dialect.Dialect{
		Name: "mistral-nemo", Shape: dialect.Array,
		Calls: dialect.Calls{
			Begin: "[TOOL_CALLS][", End: "]", Separator: ", ", Several: true,
			Call:   spell(`{"name": "«N»", "arguments": «A», "id": "«9»"}`),
			Others: [][]dialect.Piece{spell(`{"arguments": «A», "name": "«N»", "id": "«9»"}`)},
		},
	}
}

func mistralSmall() *dialect.Dialect {
	return &dialect.Dialect{
		Name: "mistral-small-3.2", Shape: dialect.Named,
		Calls: dialect.Calls{Several: true, Call: spell("[TOOL_CALLS]«N»[CALL_ID]«9»[ARGS]«A»")},
	}
}

func qwenCoder() *dialect.Dialect {
	return &dialect.Dialect{
		Name: "qwen3-coder", Shape: dialect.Params,
		Calls: dialect.Calls{
			Separator: "\n", Lead: "\n", Several: true,
			Call:   spell("<tool_call>\n<function=«N»>\n«A»</function>\n</tool_call>"),
			Others: [][]dialect.Piece{spell("<function=«N»>\n«A»</function>")},
			Param:  dialect.Param{Open: "<parameter=", Middle: ">\n", Close: "\n</parameter>\n"},
		},
	}
}

// lfm2 is the dialect of LFM 2.5.
func lfm2() *dialect.Dialect {
	return &dialect.Dialect{
		Name: "lfm2", Shape: dialect.Python,
		Calls: dialect.Calls{
			Begin: "<|tool_call_start|>[", End: "]<|tool_call_end|>", Separator: ", ", Several: true,
			Call:  spell("«N»(«A»)"),
			Param: dialect.Param{Middle: "=", Separator: ", "},
		},
		Thinking: dialect.Thinking{Begin: "<think>", End: "</think>"},
	}
}

func gemma4() *dialect.Dialect {
	return &dialect.Dialect{
		Name: "gemma4", Shape: dialect.Literal,
		Calls: dialect.Calls{
			Several: true,
			Call:    spell("<|tool_call>call:«N»{«A»}<tool_call|>"),
			Param:   dialect.Param{Middle: ":", Separator: ",", Quote: `<|"|>`},
		},
		Thinking: dialect.Thinking{
			Begin: "<|channel>thought\n", End: "<channel|>", Variable: "enable_thinking", On: true, Off: false,
		},
	}
}

func gptOSS() *dialect.Dialect {
	return &dialect.Dialect{
		Name: "gpt-oss", Shape: dialect.Named,
		Calls: dialect.Calls{
			Call: spell("<|channel|>commentary to=functions.«N» <|constrain|>json<|message|>«A»<|call|>"),
			Others: [][]dialect.Piece{
				spell(" to=functions.«N»<|channel|>commentary json<|message|>«A»<|call|>"),
				spell(" to=functions.«N»<|channel|>commentary <|constrain|>json<|message|>«A»<|call|>"),
			},
		},
		Thinking: dialect.Thinking{
			Begin: "<|channel|>analysis<|message|>", End: "<|end|>",
			Variable: "reasoning_effort", On: "medium", Low: "low", Always: true,
		},
		Text: dialect.Text{
			Begins: []string{"<|channel|>final<|message|>", "<|channel|>commentary<|message|>"}, End: "<|end|>",
		},
		Next: "<|start|>assistant",
	}
}

func deepSeek31() *dialect.Dialect {
	return &dialect.Dialect{
		Name: "deepseek-v3.1", Shape: dialect.Named,
		Calls: dialect.Calls{
			Begin: "<｜tool▁calls▁begin｜>", End: "<｜tool▁calls▁end｜>", Several: true,
			Call: spell("<｜tool▁call▁begin｜>«N»<｜tool▁sep｜>«A»<｜tool▁call▁end｜>"),
		},
		Thinking: dialect.Thinking{Begin: "<think>", End: "</think>", Opened: true, Variable: "thinking", On: true, Off: false, Closed: "</think>"},
	}
}
