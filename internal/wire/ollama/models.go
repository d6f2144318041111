package ollama

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
)

// A Model is a model as clients list it. A field is 0 or empty if unknown.
type Model struct {
	Name         string // name of the entry
	Modified     time.Time
	Size, Params uint64 // bytes of the weights, and number of weights
	OnGPU        bool   // some layers are computed on a GPU
	Digest       string // SHA-256 of the content, in hex
	Family       string // the architecture, such as "llama"
	Quantization string
	NCtx         int // size of the context in tokens
	Can          infer.Abilities
	Template     string // chat template, in Jinja
}

// details is the object with the properties of a model that all answers about models contain.
type details struct {
	Parent       string   `json:"parent_model"`
	Format       string   `json:"format"`
	Family       string   `json:"family"`
	Families     []string `json:"families"`
	Parameters   string   `json:"parameter_size"`
	Quantization string   `json:"quantization_level"`
}

func (m *Model) details() details {
	d := details{Format: "gguf", Family: m.Family, Families: []string{}, Parameters: count(m.Params), Quantization: m.Quantization}
	if m.Family != "" {
		d.Families = append(d.Families, m.Family)
	}
	return d
}

// count formats a number of weights, such as 7.6B or 348M.
func count(n uint64) string {
	switch {
	case n == 0:
		return ""
	case n >= 1e9:
		return fmt.Sprintf("%.1fB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.2fM", float64(n)/1e6)
	default:
		return fmt.Sprintf("%.2fK", float64(n)/1e3)
	}
}

// A listed is a model in a list.
type listed struct {
	Name     string  `json:"name"`
	Model    string  `json:"model"`
	Modified string  `json:"modified_at,omitzero"`
	Size     uint64  `json:"size"`
	Digest   string  `json:"digest"`
	Details  details `json:"details"`

	// Only for running models.
	Expires string  `json:"expires_at,omitzero"`
	VRAM    *uint64 `json:"size_vram,omitzero"`
	NCtx    int     `json:"context_length,omitzero"`
}

// digest returns the digest of the model. If it is unknown, it returns the digest of the name,
// because clients slice the value and need its full length.
func (m *Model) digest() string {
	if len(m.Digest) == hex.EncodedLen(sha256.Size) {
		return m.Digest
	}
	sum := sha256.Sum256([]byte(m.Name))
	return hex.EncodeToString(sum[:])
}

func (m *Model) listed() listed {
	name := Tagged(m.Name)
	return listed{Name: name, Model: name, Size: m.Size, Digest: m.digest(), Details: m.details()}
}

// never is the expiry time of a model that stays loaded.
var never = time.Date(2318, 1, 1, 0, 0, 0, 0, time.UTC)

// Tags returns the body with the list of all models.
func Tags(models []Model) []byte {
	all := make([]listed, len(models))
	for i := range models {
		all[i] = models[i].listed()
		all[i].Modified = models[i].Modified.UTC().Format(time.RFC3339Nano)
	}
	return list(all)
}

// Processes returns the body with the list of loaded models. All models of the daemon count as loaded,
// and never expire.
func Processes(models []Model) []byte {
	all := make([]listed, len(models))
	for i := range models {
		m := &models[i]
		all[i] = m.listed()
		all[i].Expires, all[i].NCtx, all[i].VRAM = never.Format(time.RFC3339Nano), m.NCtx, new(uint64)
		if m.OnGPU {
			*all[i].VRAM = m.Size
		}
	}
	return list(all)
}

func list(all []listed) []byte {
	body, _ := json.Marshal(struct { // cannot fail: texts and numbers only
		Models []listed `json:"models"`
	}{all}, jsontext.AllowInvalidUTF8(true))
	return body
}

// capabilities returns Ollama's names for the abilities of the model.
func (m *Model) capabilities() []string {
	all := []string{}
	for _, of := range []struct {
		can  bool
		word string
	}{
		{m.Can.Generate, "completion"},
		{m.Can.Tools, "tools"},
		{m.Can.Thinking, "thinking"},
		{m.Can.Vision, "vision"},
		{m.Can.Embed, "embedding"},
		{m.Can.Infill, "insert"},
	} {
		if of.can {
			all = append(all, of.word)
		}
	}
	return all
}

// Show returns the body with the properties of a model.
func (m *Model) Show() []byte {
	info := map[string]any{}
	if m.Family != "" {
		info["general.architecture"] = m.Family
	}
	if m.Params > 0 {
		info["general.parameter_count"] = m.Params
	}
	if m.NCtx > 0 && m.Family != "" {
		info[m.Family+".context_length"] = m.NCtx
	}
	if m.Can.ToolsDialect != "" {
		info["inferd.tools_dialect"] = m.Can.ToolsDialect
	}
	body, _ := json.Marshal(struct { // cannot fail: texts and numbers only
		License      string         `json:"license"`
		Modelfile    string         `json:"modelfile"`
		Parameters   string         `json:"parameters"`
		Template     string         `json:"template"`
		Details      details        `json:"details"`
		Info         map[string]any `json:"model_info"`
		Capabilities []string       `json:"capabilities"`
		Modified     string         `json:"modified_at"`
	}{
		Modelfile: "FROM " + Tagged(m.Name) + "\n", Template: m.Template, Details: m.details(), Info: info,
		Capabilities: m.capabilities(), Modified: m.Modified.UTC().Format(time.RFC3339Nano),
	}, json.Deterministic(true), jsontext.AllowInvalidUTF8(true))
	return body
}
