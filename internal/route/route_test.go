package route_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/route"
)

func TestRouter(t *testing.T) {
	for name, test := range map[string]struct {
		a, b  backend.State
		model string
		want  string // the name of the chosen backend, or the class of the failure
	}{
		"the first that is ready":              {backend.Ready, backend.Ready, "", "a"},
		"the second if the first is away":      {backend.Loading, backend.Ready, "", "b"},
		"the first that will be ready":         {backend.Loading, backend.Loading, "", "a"},
		"one that will be before one that not": {backend.Down, backend.Loading, "", "b"},
		"no entry is up":                       {backend.Down, backend.Down, "", "unavailable"},
		"the one that is meant":                {backend.Ready, backend.Ready, "b", "b"},
		"by its alias":                         {backend.Ready, backend.Ready, "small", "b"},
		"the one that is meant, or none":       {backend.Ready, backend.Down, "b", "unavailable"},
		"an unknown model":                     {backend.Ready, backend.Ready, "c", "invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			target := func(name string, s backend.State, aliases ...string) *backend.Backend {
				return &backend.Backend{
					Name: name, Aliases: aliases, State: in(s),
					Abilities: able(infer.Abilities{Generate: true}),
				}
			}
			r := route.Router{Backends: []*backend.Backend{target("a", test.a), target("b", test.b, "small")}}
			if got := choose(&r, &infer.Generate{Model: test.model}); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// fileInfo returns the path and the file information of a new file, or of a new link to one.
func fileInfo(t *testing.T, linkTo string) (string, os.FileInfo) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model")
	var err error
	if linkTo == "" {
		err = os.WriteFile(path, []byte("weights"), 0o600)
	} else {
		err = os.Link(linkTo, path)
	}
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, info
}

// Vectors and scores always come from one model: another entry replaces the first one only if it
// has the same origin. Generation has no such restriction.
func TestVectorsStayWithTheirModel(t *testing.T) {
	path, file := fileInfo(t, "")
	_, link := fileInfo(t, path)
	_, other := fileInfo(t, "")
	for name, test := range map[string]struct {
		a, b   backend.Origin
		stateA backend.State
		model  string
		want   string // the entry that answers embed and rerank
	}{
		"the first, though another one is like it": {backend.Origin{File: file}, backend.Origin{File: file}, backend.Ready, "", "a"},
		"the same file":                               {backend.Origin{File: file}, backend.Origin{File: file}, backend.Down, "", "b"},
		"the same file under another name":            {backend.Origin{File: file}, backend.Origin{File: link}, backend.Down, "", "b"},
		"the same file while the first loads":         {backend.Origin{File: file}, backend.Origin{File: file}, backend.Loading, "", "b"},
		"another file":                                {backend.Origin{File: file}, backend.Origin{File: other}, backend.Down, "", "unavailable"},
		"another file while the first loads":          {backend.Origin{File: file}, backend.Origin{File: other}, backend.Loading, "", "a"},
		"another file of the same digest":             {backend.Origin{File: file, Digest: "d"}, backend.Origin{File: other, Digest: "d"}, backend.Down, "", "b"},
		"another digest":                              {backend.Origin{File: file, Digest: "d"}, backend.Origin{File: other, Digest: "e"}, backend.Down, "", "unavailable"},
		"the same file, other settings":               {backend.Origin{File: file, Settings: "mean 512"}, backend.Origin{File: file, Settings: "cls 512"}, backend.Down, "", "unavailable"},
		"origins that are not known":                  {backend.Origin{}, backend.Origin{}, backend.Down, "", "unavailable"},
		"a shared alias means its first entry":        {backend.Origin{File: file}, backend.Origin{File: other}, backend.Down, "both", "unavailable"},
		"a shared alias of one file":                  {backend.Origin{File: file}, backend.Origin{File: file}, backend.Down, "both", "b"},
		"a name means that entry":                     {backend.Origin{File: file}, backend.Origin{File: other}, backend.Ready, "b", "b"},
		"a name means no other, the same file or not": {backend.Origin{File: file}, backend.Origin{File: file}, backend.Down, "a", "unavailable"},
		"a name that no entry has":                    {backend.Origin{File: file}, backend.Origin{File: file}, backend.Ready, "c", "invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			target := func(name string, o backend.Origin, s backend.State) *backend.Backend {
				return &backend.Backend{
					Name: name, Aliases: []string{"both"}, State: in(s), Origin: func(infer.Task) backend.Origin { return o },
					Abilities: able(infer.Abilities{Generate: true, Embed: true, Rerank: true}),
				}
			}
			r := route.Router{Backends: []*backend.Backend{target("a", test.a, test.stateA), target("b", test.b, backend.Ready)}}
			if got := choose(&r, &infer.Embed{Model: test.model}); got != test.want {
				t.Errorf("embed: got %q, want %q", got, test.want)
			}
			if got := choose(&r, &infer.Rerank{Model: test.model}); got != test.want {
				t.Errorf("rerank: got %q, want %q", got, test.want)
			}
			want := test.want
			if test.model == "" || test.model == "both" {
				want = "b"
				if test.stateA == backend.Ready {
					want = "a"
				}
			}
			if got := choose(&r, &infer.Generate{Model: test.model}); got != want {
				t.Errorf("generate: got %q, want %q", got, want)
			}
		})
	}
}

