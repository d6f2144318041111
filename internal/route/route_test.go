package route_test

import (
	"context"
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
			var got string
			target := func(name string, s route.State, aliases ...string) *route.Target {
				return &route.Target{
					Name: name, Aliases: aliases, State: func() route.State { return s },
					Handler: infer.HandlerFunc(func(context.Context, *infer.Request, infer.Sink) error {
						got = name
						return nil
					}),
				}
			}
			r := route.Router{Targets: []*route.Target{target("a", test.a), target("b", test.b, "small")}}
			err := r.Handle(t.Context(), &infer.Request{Task: &infer.Generate{Model: test.model}}, nil)
			if err != nil {
				got = string(infer.CodeOf(err))
			}
			if got != test.want {
				t.Errorf("got %q (%v), want %q", got, err, test.want)
			}
		})
	}
}
