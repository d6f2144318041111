package dialect

// Fixtures are dialects written by hand, for tests of what is read off templates and of what is made
// of dialects.
func Fixtures() map[string]*Dialect {
	all := make(map[string]*Dialect)
	for _, d := range []*Dialect{
		hermes(), llama3(), mistralNemo(), mistralSmall(), qwenCoder(), lfm2(), gemma4(), gptOSS(), deepSeek31(), Generic(),
	} {
		all[d.Name] = d
	}
	return all
}

// Generic is the dialect of models whose templates have no tools: a system message describes it.
func Generic() *Dialect {
	return &Dialect{Name: "generic", Shape: Object, Calls: Calls{
		Begin: `{"tool_calls": [`, End: `]}`, Separator: ", ", Several: true, Alone: true,
		Call: object("", "arguments", ""),
	}}
}

// object is the spelling of a call as a JSON object.
func object(before, arguments, behind string) []Piece {
	return []Piece{
		{Fixed, before + `{"name": "`},
		{Name, ""},
		{Fixed, `", "` + arguments + `": `},
		{Arguments, ""},
		{Fixed, "}" + behind},
	}
}

// hermes is the dialect of Qwen 3.
func hermes() *Dialect {
	return &Dialect{
		Name: "hermes", Shape: Object,
		Calls: Calls{
			Separator: "\n", Lead: "\n", Several: true,
			Call: object("<tool_call>\n", "arguments", "\n</tool_call>"),
		},
		Thinking: Thinking{
			Begin: "<think>\n", End: "\n</think>\n\n", Variable: "enable_thinking", On: true, Off: false,
			Closed: "<think>\n\n</think>\n\n",
		},
	}
}

func llama3() *Dialect {
	return &Dialect{
		Name: "llama3-json", Shape: Object,
		Calls: Calls{Alone: true, Call: object("", "parameters", "")},
	}
}

func mistralNemo() *Dialect {
	return &Dialect{
		Name: "mistral-nemo", Shape: Array,
		Calls: Calls{
			Begin: "[TOOL_CALLS][", End: "]", Separator: ", ", Several: true,
			Call: []Piece{
				{Fixed, `{"name": "`},
				{Name, ""},
				{Fixed, `", "arguments": `},
				{Arguments, ""},
				{Fixed, `, "id": "`},
				{ID, Nine},
				{Fixed, `"}`},
			},
		},
	}
}

func mistralSmall() *Dialect {
	return &Dialect{
		Name: "mistral-small-3.2", Shape: Named,
		Calls: Calls{Several: true, Call: []Piece{
			{Fixed, "[TOOL_CALLS]"},
			{Name, ""},
			{Fixed, "[CALL_ID]"},
			{ID, Nine},
			{Fixed, "[ARGS]"},
			{Arguments, ""},
		}},
	}
}

func qwenCoder() *Dialect {
	return &Dialect{
		Name: "qwen3-coder", Shape: Params,
		Calls: Calls{
			Separator: "\n", Lead: "\n", Several: true,
			Call: []Piece{
				{Fixed, "<tool_call>\n<function="},
				{Name, ""},
				{Fixed, ">\n"},
				{Arguments, ""},
				{Fixed, "</function>\n</tool_call>"},
			},
			Others: [][]Piece{{
				{Fixed, "<function="},
				{Name, ""},
				{Fixed, ">\n"},
				{Arguments, ""},
				{Fixed, "</function>"},
			}},
			Param: Param{Open: "<parameter=", Middle: ">\n", Close: "\n</parameter>\n"},
		},
	}
}

// lfm2 is the dialect of LFM 2.5.
func lfm2() *Dialect {
	return &Dialect{
		Name: "lfm2", Shape: Python,
		Calls: Calls{
			Begin: "<|tool_call_start|>[", End: "]<|tool_call_end|>", Separator: ", ", Several: true,
			Call:  []Piece{{Name, ""}, {Fixed, "("}, {Arguments, ""}, {Fixed, ")"}},
			Param: Param{Middle: "=", Separator: ", "},
		},
		Thinking: Thinking{Begin: "<think>", End: "</think>"},
	}
}

func gemma4() *Dialect {
	return &Dialect{
		Name: "gemma4", Shape: Literal,
		Calls: Calls{
			Several: true,
			Call: []Piece{
				{Fixed, "<|tool_call>call:"},
				{Name, ""},
				{Fixed, "{"},
				{Arguments, ""},
				{Fixed, "}<tool_call|>"},
			},
			Param: Param{Middle: ":", Separator: ",", Quote: `<|"|>`},
		},
		Thinking: Thinking{
			Begin: "<|channel>thought\n", End: "<channel|>", Variable: "enable_thinking", On: true, Off: false,
		},
	}
}

func gptOSS() *Dialect {
	return &Dialect{
		Name: "gpt-oss", Shape: Named,
		Calls: Calls{
			Call: []Piece{
				{Fixed, "<|channel|>commentary to=functions."},
				{Name, ""},
				{Fixed, " <|constrain|>json<|message|>"},
				{Arguments, ""},
				{Fixed, "<|call|>"},
			},
			Others: [][]Piece{
				{
					{Fixed, " to=functions."},
					{Name, ""},
					{Fixed, "<|channel|>commentary json<|message|>"},
					{Arguments, ""},
					{Fixed, "<|call|>"},
				},
				{
					{Fixed, " to=functions."},
					{Name, ""},
					{Fixed, "<|channel|>commentary <|constrain|>json<|message|>"},
					{Arguments, ""},
					{Fixed, "<|call|>"},
				},
			},
		},
		Thinking: Thinking{
			Begin: "<|channel|>analysis<|message|>", End: "<|end|>",
			Variable: "reasoning_effort", On: "medium", Low: "low",
		},
		Text: Text{
			Begins: []string{"<|channel|>final<|message|>", "<|channel|>commentary<|message|>"}, End: "<|end|>",
		},
		Next: "<|start|>assistant",
	}
}

func deepSeek31() *Dialect {
	return &Dialect{
		Name: "deepseek-v3.1", Shape: Named,
		Calls: Calls{
			Begin: "<｜tool▁calls▁begin｜>", End: "<｜tool▁calls▁end｜>", Several: true,
			Call: []Piece{
				{Fixed, "<｜tool▁call▁begin｜>"},
				{Name, ""},
				{Fixed, "<｜tool▁sep｜>"},
				{Arguments, ""},
				{Fixed, "<｜tool▁call▁end｜>"},
			},
		},
		Thinking: Thinking{Begin: "<think>", End: "</think>", Opened: true, Variable: "thinking", On: true, Off: false, Closed: "</think>"},
	}
}
