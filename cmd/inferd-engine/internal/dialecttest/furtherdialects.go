package dialecttest

import "github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"

func deepSeek1() *dialect.Dialect {
	return &dialect.Dialect{
		Name: "deepseek-r1", Shape: dialect.Named,
		Calls: dialect.Calls{
			Begin: "<｜tool▁calls▁begin｜>", End: "<｜tool▁calls▁end｜>", Separator: "\n", Several: true,
			Call: spell("<｜tool▁call▁begin｜>function<｜tool▁sep｜>«N»\n```json\n«A»\n```<｜tool▁call▁end｜>"),
		},
		Thinking: dialect.Thinking{Begin: "<think>\n", End: "</think>", Opened: true, Closed: "</think>"},
	}
}

func deepSeek32() *dialect.Dialect {
	return &dialect.Dialect{
		Name: "deepseek-v3.2", Shape: dialect.Params,
		Calls: dialect.Calls{
			Begin: "<｜DSML｜function_calls>\n", End: "\n</｜DSML｜function_calls>", Separator: "\n", Lead: "\n\n", Several: true,
			Call: spell("<｜DSML｜invoke name=\"«N»\">\n«A»</｜DSML｜invoke>"),
			Param: dialect.Param{
				Open: `<｜DSML｜parameter name="`, Middle: `" string="true">`, MiddleJSON: `" string="false">`, Close: "</｜DSML｜parameter>\n",
			},
			Space: &dialect.Space{JSON: true, Comma: " ", Colon: " "},
		},
		Thinking: dialect.Thinking{Begin: "<think>", End: "</think>", Variable: "thinking", On: true, Off: false, Closed: "</think>"},
	}
}

func kimi2() *dialect.Dialect {
	return &dialect.Dialect{
		Name: "kimi-k2", Shape: dialect.Named,
		Calls: dialect.Calls{
			Begin: "<|tool_calls_section_begin|>", End: "<|tool_calls_section_end|>", Several: true,
			Call: spell("<|tool_call_begin|>functions.«N»:«C»<|tool_call_argument_begin|>«A»<|tool_call_end|>"),
		},
	}
}

// glm is the dialect of GLM 4.6.
func glm() *dialect.Dialect {
	return &dialect.Dialect{
		Name: "glm", Shape: dialect.Params,
		Calls: dialect.Calls{
			Separator: "\n", Lead: "\n", Several: true, Call: spell("<tool_call>«N»\n«A»</tool_call>"),
			Param: dialect.Param{Open: "<arg_key>", Middle: "</arg_key>\n<arg_value>", Close: "</arg_value>\n"},
			Space: &dialect.Space{JSON: true, Comma: " ", Colon: " "},
		},
		Thinking: dialect.Thinking{
			Begin: "\n<think>", End: "</think>\n", Variable: "enable_thinking", On: true, Off: false, Closed: "<think></think>",
		},
		Text: dialect.Text{Lead: "\n"},
	}
}

func seed() *dialect.Dialect {
	return &dialect.Dialect{
		Name: "seed-oss", Shape: dialect.Params,
		Calls: dialect.Calls{
			Separator: "\n", Lead: "\n", Several: true, Call: spell("<seed:tool_call>\n<function=«N»>\n«A»</function>\n</seed:tool_call>"),
			Param: dialect.Param{Open: "<parameter=", Middle: ">", Close: "</parameter>\n"},
		},
		Thinking: dialect.Thinking{
			Begin: "<seed:think>", End: "</seed:think>", Variable: "thinking_budget", On: -1, Off: 0,
			InnerMarkers: []string{"<seed:cot_budget_reflect>", "</seed:cot_budget_reflect>"},
			Closed:       "<seed:think>\n<seed:cot_budget_reflect>The budget is 0.</seed:cot_budget_reflect>\n</seed:think>",
		},
	}
}

func miniMax() *dialect.Dialect {
	return &dialect.Dialect{
		Name: "minimax-m2", Shape: dialect.Params,
		Calls: dialect.Calls{
			Begin: "<minimax:tool_call>\n", End: "\n</minimax:tool_call>", Separator: "\n", Lead: "\n", Several: true,
			Call:  spell("<invoke name=\"«N»\">\n«A»</invoke>"),
			Param: dialect.Param{Open: `<parameter name="`, Middle: `">`, Close: "</parameter>\n"},
		},
		Thinking: dialect.Thinking{Begin: "<think>\n", End: "\n</think>\n\n", Opened: true, Closed: "\n</think>\n\n"},
	}
}

