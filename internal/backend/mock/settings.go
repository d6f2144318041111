package mock

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/settings"
	"github.com/inferd-go/inferd/internal/status"
)

// Kind makes the mocks of entries of kind "mock".
var Kind = backend.Kind{Name: kind, New: func() backend.Settings { return NewSettings() }, Start: start}

// Settings are the settings of an entry with a mock, including the abilities that it reports.
type Settings struct {
	Backend
	ReadyAfter                              time.Duration
	V2, Embed, Rerank, Vision, Audio, Tools bool
	AudioRate                               int
}

var _ backend.Settings = (*Settings)(nil)

// NewSettings returns the settings of an entry in which no member is set.
func NewSettings() *Settings { return &Settings{V2: true, Embed: true, Rerank: true} }

// maxMS bounds the delays: a day, in milliseconds.
const maxMS = 24 * 60 * 60 * 1000

// rows are the rows of the table of settings.
var rows = []settings.Setting[Settings]{
	{Key: "token_delay_ms", Help: "`milliseconds` before every token", Most: maxMS, Unit: time.Millisecond, At: func(s *Settings) any { return &s.TokenDelay }},
	{Key: "pre_stream_error", Help: "`failure` of every request: not_ready, invalid_request, unavailable or internal", At: func(s *Settings) any { return &s.PreStream }},
	{Key: "mid_stream_drop_after", Help: "`tokens` after which an answer ends without a terminal", At: func(s *Settings) any { return &s.DropAfter }},
	{Key: "emit_tool_use", Help: "`name` of a tool that is called in place of text", At: func(s *Settings) any { return &s.ToolUse }},
	{Key: "emit_tool_once", Help: "whether that tool is called only if the request offers it, and no tool has run yet", At: func(s *Settings) any { return &s.ToolOnce }},
	{Key: "ready_after_ms", Help: "`milliseconds` until the entry is ready", Most: maxMS, Unit: time.Millisecond, At: func(s *Settings) any { return &s.ReadyAfter }},
	{Key: "not_ready_after", Help: "`requests` after which the entry is not ready any longer", At: func(s *Settings) any { return &s.NotReadyAfter }},
	{Key: "fail_first", Help: "`requests` that fail first, as unavailable", At: func(s *Settings) any { return &s.FailFirst }},
	{Key: "prompt_tokens", Help: "`tokens` that every prompt has", At: func(s *Settings) any { return &s.PromptTokens }},
	{Key: "cached_tokens", Help: "`tokens` of every prompt that count as found in the cache; at most prompt_tokens", At: func(s *Settings) any { return &s.CachedTokens }},
	{Key: "embed_dimensions", Help: "`numbers` of a vector (default 8)", Most: MaxDimensions, At: func(s *Settings) any { return &s.Dimensions }},
	{Key: "v2", Help: "whether it takes more than text", At: func(s *Settings) any { return &s.V2 }},
	{Key: "embed", Help: "whether it embeds", At: func(s *Settings) any { return &s.Embed }},
	{Key: "rerank", Help: "whether it reranks", At: func(s *Settings) any { return &s.Rerank }},
	{Key: "vision", Help: "whether capabilities say that it takes images", At: func(s *Settings) any { return &s.Vision }},
	{Key: "audio", Help: "whether capabilities say that it takes audio", At: func(s *Settings) any { return &s.Audio }},
	{Key: "audio_sample_rate", Help: "`samples` a second of audio, in capabilities", At: func(s *Settings) any { return &s.AudioRate }},
	{Key: "tools", Help: "whether capabilities say that it takes tools", At: func(s *Settings) any { return &s.Tools }},
}

// Table returns the settings that are in rows.
func (s *Settings) Table() settings.Table { return settings.Of(rows, s) }

// Read reads the members of an entry.
func (s *Settings) Read(o *settings.Object, e *backend.Entry) (warnings []string) {
	s.Table().Read(o)
	s.Name, s.NoV2 = e.Name, !s.V2
	s.Tokens = o.Texts("tokens")
	s.Thoughts = o.Texts("thinking_tokens")
	s.readInput(o)
	if _, known := failures[s.PreStream]; !known && s.PreStream != "" {
		o.Failf("pre_stream_error", "%.64q is not known: want not_ready, invalid_request, unavailable or internal", s.PreStream)
	}
	if s.CachedTokens > s.PromptTokens {
		o.Failf("cached_tokens", "must be at most prompt_tokens")
	}
	refused := o.Texts("unsupported")
	for _, task := range refused {
		if task != "embed" && task != "rerank" {
			o.Failf("unsupported", "%.64q is not known: want embed or rerank", task)
		}
	}
	s.NoEmbed, s.NoRerank = slices.Contains(refused, "embed"), slices.Contains(refused, "rerank")
	return nil
}

