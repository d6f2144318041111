package ollama_test

import (
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/status"
	"github.com/inferd-go/inferd/internal/wire/ollama"
)

// Each phase of a pull has a line. The phases of an engine's start have none.
func TestProgress(t *testing.T) {
	digest := strings.Repeat("0123456789abcdef", 4)
	for name, test := range map[string]struct {
		phase status.Phase
		want  string
	}{
		"the beginning":      {status.CheckingLocal{Path: "/x"}, `{"status":"pulling manifest"}`},
		"a download":         {status.Download{Name: "m", Digest: digest, Done: 5, Total: 10, URL: "https://x"}, `{"status":"pulling 0123456789ab","digest":"sha256:` + digest + `","total":10,"completed":5}`},
		"its first report":   {status.Download{Name: "m", Digest: digest, Total: 10}, `{"status":"pulling 0123456789ab","digest":"sha256:` + digest + `","total":10}`},
		"an unknown content": {status.Download{Name: "m", Done: 5}, `{"status":"pulling m","completed":5}`},
		"no UTF-8":           {status.Download{Name: "m\xff"}, `{"status":"pulling m` + "\ufffd" + `"}`},
		"the check":          {status.Verify{Path: "/x"}, `{"status":"verifying sha256 digest"}`},
		"a wrong content":    {status.Quarantine{Path: "/x", MovedTo: "/y"}, `{"status":"sha256 digest mismatch"}`},
	} {
		if got := string(ollama.Progress(test.phase)); got != test.want+"\n" {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
	if got := ollama.Progress(status.Mmap{}); got != nil {
		t.Errorf("the weights are loaded: %s", got)
	}
}

func TestReadPull(t *testing.T) {
	for body, want := range map[string]string{
		`{"model":"a:b"}`: "a:b true",
		`{"name":"a","stream":false,"insecure":false}`:   "a false",
		`{"model":"a","name":"b","username":"somebody"}`: "a true",
		`{"stream":false}`:              "model is missing",
		`{"model":"a","insecure":true}`: "insecure is not supported",
		`{"model":1}`:                   "model",
	} {
		asked, err := ollama.ReadPull([]byte(body))
		got := asked.Name + map[bool]string{true: " true", false: " false"}[asked.Stream]
		if err != nil {
			got = err.Error()
		}
		if got != want && (err == nil || !strings.Contains(got, want)) {
			t.Errorf("%s: %s, want %s", body, got, want)
		}
	}
}