// After its file has changed, a model has another origin: values of the two may not be compared.
func TestOriginOfAChangedFile(t *testing.T) {
	path, before := fileInfo(t, "")
	if err := os.WriteFile(path, []byte("other weights"), 0o600); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if (backend.Origin{File: before}).Same(backend.Origin{File: after}) {
		t.Error("it counts as the same model")
	}
}

// The error for an unknown name contains the name, cut to a few bytes if it is long.
func TestUnknownNameIsCut(t *testing.T) {
	r := route.Router{Backends: []*backend.Backend{{
		Name: "a", State: in(backend.Ready),
		Abilities: able(infer.Abilities{Generate: true}),
	}}}
	for _, name := range []string{"b", strings.Repeat("b", 1<<20)} {
		_, err := r.Choose(&infer.Request{Task: &infer.Generate{Model: name}})
		if err == nil || !strings.Contains(err.Error(), `called "b`) || len(err.Error()) > 150 {
			t.Errorf("a name of %d bytes: %v", len(name), err)
		}
	}
}

// able returns a function that reports the abilities can.
func able(can infer.Abilities) func() (infer.Abilities, bool) {
	return func() (infer.Abilities, bool) { return can, true }
}

// choose returns the name of the chosen backend, or the class of the failure.
func choose(r *route.Router, task infer.Task) string {
	t, err := r.Choose(&infer.Request{Task: task})
	if err != nil {
		return string(infer.CodeOf(err))
	}
	return t.Name
}

func TestOnlyAbleBackendsAreChosen(t *testing.T) {
	target := func(name string, can infer.Abilities, s backend.State) *backend.Backend {
		return &backend.Backend{Name: name, Abilities: able(can), State: in(s)}
	}
	r := route.Router{Backends: []*backend.Backend{
		target("writer", infer.Abilities{Generate: true}, backend.Ready),
		target("embedder", infer.Abilities{Embed: true}, backend.Ready),
		target("broken", infer.Abilities{Embed: true, Rerank: true}, backend.Down),
	}}
	for name, test := range map[string]struct {
		task infer.Task
		want string
	}{
		"to generate":                        {&infer.Generate{}, "writer"},
		"to embed":                           {&infer.Embed{}, "embedder"},
		"to rerank, and it is down":          {&infer.Rerank{}, "unavailable"},
		"to generate with one that does not": {&infer.Generate{Model: "embedder"}, "invalid"},
		"to embed with one that does not":    {&infer.Embed{Model: "writer"}, "invalid"},
		"to rerank with one that is down":    {&infer.Rerank{Model: "broken"}, "unavailable"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := choose(&r, test.task); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// A request for a feature beyond the abilities of its backend is refused; another backend is not
// tried. A backend that has not reported its abilities refuses no feature.
func TestFeaturesBeyondTheAbilities(t *testing.T) {
	var (
		plain    = &backend.Backend{Name: "plain", Abilities: able(infer.Abilities{Generate: true})}
		whole    = &backend.Backend{Name: "whole", Abilities: able(infer.AllAbilities())}
		reported = infer.Abilities{}
		known    = false
		loading  = &backend.Backend{Name: "loading", Abilities: func() (infer.Abilities, bool) { return reported, known }}
		r        = route.Router{Backends: []*backend.Backend{plain, whole, loading}}
		thinking = func(model string) infer.Task { return &infer.Generate{Model: model, Thinking: infer.ThinkOn} }
		want     = func(task infer.Task, want string) {
			t.Helper()
			if got := choose(&r, task); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	)
	plain.State = in(backend.Ready)
	whole.State = plain.State
	loading.State = in(backend.Loading)
	want(&infer.Generate{}, "plain")
	want(thinking(""), "invalid")
	want(thinking("whole"), "whole")
	want(thinking("loading"), "loading")
	want(&infer.Embed{}, "whole")
	want(&infer.Embed{Model: "loading"}, "loading")
	known = true
	want(thinking("loading"), "invalid")
	reported = infer.Abilities{Generate: true, Thinking: true}
	want(thinking("loading"), "loading")
	want(&infer.Embed{Model: "loading"}, "invalid")
	plain.State = in(backend.Down)
	want(thinking(""), "whole")
	want(thinking("plain"), "unavailable")
}

// in returns a function that always reports the state s.
func in(s backend.State) func() (backend.State, string) {
	return func() (backend.State, string) { return s, "" }
}
