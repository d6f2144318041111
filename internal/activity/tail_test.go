package activity_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/activity"
)

func TestTail(t *testing.T) {
	lines := func(from, to int) string {
		var b strings.Builder
		for i := from; i < to; i++ {
			fmt.Fprintf(&b, "%d\n", i)
		}
		return b.String()
	}
	for name, test := range map[string]struct {
		files []string // newest first
		n     int
		want  string
	}{
		"no log":                       {nil, 5, ""},
		"fewer than asked for":         {[]string{"1\n2\n"}, 5, "1 2"},
		"the newest":                   {[]string{lines(0, 100)}, 3, "97 98 99"},
		"an incomplete line":           {[]string{"1\n2\n3"}, 5, "1 2"},
		"just rotated":                 {[]string{"", lines(0, 4)}, 3, "1 2 3"},
		"over two files":               {[]string{"4\n5\n", "1\n2\n3\n"}, 4, "2 3 4 5"},
		"empty lines":                  {[]string{"1\n\n2\n"}, 5, "1 2"},
		"a large file begins anywhere": {[]string{lines(0, 100_000)}, 2, "99998 99999"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for i, text := range test.files {
				if err := os.WriteFile(activity.Files(dir)[i], []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := activity.Tail(dir, test.n)
			if err != nil {
				t.Fatal(err)
			}
			if text := string(bytes.Join(got, []byte(" "))); text != test.want {
				t.Errorf("Tail = %q, want %q", text, test.want)
			}
		})
	}
	t.Run("a folder in its place", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, activity.File, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := activity.Tail(dir, 1); err == nil {
			t.Error("no error")
		}
	})
}
