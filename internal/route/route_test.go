package route_test

import (
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/route"
)

func TestRouter(t *testing.T) {
	for name, test := range map[string]struct {
		a, b  route.State
		model string
		want  string // who answers, or the class of the failure
	}{
		"the first that is ready":              {route.Ready, route.Ready, "", "a"},
		"the second if the first is away":      {route.Waiting, route.Ready, "", "b"},
		"the first that will be ready":         {route.Waiting, route.Waiting, "", "a"},
		"one that will be before one that not": {route.Down, route.Waiting, "", "b"},
		"nobody":                               {route.Down, route.Down, "", "unavailable"},
		"the one that is meant":                {route.Ready, route.Ready, "b", "b"},
		"by its alias":                         {route.Ready, route.Ready, "small", "b"},
		"the one that is meant, or none":       {route.Ready, route.Down, "b", "unavailable"},
		"a model that nobody knows":            {route.Ready, route.Ready, "c", "invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			target := func(name string, s route.State, aliases ...string) *route.Target {
				return &route.Target{
					Name: name, Aliases: aliases, State: func() route.State { return s },
					Can: func() route.Abilities { return route.Abilities{Generate: true} },
				}
			}
			r := route.Router{Targets: []*route.Target{target("a", test.a), target("b", test.b, "small")}}
			if got := choose(&r, &infer.Generate{Model: test.model}); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// A name that is not known is told, but not megabytes of it.
func TestUnknownNameIsToldInShort(t *testing.T) {
	r := route.Router{Targets: []*route.Target{{
		Name: "a", State: func() route.State { return route.Ready },
		Can: func() route.Abilities { return route.Abilities{Generate: true} },
	}}}
	for _, name := range []string{"b", strings.Repeat("b", 1<<20)} {
		_, err := r.Choose(&infer.Request{Task: &infer.Generate{Model: name}})
		if err == nil || !strings.Contains(err.Error(), `called "b`) || len(err.Error()) > 150 {
			t.Errorf("a name of %d bytes: %v", len(name), err)
		}
	}
}

// choose returns the name of who is chosen, or the class of the failure.
func choose(r *route.Router, task infer.Task) string {
	t, err := r.Choose(&infer.Request{Task: task})
	if err != nil {
		return string(infer.CodeOf(err))
	}
	return t.Name
}

func TestOnlyWhoCanIsChosen(t *testing.T) {
	target := func(name string, can route.Abilities, s route.State) *route.Target {
		return &route.Target{Name: name, Can: func() route.Abilities { return can }, State: func() route.State { return s }}
	}
	r := route.Router{Targets: []*route.Target{
		target("writer", route.Abilities{Generate: true}, route.Ready),
		target("embedder", route.Abilities{Embed: true}, route.Ready),
		target("broken", route.Abilities{Embed: true, Rerank: true}, route.Down),
	}}
	for name, test := range map[string]struct {
		task infer.Task
		want string
	}{
		"to generate":                        {&infer.Generate{}, "writer"},
		"to embed":                           {&infer.Embed{}, "embedder"},
		"to rerank, and it is down":          {&infer.Rerank{}, "unavailable"},
		"to generate with one that does not": {&infer.Generate{Model: "embedder"}, "invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := choose(&r, test.task); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
