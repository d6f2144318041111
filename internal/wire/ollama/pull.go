package ollama

import (
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/inferd-go/inferd/internal/status"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// A Pull is a request to bring a model into the store.
type Pull struct {
	Name   string // as Ollama spells names
	Stream bool   // the answer reports the progress, a line at a time
}

// ReadPull decodes the body of a request to pull a model.
func ReadPull(body []byte) (Pull, error) {
	var m struct {
		names

		Stream   *bool `json:"stream"`
		Insecure bool  `json:"insecure"`
	}
	if err := wire.Unmarshal(body, &m); err != nil {
		return Pull{}, err
	}
	switch {
	case m.name() == "":
		return Pull{}, web.Invalid("model", "model is missing")
	case m.Insecure:
		return Pull{}, web.Invalid("insecure", "insecure is not supported: models come over https, from verified servers")
	}
	return Pull{Name: m.name(), Stream: wire.ValueOr(m.Stream, true)}, nil
}

// Success is the last line of a successful pull, whether the model was downloaded, was already in
// the store, or belongs to an entry.
const Success = `{"status":"success"}` + "\n"

// shortDigest is the number of hex digits of a digest that are shown.
const shortDigest = 12

// Progress returns the line for a phase of a pull. It returns nil for a phase of an engine's start,
// such as [status.Mmap].
func Progress(p status.Phase) []byte {
	var line struct {
		Status    string `json:"status"`
		Digest    string `json:"digest,omitzero"`
		Total     uint64 `json:"total,omitzero"`
		Completed uint64 `json:"completed,omitzero"`
	}
	switch p := p.(type) {
	case status.CheckingLocal:
		line.Status = "pulling manifest"
	case status.Download:
		line.Status, line.Total, line.Completed = "pulling "+p.Name, p.Total, p.Done
		if len(p.Digest) > shortDigest { // clients show a progress bar for each digest
			line.Status, line.Digest = "pulling "+p.Digest[:shortDigest], "sha256:"+p.Digest
		}
	case status.Verify:
		line.Status = "verifying sha256 digest"
	case status.Quarantine:
		line.Status = "sha256 digest mismatch"
	default: // a phase of an engine
		return nil
	}
	line.Status = strings.ToValidUTF8(line.Status, "\ufffd")
	text, err := json.Marshal(line)
	if err != nil {
		return nil // texts of valid UTF-8 and numbers are always encoded
	}
	return append(text, '\n')
}
