package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/shortdir"
)

// inferdctl conform plays the corpus against a running daemon.
func TestConform(t *testing.T) {
	const corpusDir = "../spec/corpus"
	d := mocked(t, `{"backends":[{"kind":"mock","name":"mock"}]}`)
	for _, args := range [][]string{{"conform", corpusDir}, {"conform", "--bytewise", corpusDir}} {
		out, errs, code := d.ctl(args...)
		all := strings.Fields(lastLine(out))
		if code != 0 || errs != "" || len(all) != 6 || all[0] != "all" || all[2] != "0" || len(all[1]) < 3 || all[3] == "0" || all[4] != "0" || all[5] != "0" {
			t.Errorf("%q: exit %d, %s\n%s", args, code, errs, out)
		}
	}
	t.Run("one that fails", func(t *testing.T) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "wrong.txtar"), "About.\n-- infer.sock --\n> {\"id\":\"1\",\"messages\":[]}\n< {\"type\":\"done\"…\n")
		write(t, filepath.Join(dir, "right.txtar"), "Right.\n-- infer.sock --\n> {\"id\":\"1\",\"messages\":[]}\n< {\"type\":\"error\"…\n")
		write(t, filepath.Join(dir, "other.txtar"), "-- config --\n{}\n-- infer.sock --\n")
		out, _, code := d.ctl("conform", "-v", dir)
		if code != 1 || !strings.Contains(out, "FAIL  wrong  wrong:4: \n got {") || !strings.Contains(out, "ok    right  Right.\n") ||
			!strings.Contains(out, "skip  other  needs {}\n") || !strings.HasSuffix(strings.Join(strings.Fields(lastLine(out)), " "), "all 1 1 1 0 0") {
			t.Errorf("exit %d\n%s", code, out)
		}
	})
	t.Run("another config", func(t *testing.T) {
		other := mocked(t, `{"backends": [{"name":"mock", "kind":"mock", "tokens":["a","b","c"]}]}`)
		out, errs, code := other.ctl("--config", filepath.Join(other.dir, "config.json"), "conform", corpusDir)
		if all := strings.Fields(lastLine(out)); code != 0 || len(all) != 6 || all[1] == "0" || all[2] != "0" {
			t.Errorf("exit %d, %s\n%s", code, errs, out)
		}
	})
	t.Run("a socket that is not there", func(t *testing.T) {
		other := mocked(t, `{"backends":[{"kind":"mock","name":"mock"}]}`, "--lp=false", "--embed=false")
		out, errs, code := other.ctl("conform", corpusDir)
		if all := strings.Fields(lastLine(out)); code != 0 || len(all) != 6 || all[2] != "0" || all[4] == "0" {
			t.Errorf("exit %d, %s\n%s", code, errs, out)
		}
	})
	none := filepath.Join(t.TempDir(), "none")
	for name, test := range map[string]struct {
		args []string
		says string
	}{
		"no folder":                 {[]string{"conform"}, "conform needs DIR"},
		"a missing folder":          {[]string{"conform", none}, "no such file"},
		"no transcripts":            {[]string{"conform", t.TempDir()}, "no transcripts"},
		"a missing config":          {[]string{"--config", none, "conform", corpusDir}, "no such file"},
		"a config that is not JSON": {[]string{"--config", "conform_test.go", "conform", corpusDir}, "conform_test.go: "},
	} {
		t.Run(name, func(t *testing.T) {
			if _, errs, code := d.ctl(test.args...); code != 2 || !strings.Contains(errs, test.says) {
				t.Errorf("exit %d, %q, want %q", code, errs, test.says)
			}
		})
	}
	t.Run("no daemon", func(t *testing.T) {
		nobody := &daemon{t: t, dir: shortdir.New(t), stderr: &output{}}
		if _, errs, code := nobody.ctl("conform", corpusDir); code != 2 || !strings.Contains(errs, "no transcript was played") {
			t.Errorf("exit %d, %q", code, errs)
		}
	})
}

func lastLine(text string) string {
	text = strings.TrimSuffix(text, "\n")
	return text[strings.LastIndex(text, "\n")+1:]
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
