package builtin

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/inferd-go/inferd/internal/gguf"
)

// Script writes a model without a chat template, for tests. The model recites pieces, one token
// each, and ends its turn after the last one. After ":", and after any token that is not a piece, it
// begins with the first piece. There must be at least one piece; pieces must not be empty, and must
// differ from each other.
//
// The tokenizer turns the text of a piece into the token of the piece if the piece is one word with at
// most one leading space, one run of punctuation, or one byte.
func Script(w io.Writer, pieces ...string) error {
	f, err := script(pieces)
	if err != nil {
		return err
	}
	if _, err := f.WriteTo(w); err != nil {
		return fmt.Errorf("write scripted model: %w", err)
	}
	return nil
}

func script(pieces []string) (*gguf.File, error) {
	if len(pieces) == 0 {
		return nil, errors.New("scripted model: no pieces")
	}
	x := new(lexicon)
	recited := make([]int, len(pieces)) // tokens
	for i, piece := range pieces {
		if piece == "" || slices.Index(pieces, piece) < i {
			return nil, fmt.Errorf("scripted model: piece %d, %q, is empty or not the first of its kind", i, piece)
		}
		recited[i] = x.learn(piece)
	}
	return lookup("script", x, func(token int) int {
		i := slices.Index(recited, token)
		switch {
		case token == ':':
			return recited[0]
		case i == len(recited)-1:
			return endOfTurn
		default:
			return recited[i+1]
		}
	}), nil
}

// learn adds a piece to the vocabulary, with its prefixes and the merges that lead to it, and
// returns its token.
func (x *lexicon) learn(piece string) (token int) {
	runes := byteRunes()
	token = int(piece[0])
	word := string(runes[piece[0]])
	for i := 1; i < len(piece); i++ {
		next := string(runes[piece[i]])
		merge := word + " " + next
		word += next
		at := slices.Index(x.words, word)
		if at < 0 {
			at = len(x.words)
			x.words = append(x.words, word)
			x.merges = append(x.merges, merge)
		}
		token = vocabulary + len(x.marks) + at
	}
	return token
}
