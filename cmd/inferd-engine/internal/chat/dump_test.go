package chat_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/chat"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
)

func TestDump(t *testing.T) {
	files, _ := public(t)
	for _, file := range files {
		source, _ := os.ReadFile(file)
		tmpl, err := chat.New(string(source), nil, "<BOS>", "<EOS>")
		if err != nil {
			t.Fatal(err)
		}
		d := tmpl.Dialect()
		fmt.Printf("== %s: %s\n", filepath.Base(file), d.Name)
		fmt.Printf("   traits %+v\n", tmpl.Traits())
		if d.Name != "generic" {
			fmt.Printf("   begin %q end %q sep %q lead %q several %v alone %v\n   call %s\n", d.Calls.Begin, d.Calls.End, d.Calls.Separator, d.Calls.Lead, d.Calls.Several, d.Calls.Alone, show(d.Calls.Call))
			if d.Shape == "params" || d.Shape == "python" || d.Shape == "gemma" {
				fmt.Printf("   param %q\n", fmt.Sprint(d.Calls.Param))
			}
		}
		if d.Thinking.Has() {
			fmt.Printf("   think %q\n", fmt.Sprintf("%+v", d.Thinking))
		}
		if len(d.Text.Begins) > 0 {
			fmt.Printf("   text %q\n", d.Text.Begins)
		}
	}
}

func show(all []dialect.Piece) (s string) {
	for _, p := range all {
		switch p.Kind {
		case dialect.Name:
			s += " NAME"
		case dialect.Arguments:
			s += " ARGS"
		case dialect.ID:
			s += " ID(" + p.Text + ")"
		case dialect.Counter:
			s += " COUNTER"
		default:
			s += fmt.Sprintf(" %q", p.Text)
		}
	}
	return s
}
