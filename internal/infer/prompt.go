package infer

// Count asks for the prompt that a request to generate would have, and generates nothing. The
// answer is a Done with the number of its tokens, after a Prompt if Of.Reveal asks for more. It
// needs no slot.
type Count struct {
	Of      *Generate
	Bare    bool // without the token that the model puts before every prompt
	Literal bool // spellings of special tokens in Of.Prompt are ordinary text
	History bool // a conversation ends without the beginning of an answer
}

// Raw reports whether g continues a prompt, without the model's template.
func (g *Generate) Raw() bool { return g.Prompt != nil || g.Tokens != nil }

// A File is a text of a project.
type File struct{ Name, Text string }

// Reveal says which parts of the prompt the [Prompt] reports beside its size.
type Reveal struct{ IDs, Pieces, Text bool }
