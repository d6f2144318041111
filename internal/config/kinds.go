package config

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/backend/mock"
	"github.com/inferd-go/inferd/internal/builtin"
)

const llamacppKind = "llamacpp"

// kinds are the kinds of entries, each with the reader of its own members.
var kinds = map[string]func(*object, *Backend) (warnings []string){
	llamacppKind: readEngine,
	mock.Kind:    readMock,
}

// checkKind refuses the kind of an entry that is not known.
func checkKind(kind string) error {
	switch {
	case kinds[kind] != nil:
		return nil
	case kind == "":
		return errors.New("is missing")
	case kind == "openai-compat", kind == "bedrock-invoke":
		return fmt.Errorf("%q is not served by this release yet: llamacpp or mock", kind)
	}
	return fmt.Errorf("%.64q is not known: llamacpp or mock", kind)
}

// engineOptions are the settings of an entry with an engine, as they are written.
type engineOptions struct {
	Generate              bool // true by default
	Embed, Rerank         bool
	Pooling               poolingWord
	EmbedNCtx, RerankNCtx int // 0 is the default
}

// defaultEngineOptions are the options of an entry without a setting.
func defaultEngineOptions() engineOptions { return engineOptions{Generate: true} }

// readEngine reads the members of an entry with an engine.
func readEngine(o *object, b *Backend) (warnings []string) {
	options := defaultEngineOptions()
	for _, s := range engineSettings {
		s.read(o, &options)
	}
	if o.has("model") {
		b.Model = readModel(o.child("model"))
	} else {
		o.doc.failf(o.at.AppendToken("model"), "is missing")
	}
	b.serveAs(options)
	var err error
	if b.Pooling, err = options.Pooling.check(); err != nil {
		o.failf("embed_pooling", "%w", err)
	}
	for _, name := range []string{"chat_template", "mmproj", "mmproj_image_max_tokens"} {
		if o.take(name) != nil {
			warnings = append(warnings, key(o.at.AppendToken(name))+" has no effect in this release")
		}
	}
	return warnings
}

// serveAs sets the tasks of an engine, and the context of each. A model that embeds or reranks
// without being asked to does so on n_ctx tokens.
func (b *Backend) serveAs(o engineOptions) {
	b.Tasks = Tasks{NoGenerate: !o.Generate, Embed: o.Embed, Rerank: o.Rerank}
	own := b.NCtx
	if b.Tasks.encodes() {
		own = DefaultEncodeNCtx
	}
	b.EmbedNCtx, b.RerankNCtx = cmp.Or(o.EmbedNCtx, own), cmp.Or(o.RerankNCtx, own)
}

// A poolingWord is the value of embed_pooling as it is written: a word of ours, or a number of
// the reference.
type poolingWord string

// check returns our word. The error follows the name of the setting.
func (p poolingWord) check() (string, error) {
	switch p {
	case "0", "none":
		return "", fmt.Errorf("%s is no pooling, which would give a vector for each token: want mean (1), cls (2) or last (3)", string(p))
	case "1":
		return "mean", nil
	case "2":
		return "cls", nil
	case "3":
		return "last", nil
	case "", "mean", "cls", "last":
		return string(p), nil
	}
	return "", fmt.Errorf("%.64q is not known: want mean (1), cls (2) or last (3)", string(p))
}

// pooling reads a word or a number.
func (o *object) pooling(name string, to *poolingWord) {
	switch value := o.take(name); {
	case value == nil:
	case value.Kind() == jsontext.KindNumber:
		*to = poolingWord(value)
	case value.Kind() == jsontext.KindString:
		*to = poolingWord(unquote(value))
	default:
		o.failf(name, ": it must be a word or a number")
	}
}

// readModel reads where the weights of an entry come from.
func readModel(o *object) (m Model) {
	var name, url string
	for key, to := range map[string]*string{"builtin": &m.Builtin, "path": &m.Path, "sha256": &m.SHA256, "name": &name, "source_url": &url} {
		o.text(key, to)
	}
	for _, unused := range []string{"size_bytes", "license"} {
		o.take(unused)
	}
	switch {
	case m.Builtin == "" && m.Path == "" && name != "":
		o.doc.failf(o.at, ": models by name need the model store, which this release does not have yet: give path or builtin")
	default:
		if err := m.check(); err != nil {
			o.doc.failf(o.at, ": %w", err)
		}
	}
	return m
}

