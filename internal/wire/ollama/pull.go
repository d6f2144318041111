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
	Stream bool   // the progress is to be reported
}

// ReadPull reads the body of a request to pull a model.
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

// Success is the last line of a pull that has brought its model, or found it.
const Success = `{"status":"success"}` + "\n"

// shortDigest is how much of a digest is shown.
const shortDigest = 12

// Progress returns the line for a phase of a pull; nil if it has none.
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
		if len(p.Digest) > shortDigest { // clients keep a bar for each digest
			line.Status, line.Digest = "pulling "+p.Digest[:shortDigest], "sha256:"+p.Digest
		}
	case status.Verify:
		line.Status = "verifying sha256 digest"
	case status.Quarantine:
		line.Status = "sha256 digest mismatch"
	default: // of engines
		return nil
	}
	line.Status = strings.ToValidUTF8(line.Status, "\ufffd")
	text, err := json.Marshal(line)
	if err != nil {
		return nil // texts of valid UTF-8 and numbers are always encoded
	}
	return append(text, '\n')
}
