package infer

// Count asks for the size of the prompt that a request to generate would have, and generates
// nothing. The answer is a Done with the number of tokens, after a Prompt if Of.Reveal selects
// parts of the prompt. A Count needs no slot.
type Count struct {
	Of      *Generate
	Bare    bool // without the token that the model puts before every prompt
	Literal bool // spellings of special tokens in Of.Prompt are ordinary text
	History bool // of a conversation: without the tokens at its end that begin the answer
}

// Raw reports whether g continues a prompt, without the model's template.
func (g *Generate) Raw() bool { return g.Prompt != nil || g.Tokens != nil }

// A File is a text file of the project in which a gap is to be filled; see Generate.Files.
type File struct{ Name, Text string }

// Reveal selects the parts of the prompt that a [Prompt] event reports besides its size.
type Reveal struct{ IDs, Pieces, Text bool }
