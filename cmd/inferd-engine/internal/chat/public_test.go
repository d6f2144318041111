package chat_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/chat"
)

// public returns the files of the public templates, and the command of a Python with jinja2. It skips the test
// unless make test-templates has set the environment variables for them.
func public(t *testing.T) (files []string, python string) {
	t.Helper()
	folder, python := os.Getenv("INFERD_TEST_TEMPLATES"), os.Getenv("INFERD_TEST_PYTHON")
	if folder == "" || python == "" {
		t.Skip("make test-templates sets INFERD_TEST_TEMPLATES and INFERD_TEST_PYTHON")
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.jinja"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %d templates, %v", folder, len(files), err)
	}
	return files, python
}

// A reference renders templates with Python's jinja2.
type reference struct {
	in  io.Writer
	out *bufio.Reader
}

func startReference(t *testing.T, python string) *reference {
	t.Helper()
	c := exec.CommandContext(t.Context(), python, "../../../../scripts/render.py")
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = c.Wait()
	})
	return &reference{in, bufio.NewReaderSize(out, 1<<20)}
}

// render returns the text that a template writes for a context, which is JSON.
func (r *reference) render(t *testing.T, file string, context []byte) (string, error) {
	t.Helper()
	if _, err := fmt.Fprintf(r.in, "{\"template\":%q,\"context\":%s}\n", file, context); err != nil {
		t.Fatal(err)
	}
	line, err := r.out.ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Text, Error string }
	if err := json.Unmarshal(line, &got); err != nil {
		t.Fatal(err)
	}
	if got.Error != "" {
		return "", fmt.Errorf("%s", got.Error)
	}
	return got.Text, nil
}

// Each public template renders the same texts as with Python's jinja2. A digest for each template shows that these
// are the texts that were reviewed.
func TestPublicTemplates(t *testing.T) {
	files, python := public(t)
	ref := startReference(t, python)
	want := digests(t)
	got := make(map[string]string)
	equal, toolsEqual := 0, 0
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			plain, tools, digest := compare(t, ref, file)
			if plain {
				equal++
			}
			if tools {
				toolsEqual++
			}
			got[name] = digest
			if !*update && digest != want[name] {
				t.Errorf("the digest of its texts is %s, not %s", digest, want[name])
			}
		})
	}
	t.Logf("%d of %d templates are equal without tools, %d with tools", equal, len(files), toolsEqual)
	if equal < len(files) || toolsEqual < len(files) {
		t.Errorf("too few of %d templates are equal: %d without tools, %d with tools", len(files), equal, toolsEqual)
	}
	if *update {
		writeDigests(t, got)
	}
}

// compare renders all conversations with a template, by this package and by the reference. It reports whether the
// texts are equal, for conversations without and with tools, and returns a digest of the equal ones.
func compare(t *testing.T, ref *reference, file string) (plainEqual, toolsEqual bool, digest string) {
	t.Helper()
	tmpl := read(t, file)
	plainEqual, toolsEqual = true, true
	sum := sha256.New()
	all := conversations()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		c := all[name]
		want := expected(t, ref, tmpl, file, c)
		got, err := text(tmpl.Prompt(c))
		if err == nil && got == want {
			fmt.Fprintf(sum, "%s\x00%s\x00", name, undated(want))
			continue
		}
		if len(c.Tools) > 0 {
			toolsEqual = false
		} else {
			plainEqual = false
		}
		n := 0
		for n < min(len(got), len(want)) && got[n] == want[n] {
			n++
		}
		n = max(0, n-40)
		t.Errorf("%s differs: %v\ngot  %.160q\nwant %.160q", name, err, got[min(n, len(got)):], want[min(n, len(want)):])
	}
	return plainEqual, toolsEqual, hex.EncodeToString(sum.Sum(nil))
}

// read compiles a public template.
func read(t *testing.T, file string) *chat.Template {
	t.Helper()
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	tmpl, err := chat.New(string(source), nil, "<BOS>", "<EOS>")
	if err != nil {
		t.Fatal(err)
	}
	return tmpl
}

// expected returns the text of the reference. If the template refuses the tools, the text has them in a system
// message.
func expected(t *testing.T, ref *reference, tmpl *chat.Template, file string, c *chat.Conversation) string {
	t.Helper()
	for _, described := range []bool{false, true} {
		context, tail, err := tmpl.Context(c, described)
		if err != nil {
			t.Fatal(err)
		}
		text, err := ref.render(t, file, context)
		if err == nil {
			return text + tail
		}
		t.Logf("the reference: %.100s", err)
	}
	return ""
}

// undated replaces today's date and weekday, which some templates write.
func undated(text string) string {
	now := time.Now()
	for _, form := range []string{"2006-01-02", "02 Jan 2006", "January 02, 2006", "02 January 2006", "January 2, 2006", "Monday"} {
		text = strings.ReplaceAll(text, now.Format(form), "DATE")
	}
	return text
}

var update = flag.Bool("update", false, "write the digests of the texts of public templates")

const digestsFile = "testdata/templates.sha256"

func digests(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	data, err := os.ReadFile(digestsFile)
	if err != nil && !*update {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if digest, name, ok := strings.Cut(strings.TrimSpace(line), "  "); ok {
			all[name] = digest
		}
	}
	return all
}

func writeDigests(t *testing.T, all map[string]string) {
	t.Helper()
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&b, "%s  %s\n", all[name], name)
	}
	if err := os.WriteFile(digestsFile, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

// The dialect read from each public template has the name in families, and reading it takes at most a quarter of
// the steps that it may take.
func TestPublicDialects(t *testing.T) {
	files, _ := public(t)
	found, most := 0, 0
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".jinja")
		if got, want := read(t, file).Dialect().Name, families[name]; got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		} else {
			found++
		}
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if steps := read(t, file).ProbeSteps(string(source)); steps > chat.MaxProbeSteps/4 {
			t.Errorf("%s: reading its dialect takes %d of %d steps", name, steps, chat.MaxProbeSteps)
		} else {
			most = max(most, steps)
		}
	}
	t.Logf("%d of %d dialects found, in at most %d steps", found, len(files), most)
	if found < 60 {
		t.Errorf("only %d of %d dialects are found", found, len(files))
	}
}

// text joins the segments of a prompt.
func text(segments []chat.Segment, err error) (string, error) {
	var b strings.Builder
	for _, s := range segments {
		b.WriteString(s.Text)
	}
	return b.String(), err
}
