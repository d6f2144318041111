package admit

import "github.com/inferd-go/inferd/internal/infer"

// Estimates of the number of tokens of a prompt.
const (
	bytesPerToken = 4
	mediaTokens   = 256 // tokens of an attachment
)

// promptTokens estimates the number of tokens in the prompt of t, at least 1.
func promptTokens(t infer.Task) int {
	bytes, more := 0, 0
	switch t := t.(type) {
	case *infer.Count:
		return promptTokens(t.Of)
	case *infer.Generate:
		if t.Prompt != nil {
			bytes += len(*t.Prompt)
		}
		if t.Suffix != nil {
			bytes += len(*t.Suffix)
		}
		for _, f := range t.Files {
			bytes += len(f.Name) + len(f.Text)
		}
		for _, m := range t.Messages {
			bytes += textBytes(m.Content)
		}
		for _, tool := range t.Tools {
			bytes += len(tool.Description) + len(tool.Schema)
		}
		more = len(t.Tokens) + len(t.Attachments)*mediaTokens
	case *infer.Embed:
		for _, text := range t.Inputs {
			bytes += len(text)
		}
	case *infer.Rerank:
		for _, text := range t.Documents {
			bytes += len(t.Query) + len(text)
		}
	}
	return 1 + bytes/bytesPerToken + more
}

func textBytes(parts []infer.Part) (n int) {
	for _, part := range parts {
		switch part := part.(type) {
		case *infer.TextPart:
			n += len(part.Text)
		case *infer.ThinkingPart:
			n += len(part.Text)
		case *infer.CallPart:
			n += len(part.Input)
		case *infer.ResultPart:
			n += textBytes(part.Content)
		case *infer.MediaPart: // counted as an attachment
		}
	}
	return n
}