// readInput reads the input of the tool call.
func (s *Settings) readInput(o *settings.Object) {
	const name = "emit_tool_input"
	switch input := o.Take(name); {
	case input == nil:
	case input.Kind() != jsontext.KindBeginObject:
		o.Failf(name, "must be an object")
	default:
		s.ToolInput = input
	}
}

// FromFlags ignores the flags that name a model: a mock has none.
func (s *Settings) FromFlags(e *backend.Entry, _ backend.ModelFlags) error {
	s.Name = e.Name
	return nil
}

// ReadModel records an error: a mock has no model.
func (s *Settings) ReadModel(o *settings.Object, _ *backend.Entry) {
	o.Child("model").Failf("", ": a mock has no model")
}

// Members returns the members that are set and are not in rows.
func (s *Settings) Members() map[string]any {
	all := make(map[string]any)
	for key, list := range map[string][]string{"tokens": s.Tokens, "thinking_tokens": s.Thoughts} {
		if list != nil {
			all[key] = list
		}
	}
	if s.ToolInput != nil {
		all["emit_tool_input"] = jsontext.Value(s.ToolInput)
	}
	var refused []string
	for task, no := range map[string]bool{"embed": s.NoEmbed, "rerank": s.NoRerank} {
		if no {
			refused = append(refused, task)
		}
	}
	if slices.Sort(refused); refused != nil {
		all["unsupported"] = refused
	}
	return all
}

// Role returns the zero Role: a mock uses no context.
func (s *Settings) Role() backend.Role { return backend.Role{} }

// defaultTimeout bounds the time until a mock is ready if the host has no LoadTimeout.
const defaultTimeout = 30 * time.Second

// start makes the mocks of all entries. It cannot fail.
func start(h *backend.Host, entries []*backend.Entry) (all []*backend.Backend, stop func(), err error) {
	for _, e := range entries {
		h.Publish(status.Loading{Backend: e.Name, Phase: status.CheckingLocal{Path: "(mock)"}})
		s := e.Settings.(*Settings) //nolint:errcheck // of this kind
		all = append(all, s.start(e, cmp.Or(h.LoadTimeout, defaultTimeout)))
	}
	return all, func() {}, nil
}

// start makes the mock of an entry. ReadyAfter counts from this call; WaitReady fails if ReadyAfter is
// longer than timeout.
func (s *Settings) start(e *backend.Entry, timeout time.Duration) *backend.Backend {
	can := infer.AllAbilities() // it accepts every feature and ignores it
	can.Embed, can.Rerank = s.Embed, s.Rerank
	begun := time.Now()
	return &backend.Backend{
		Name: e.Name, Aliases: e.Aliases, Kind: kind, Slots: e.NSlots, Handler: &s.Backend,
		Faults:    []infer.Code{infer.Unavailable, infer.Internal},
		Abilities: func() (infer.Abilities, bool) { return can, true },
		State: func() (backend.State, string) {
			if s.Ready() {
				return backend.Ready, ""
			}
			return backend.Down, ""
		},
		Origin: func(infer.Task) backend.Origin {
			return backend.Origin{Digest: kind, Settings: strconv.Itoa(cmp.Or(s.Dimensions, DefaultDimensions))}
		},
		Capabilities: func() status.Capabilities {
			return status.Capabilities{Backend: e.Name, Accelerator: "cpu", AudioRate: s.AudioRate, Abilities: infer.Abilities{
				Generate: s.V2, Embed: s.Embed, Rerank: s.Rerank,
				Thinking: true, Vision: s.Vision, Audio: s.Audio, Tools: s.Tools,
			}}
		},
		WaitReady: func(ctx context.Context) error {
			if err := pause(ctx, min(s.ReadyAfter, timeout)-time.Since(begun)); err != nil {
				return err
			}
			if s.ReadyAfter > timeout { // like an engine that reports no progress
				return fmt.Errorf("mock of %s: backend not ready within %s", e.Name, timeout)
			}
			return nil
		},
	}
}
