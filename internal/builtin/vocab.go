package builtin

import "github.com/inferd-go/inferd/internal/gguf"

// The vocabulary of every model that generates: one token per byte, with the byte as its id,
// then the control tokens, then the words of its [lexicon].
const (
	beginning = 256 + iota // of a text; the tokenizer never adds it
	startOfTurn
	endOfTurn
	padding
	vocabulary // number of tokens before the words
)

// commonControls are the control tokens of every model that generates.
var commonControls = [vocabulary - beginning]string{"<|bos|>", "<|im_start|>", "<|im_end|>", "<|pad|>"}

// Kinds of tokens, as in tokenizer.ggml.token_type of GGUF.
const (
	normalToken  int32 = 1
	controlToken int32 = 3
	definedToken int32 = 4
	unusedToken  int32 = 5
)

// lastMessage is a chat template that renders the last message and nothing else.
const lastMessage = `{{ messages[-1]['content'] }}`

// chatML is a chat template with tools in the format of the Hermes models.
const chatML = `{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] + '\n\n' }}
    {%- endif %}
    {{- 'These functions may be called, one JSON object a line:\n<tools>' }}
    {%- for tool in tools %}
        {{- '\n' + (tool | tojson) }}
    {%- endfor %}
    {{- '\n</tools>\nA call is one JSON object with the function\'s name and its arguments:\n' }}
    {{- '<tool_call>\n{"name": NAME, "arguments": OBJECT}\n</tool_call><|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message['role'] == 'system' and tools and loop.first %}
        {#- it stands above, with the tools #}
    {%- elif message['role'] == 'tool' %}
        {{- '<|im_start|>tool\n<tool_response>\n' + message['content'] + '\n</tool_response><|im_end|>\n' }}
    {%- else %}
        {{- '<|im_start|>' + message['role'] }}
        {%- if message['content'] or not message['tool_calls'] %}
            {{- '\n' + message['content'] }}
        {%- endif %}
        {%- for call in message['tool_calls'] or [] %}
            {%- set function = call['function'] or call %}
            {{- '\n<tool_call>\n{"name": ' + (function['name'] | tojson) + ', "arguments": ' }}
            {%- if function['arguments'] is string %}
                {{- function['arguments'] }}
            {%- else %}
                {{- function['arguments'] | tojson }}
            {%- endif %}
            {{- '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif -%}`

// A lexicon is the part of a vocabulary that differs between models.
type lexicon struct {
	template string   // Jinja source; empty: the file has none
	marks    []string // more control tokens, after commonControls
	words    []string // tokens after the control tokens, spelt with [byteRunes]
	unused   []string // tokens after the words: the tokenizer never makes them from text
	defined  []string // user-defined tokens after the unused ones: the tokenizer finds them in any text
	merges   []string // for the tokenizer, best first; without them it never yields a word
}

// tokens returns the size of the vocabulary.
func (x *lexicon) tokens() int {
	return vocabulary + len(x.marks) + len(x.words) + len(x.unused) + len(x.defined)
}

// add writes the vocabulary to f.
func (x *lexicon) add(f *gguf.File) {
	var tokens []string
	var kinds []int32
	for _, r := range byteRunes() {
		tokens = append(tokens, string(r))
		kinds = append(kinds, normalToken)
	}
	for _, t := range append(commonControls[:], x.marks...) {
		tokens = append(tokens, t)
		kinds = append(kinds, controlToken)
	}
	for _, w := range x.words {
		tokens = append(tokens, w)
		kinds = append(kinds, normalToken)
	}
	for _, u := range x.unused {
		tokens = append(tokens, u)
		kinds = append(kinds, unusedToken)
	}
	for _, d := range x.defined {
		tokens = append(tokens, d)
		kinds = append(kinds, definedToken)
	}
	f.String("tokenizer.ggml.model", "gpt2")
	f.String("tokenizer.ggml.pre", "gpt-2")
	f.Strings("tokenizer.ggml.tokens", tokens)
	f.Int32s("tokenizer.ggml.token_type", kinds)
	f.Strings("tokenizer.ggml.merges", x.merges) // the loader requires the key; the list may be empty
	f.Uint32("tokenizer.ggml.bos_token_id", beginning)
	f.Uint32("tokenizer.ggml.eos_token_id", endOfTurn)
	f.Uint32("tokenizer.ggml.eot_token_id", endOfTurn)
	f.Uint32("tokenizer.ggml.padding_token_id", padding)
	f.Bool("tokenizer.ggml.add_bos_token", false)
	if x.template != "" {
		f.String("tokenizer.chat_template", x.template)
	}
}

// byteRunes maps each byte to its character in a GPT-2 vocabulary: printable Latin-1
// characters map to themselves, the other bytes, in order, to U+0100 and up.
func byteRunes() [256]rune {
	var runes [256]rune
	next := rune(256)
	for b := range runes {
		switch {
		case b >= '!' && b <= '~', b >= 0xa1 && b <= 0xac, b >= 0xae:
			runes[b] = rune(b)
		default:
			runes[b] = next
			next++
		}
	}
	return runes
}