func devstral() *dialect.Dialect {
	return &dialect.Dialect{
		Name: "devstral", Shape: dialect.Named,
		Calls: dialect.Calls{Several: true, Call: spell("[TOOL_CALLS]«N»[ARGS]«A»")},
	}
}

// array returns a dialect with calls as JSON objects in an array; lead is the white space in front
// of the calls.
func array(name, begin, lead, end string) *dialect.Dialect {
	return &dialect.Dialect{
		Name: name, Shape: dialect.Array,
		Calls: dialect.Calls{
			Begin: begin, End: end, Separator: ", ", Lead: lead, Several: true,
			Call:   spell(`{"name": "«N»", "arguments": «A»}`),
			Others: [][]dialect.Piece{spell(`{"arguments": «A», "name": "«N»"}`)},
		},
	}
}

func granite() *dialect.Dialect {
	d := array("granite-3.3", "<|tool_call|>[", "", "]")
	d.Thinking = dialect.Thinking{Begin: "<think>", End: "</think>", Variable: "thinking", On: true, Off: false}
	d.Text = dialect.Text{Begins: []string{"<response>"}, End: "</response>"}
	return d
}

func command() *dialect.Dialect {
	return &dialect.Dialect{
		Name: "command-r7b", Shape: dialect.Array,
		Calls: dialect.Calls{
			Begin: "<|START_ACTION|>[", End: "\n]<|END_ACTION|>", Separator: ",", Several: true,
			Call:   spell("\n    {\"tool_call_id\": \"«I»\", \"tool_name\": \"«N»\", \"parameters\": «A»}"),
			Others: [][]dialect.Piece{spell("\n    {\"tool_call_id\": \"«I»\", \"parameters\": «A», \"tool_name\": \"«N»\"}")},
		},
		Thinking: dialect.Thinking{
			Begin: "<|START_THINKING|>", End: "<|END_THINKING|>", Closed: "<|START_THINKING|><|END_THINKING|>",
		},
		Text: dialect.Text{Begins: []string{"<|START_RESPONSE|>"}},
	}
}

func nemotron() *dialect.Dialect {
	d := array("nemotron-nano-v2", "<TOOLCALL>[", "\n", "]</TOOLCALL>")
	d.Thinking = dialect.Thinking{Begin: "<think>\n", End: "</think>", Opened: true, Word: "/no_think", Closed: "<think></think>"}
	return d
}

func apertus() *dialect.Dialect {
	return &dialect.Dialect{
		Name: "apertus", Shape: dialect.Array,
		Calls: dialect.Calls{
			Begin: "<|tools_prefix|>[", End: "]<|tools_suffix|>", Separator: ", ", Several: true, Call: spell(`{"«N»": «A»}`),
		},
		Thinking: dialect.Thinking{Begin: "<|inner_prefix|>", End: "<|inner_suffix|>", Variable: "enable_thinking", On: true, Off: false},
	}
}

// apriel is the dialect of Apriel, and of Hunyuan A13B.
func apriel() *dialect.Dialect { return array("apriel", "<tool_calls>[", "\n", "]</tool_calls>") }

func functionGemma() *dialect.Dialect {
	return &dialect.Dialect{
		Name: "functiongemma", Shape: dialect.Literal,
		Calls: dialect.Calls{
			Several: true, Call: spell("<start_function_call>call:«N»{«A»}<end_function_call>"),
			Param: dialect.Param{Middle: ":", Separator: ",", Quote: "<escape>"},
		},
	}
}

func llama4() *dialect.Dialect {
	return &dialect.Dialect{
		Name: "llama4-pythonic", Shape: dialect.Python,
		Calls: dialect.Calls{
			Begin: "[", End: "]", Separator: ", ", Several: true, Alone: true, Call: spell("«N»(«A»)"),
			Param: dialect.Param{Middle: "=", Separator: ", ", Quote: `"`},
		},
	}
}

func phi4() *dialect.Dialect { return array("phi4-mini", "<|tool_call|>[", "", "]<|/tool_call|>") }