func (m Model) check() error {
	switch {
	case m.Builtin == "" && m.Path == "":
		return errors.New("one of path and builtin is needed")
	case m.Builtin != "" && m.Path != "":
		return errors.New("path and builtin are mutually exclusive")
	case m.Builtin != "" && !builtin.Has(m.Builtin):
		return fmt.Errorf("no built-in model is called %q: there are %s", m.Builtin, strings.Join(builtin.Names(), ", "))
	case m.SHA256 == "":
		return nil
	}
	raw, err := hex.DecodeString(m.SHA256)
	if err != nil || len(raw) != 32 || strings.ToLower(m.SHA256) != m.SHA256 {
		return errors.New("sha256 must be 64 lower-case hex digits")
	}
	return nil
}

// maxMockMS bounds the delays of a mock: a day.
const maxMockMS = 24 * 60 * 60 * 1000

// mockSettings are the settings of a mock.
var mockSettings = []setting[Mock]{
	{key: "token_delay_ms", help: "`milliseconds` before every token", most: maxMockMS, unit: time.Millisecond, at: func(m *Mock) any { return &m.TokenDelay }},
	{key: "pre_stream_error", help: "`failure` of every request: not_ready, invalid_request, unavailable or internal", at: func(m *Mock) any { return &m.PreStream }},
	{key: "mid_stream_drop_after", help: "`tokens` after which an answer ends without a terminal", at: func(m *Mock) any { return &m.DropAfter }},
	{key: "emit_tool_use", help: "`name` of a tool that is called in place of text", at: func(m *Mock) any { return &m.ToolUse }},
	{key: "ready_after_ms", help: "`milliseconds` until the entry is ready", most: maxMockMS, unit: time.Millisecond, at: func(m *Mock) any { return &m.ReadyAfter }},
	{key: "not_ready_after", help: "`requests` after which the entry is not ready any longer", at: func(m *Mock) any { return &m.NotReadyAfter }},
	{key: "fail_first", help: "`requests` that fail first, as unavailable", at: func(m *Mock) any { return &m.FailFirst }},
	{key: "prompt_tokens", help: "`tokens` that every prompt has", at: func(m *Mock) any { return &m.PromptTokens }},
	{key: "embed_dimensions", help: "`numbers` of a vector (default 8)", most: mock.MaxDimensions, at: func(m *Mock) any { return &m.Dimensions }},
	{key: "v2", help: "whether it takes more than text", at: func(m *Mock) any { return &m.V2 }},
	{key: "embed", help: "whether it embeds", at: func(m *Mock) any { return &m.Embed }},
	{key: "rerank", help: "whether it reranks", at: func(m *Mock) any { return &m.Rerank }},
	{key: "vision", help: "whether capabilities say that it takes images", at: func(m *Mock) any { return &m.Vision }},
	{key: "audio", help: "whether capabilities say that it takes audio", at: func(m *Mock) any { return &m.Audio }},
	{key: "tools", help: "whether capabilities say that it takes tools", at: func(m *Mock) any { return &m.Tools }},
}

// newMock returns the mock of an entry, as it is without a setting.
func newMock(name string) *Mock {
	return &Mock{Backend: mock.Backend{Name: name}, V2: true, Embed: true, Rerank: true}
}

// readMock reads the members of an entry without a model.
func readMock(o *object, b *Backend) (warnings []string) {
	m := newMock(b.Name)
	for _, s := range mockSettings {
		s.read(o, m)
	}
	m.NoV2 = !m.V2
	m.Tokens = o.texts("tokens")
	m.Thoughts = o.texts("thinking_tokens")
	if !mock.KnowsFailure(m.PreStream) {
		o.failf("pre_stream_error", "%.64q is not known", m.PreStream)
	}
	refused := o.texts("unsupported")
	for _, task := range refused {
		if task != "embed" && task != "rerank" {
			o.failf("unsupported", "%.64q is not known: embed or rerank", task)
		}
	}
	m.NoEmbed, m.NoRerank = slices.Contains(refused, "embed"), slices.Contains(refused, "rerank")
	b.Mock = m
	return nil
}
