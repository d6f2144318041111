package daemon_test

import (
	"context"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/daemon"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/settings"
	"github.com/inferd-go/inferd/internal/status"
)

// A new kind of backend needs only a value in Kinds: its entries are then read, served and described.
func TestANewKind(t *testing.T) {
	before := daemon.Kinds
	daemon.Kinds = append(slices.Clone(before), &backend.Kind{
		Name: "echo", New: func() backend.Settings { return &echo{Prefix: "you said "} }, Start: startEchoes,
	})
	t.Cleanup(func() { daemon.Kinds = before })
	dial := serve(t, `{"backends":[{"kind":"echo","name":"hall","prefix":"heard "},{"kind":"mock","name":"m"}]}`)
	ask := func(leaf, line string) string {
		nc, err := dial(leaf)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if _, err := io.WriteString(nc, line+"\n"); err != nil {
			t.Fatal(err)
		}
		if err := nc.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(nc)
		if err != nil {
			t.Fatal(err)
		}
		return string(answer)
	}
	if got := ask("infer.sock", `{"id":"1","messages":[{"role":"user","content":"hi"}],"stream":false}`); !strings.Contains(got, `"content":"heard hi"`) || !strings.Contains(got, `"backend":"echo"`) {
		t.Errorf("answered %s", got)
	}
	if got := ask("control.sock", `{"id":"2","type":"stats"}`); !strings.Contains(got, `"name":"hall","kind":"echo","state":"ready","slots":4,"breaker":"closed"`) || !strings.Contains(got, `"requests":1`) {
		t.Errorf("stats %s", got)
	}
	if got := ask("control.sock", `{"id":"3","type":"retry","backend":"hall"}`); !strings.Contains(got, `no engine is called`) {
		t.Errorf("retry %s", got)
	}
}

// An echo is the settings of an entry that answers with Prefix and the last message.
type echo struct{ Prefix string }

func (e *echo) Table() settings.Table {
	return settings.Of([]settings.Setting[echo]{{Key: "prefix", Help: "`text` before the answer", At: func(e *echo) any { return &e.Prefix }}}, e)
}

func (e *echo) Read(o *settings.Object, _ *backend.Entry) (warnings []string) {
	e.Table().Read(o)
	return nil
}

func (e *echo) ReadModel(*settings.Object, *backend.Entry) {}

func (e *echo) FromFlags(*backend.Entry, backend.ModelFlags) error { return nil }

func (e *echo) Members() map[string]any { return nil }

func (e *echo) Role() backend.Role { return backend.Role{Generates: true} }

func startEchoes(_ *backend.Host, entries []*backend.Entry) (all []*backend.Backend, stop func(), err error) {
	can := infer.Abilities{Generate: true}
	for _, entry := range entries {
		e := entry.Settings.(*echo)
		all = append(all, &backend.Backend{
			Name: entry.Name, Aliases: entry.Aliases, Kind: "echo", Slots: entry.NSlots,
			Handler: infer.HandlerFunc(func(_ context.Context, req *infer.Request, emit infer.Sink) error {
				messages := req.Task.(*infer.Generate).Messages
				text := messages[len(messages)-1].Content[0].(*infer.TextPart).Text
				if err := emit(&infer.Text{Delta: []byte(e.Prefix + text), Tokens: 1}); err != nil {
					return err
				}
				return emit(&infer.Done{Reason: infer.EndOfTurn, Out: 1, Backend: "echo"})
			}),
			Abilities:    func() (infer.Abilities, bool) { return can, true },
			State:        func() (backend.State, string) { return backend.Ready, "" },
			Capabilities: func() status.Capabilities { return status.Capabilities{Backend: entry.Name, Abilities: can} },
			WaitReady:    func(context.Context) error { return nil },
		})
	}
	return all, func() {}, nil
}
