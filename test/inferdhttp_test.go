package test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/shortdir"
)

// A gateway is a running inferd-http.
type gateway struct {
	t      *testing.T
	base   string // URL
	cmd    *exec.Cmd
	stderr *output
	exited chan struct{}
	code   int // valid once it has exited
	token  string
}

var gatewayAt = regexp.MustCompile(`msg=listening addr=(\S+)`)

// gateway starts inferd-http for the sockets of the daemon.
func (d *daemon) gateway(args ...string) *gateway { return startGateway(d.t, d.dir, args...) }

// startGateway starts inferd-http for the sockets in dir, and waits until it listens.
func startGateway(t *testing.T, dir string, args ...string) *gateway {
	t.Helper()
	g := runGateway(t, dir, append([]string{"--listen", "127.0.0.1:0"}, args...)...)
	eventually(t, "inferd-http listens", func() bool {
		select {
		case <-g.exited:
			t.Fatalf("inferd-http exited:\n%s", g.stderr)
		default:
		}
		m := gatewayAt.FindStringSubmatch(g.stderr.String())
		if m != nil {
			g.base = "http://" + m[1]
		}
		return m != nil
	})
	return g
}

func runGateway(t *testing.T, dir string, args ...string) *gateway {
	t.Helper()
	g := &gateway{t: t, stderr: &output{}, exited: make(chan struct{})}
	g.cmd = exec.Command(filepath.Join(bin, "inferd-http"), append([]string{
		"--gen-addr-override", filepath.Join(dir, "inferd.sock"), "--embed-addr-override", filepath.Join(dir, "infer.embed.sock"),
		"--admin-addr-override", filepath.Join(dir, "admin.sock"),
	}, args...)...)
	g.cmd.Stderr = g.stderr
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = g.cmd.Wait()
		g.code = g.cmd.ProcessState.ExitCode()
		close(g.exited)
	}()
	t.Cleanup(func() {
		_ = g.cmd.Process.Kill()
		<-g.exited
	})
	return g
}

// do sends a request, and returns the status and the body of the answer.
func (g *gateway) do(method, path, body string, headers ...string) (status int, answer string) {
	g.t.Helper()
	req, err := http.NewRequestWithContext(g.t.Context(), method, g.base+path, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if g.token != "" {
		req.Header.Set("Authorization", "Bearer "+g.token)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
		if name == "Host" {
			req.Host = value
		}
	}
	res, err := (&http.Client{Timeout: patience}).Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	all, err := io.ReadAll(res.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return res.StatusCode, string(all)
}

// chat sends a chat request with one message of the user. more is appended to its members.
func (g *gateway) chat(more string) (status int, answer string) {
	g.t.Helper()
	return g.do(http.MethodPost, "/v1/chat/completions", `{"model":"any","messages":[{"role":"user","content":"hi"}]`+more+`}`)
}

// withMessage returns a chat request with one message, which is given as JSON.
func withMessage(message string) string { return `{"model":"m","messages":[` + message + `]}` }

// events returns the data of the events of a stream.
func events(t *testing.T, stream string) (all []string) {
	t.Helper()
	for event := range strings.SplitSeq(strings.TrimSuffix(stream, "\n\n"), "\n\n") {
		data, ok := strings.CutPrefix(event, "data: ")
		if !ok || strings.Contains(data, "\n") {
			t.Fatalf("the event %q has another form", event)
		}
		all = append(all, data)
	}
	return all
}

// Check 143 of the reference (see spec/README.md): health, models, an answer in one piece, and a
// stream.
func TestGatewayAnswers(t *testing.T) {
	d := mocked(t, `{"backends":[{"kind":"mock","name":"m","tokens":["Hel","lo"],"prompt_tokens":3}]}`)
	g := d.gateway("--model-name", "house")
	if status, body := g.do(http.MethodGet, "/health", ""); status != http.StatusOK || body != `{"status":"ok"}` {
		t.Errorf("health: %d %s", status, body)
	}
	if status, body := g.do(http.MethodGet, "/v1/models", ""); status != http.StatusOK ||
		body != `{"object":"list","data":[{"id":"house","object":"model","owned_by":"inferd"}]}` {
		t.Errorf("models: %d %s", status, body)
	}
	if status, body := g.chat(""); status != http.StatusOK || !strings.HasPrefix(body, `{"id":"chatcmpl-`) ||
		!strings.Contains(body, `"model":"house","choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}`) {
		t.Errorf("one piece: %d %s", status, body)
	}
	status, body := g.chat(`,"stream":true,"stream_options":{"include_usage":false}`)
	all := events(t, body)
	if status != http.StatusOK || len(all) != 4 || all[3] != "[DONE]" {
		t.Fatalf("stream: %d %q", status, all)
	}
	for i, want := range []string{
		`"choices":[{"index":0,"delta":{"role":"assistant","content":"Hel"},"finish_reason":null}]}`,
		`"choices":[{"index":0,"delta":{"content":"lo"},"finish_reason":null}]}`,
		`"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}`,
	} {
		if !strings.HasSuffix(all[i], want) {
			t.Errorf("event %d: %s", i, all[i])
		}
	}
	for path, want := range map[string]int{"/v1/other": http.StatusNotFound, "/v1/models/house": http.StatusNotFound, "/": http.StatusNotFound} {
		if status, body := g.do(http.MethodGet, path, ""); status != want || body != "" {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if status, _ := g.do(http.MethodGet, "/v1/embeddings", ""); status != http.StatusMethodNotAllowed {
		t.Errorf("a wrong method: %d", status)
	}
	if status, body := g.do(http.MethodGet, "/health", "", "Host: evil.example"); status != http.StatusForbidden {
		t.Errorf("another host: %d %s", status, body)
	}
}

const lookTool = `,"tools":[{"type":"function","function":{"name":"look","parameters":{"type":"object"}}}]`

// Check 144 of the reference: tool calls, and messages with tool calls in a later request.
func TestGatewayTools(t *testing.T) {
	d := mocked(t, `{"backends":[{"kind":"mock","name":"m","emit_tool_use":"look","tools":true}]}`)
	g := d.gateway()
	status, body := g.chat(lookTool + `,"tool_choice":"auto"`)
	var answer struct {
		Choices []struct {
			Message      json.RawMessage
			FinishReason string `json:"finish_reason"`
		}
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || status != http.StatusOK || answer.Choices[0].FinishReason != "tool_calls" ||
		!strings.Contains(body, `"content":null,"tool_calls":[{"id":"`) || !strings.Contains(body, `"type":"function","function":{"name":"look","arguments":"{`) {
		t.Fatalf("one piece: %d %s", status, body)
	}
	var message struct {
		ToolCalls []struct{ ID string } `json:"tool_calls"`
	}
	if err := json.Unmarshal(answer.Choices[0].Message, &message); err != nil {
		t.Fatal(err)
	}
	back := fmt.Sprintf(`{"model":"m","messages":[{"role":"user","content":"hi"},%s,{"role":"tool","tool_call_id":%q,"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]}`,
		answer.Choices[0].Message, message.ToolCalls[0].ID)
	if status, body := g.do(http.MethodPost, "/v1/chat/completions", back); status != http.StatusOK {
		t.Errorf("the way back: %d %s", status, body)
	}
	status, body = g.chat(lookTool + `,"stream":true`)
	all := events(t, body)
	if status != http.StatusOK || len(all) != 2 || !strings.Contains(all[0], `"delta":{"tool_calls":[{"index":0,"id":"`) ||
		!strings.Contains(all[0], `"finish_reason":"tool_calls"}],"usage":{`) || strings.Contains(all[0], `"role"`) {
		t.Errorf("stream: %d %q", status, all)
	}
}

// Check 145 of the reference: requests that the bridge itself refuses.
func TestGatewayRefuses(t *testing.T) {
	d := mocked(t, `{"backends":[{"kind":"mock","name":"m","vision":true}]}`)
	g := d.gateway("--token", "sesame")
	for token, want := range map[string]int{"": http.StatusUnauthorized, "wrong": http.StatusUnauthorized, "sesame": http.StatusOK} {
		g.token = token
		if status, body := g.chat(""); status != want || want != http.StatusOK && body != `{"error":{"message":"missing or invalid bearer token","type":"invalid_request_error"}}` {
			t.Errorf("token %q: %d %s", token, status, body)
		}
	}
	g.token = "sesame"
	if status, _ := g.do(http.MethodGet, "/v1/models", "", "Authorization: bearer sesame"); status != http.StatusUnauthorized {
		t.Errorf("another case: %d", status)
	}
	if status, _ := g.do(http.MethodGet, "/health", "", "Authorization: x"); status != http.StatusOK {
		t.Errorf("health: %d", status)
	}
	var pixels bytes.Buffer
	if err := png.Encode(&pixels, image.NewRGBA(image.Rect(0, 0, 2, 2))); err != nil {
		t.Fatal(err)
	}
	one := `{"type":"image_url","image_url":{"url":"data:image/png;base64,` + base64.StdEncoding.EncodeToString(pixels.Bytes()) + `"}}`
	user := func(parts string) string { return withMessage(`{"role":"user","content":[` + parts + `]}`) }
	const hi = `"messages":[{"role":"user","content":"hi"}]`
	for name, test := range map[string]struct {
		body   string
		status int
		text   string
	}{
		"an image":              {user(one), 200, "mock-response"},
		"8 images":              {user(strings.Repeat(one+",", 7) + one), 200, "mock-response"},
		"9 images":              {user(strings.Repeat(one+",", 8) + one), 400, "at most 8 images"},
		"an unknown part":       {user(`{"type":"file"},{"type":"text","text":"x"}`), 200, "mock-response"},
		"an image of http":      {user(`{"type":"image_url","image_url":{"url":"http://127.0.0.1/x.png"}}`), 400, "nothing is fetched"},
		"garbage in base64":     {user(`{"type":"image_url","image_url":{"url":"data:image/png;base64,!!!!"}}`), 400, "not base64"},
		"no image":              {user(`{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}`), 400, "PNG or JPEG"},
		"an image of a tool":    {withMessage(`{"role":"tool","tool_call_id":"1","content":[` + one + `]}`), 400, "user"},
		"a named tool":          {`{"model":"m",` + hi + lookTool + `,"tool_choice":{"type":"function","function":{"name":"look"}}}`, 400, "tool_choice must be one of"},
		"a choice of no tools":  {`{"model":"m",` + hi + `,"tool_choice":"auto"}`, 400, "tool_choice needs tools"},
		"n of 2":                {`{"model":"m",` + hi + `,"n":2}`, 400, "n must be 1"},
		"a bad role":            {withMessage(`{"role":"developer","content":"x"}`), 400, "role must be one of"},
		"bad arguments":         {withMessage(`{"role":"assistant","tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{"}}]}`), 400, "must be JSON"},
		"max_tokens of 0":       {`{"model":"m",` + hi + `,"max_tokens":0}`, 400, `"code":"InvalidRequest"`},
		"no model":              {`{` + hi + `}`, 422, "model is missing"},
		"no messages":           {`{"model":"m"}`, 422, "messages is missing"},
		"empty messages":        {withMessage(`{"role":"user","content":""}`), 400, `"code":"InvalidRequest"`},
		"a wrong type":          {`{"model":7,` + hi + `}`, 422, "model"},
		"no parameters":         {`{"model":"m",` + hi + `,"tools":[{"type":"function","function":{"name":"f"}}]}`, 422, "parameters is missing"},
		"options without usage": {`{"model":"m",` + hi + `,"stream_options":{}}`, 422, "include_usage is missing"},
		"no JSON":               {`{"model":`, 400, "not JSON"},
		"too deep":              {strings.Repeat("[", 1000), 400, "nested deeper"},
		"too large":             {`{"model":"` + strings.Repeat("x", 9<<20), 413, "more than 8388608 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			if status, body := g.do(http.MethodPost, "/v1/chat/completions", test.body); status != test.status || !strings.Contains(body, test.text) {
				t.Errorf("%d %.300s", status, body)
			} else if plain := !strings.HasPrefix(body, "{"); plain != (status == 422 || status == 413 || strings.HasPrefix(body, "the body")) {
				t.Errorf("%d in another form: %.300s", status, body)
			}
		})
	}
	if status, body := g.do(http.MethodPost, "/v1/chat/completions", "x", "Content-Type: text/plain"); status != http.StatusUnsupportedMediaType {
		t.Errorf("no JSON: %d %s", status, body)
	}
}

// Check 146 of the reference: embeddings.
func TestGatewayEmbeds(t *testing.T) {
	d := mocked(t, `{"backends":[{"kind":"mock","name":"m","embed_dimensions":4}]}`)
	g := d.gateway("--model-name", "vec")
	for name, test := range map[string]struct {
		body   string
		status int
		text   string
	}{
		"a text":            {`{"model":"m","input":"a"}`, 200, `"object":"embedding","index":0,"embedding":[`},
		"two texts":         {`{"model":"m","input":["a","b"],"encoding_format":"float"}`, 200, `"index":1,`},
		"dimensions":        {`{"model":"m","input":"a","dimensions":2}`, 200, `"model":"vec","usage":{"prompt_tokens":`},
		"base64":            {`{"model":"m","input":"a","dimensions":1,"encoding_format":"base64"}`, 200, `"embedding":"`},
		"an unknown format": {`{"model":"m","input":"a","encoding_format":"int8"}`, 400, "encoding_format"},
		"tokens":            {`{"model":"m","input":[1,2]}`, 400, "token ids"},
		"lists of tokens":   {`{"model":"m","input":[[1,2]]}`, 400, "token ids"},
		"no input":          {`{"model":"m"}`, 422, "input is missing"},
		"no model":          {`{"input":"a"}`, 422, "model is missing"},
		"an empty input":    {`{"model":"m","input":[]}`, 502, `"type":"api_error"}`},
	} {
		if status, body := g.do(http.MethodPost, "/v1/embeddings", test.body); status != test.status || !strings.Contains(body, test.text) {
			t.Errorf("%s: %d %.300s", name, status, body)
		}
	}
	_, body := g.do(http.MethodPost, "/v1/embeddings", `{"model":"m","input":"a","dimensions":3,"encoding_format":"base64"}`)
	var coded struct{ Data []struct{ Embedding []byte } }
	if err := json.Unmarshal([]byte(body), &coded); err != nil || len(coded.Data) != 1 || len(coded.Data[0].Embedding) != 12 {
		t.Errorf("base64: %v %s", err, body)
	}
}

// Check 147 of the reference: failures of the daemon, as a status, and in a stream.
func TestGatewayFailures(t *testing.T) {
	for name, test := range map[string]struct {
		knob, code string
		status     int
	}{
		"an invalid request": {`"pre_stream_error":"invalid_request"`, `"type":"invalid_request_error","code":"InvalidRequest"`, 400},
		"unavailable":        {`"pre_stream_error":"unavailable"`, `"type":"api_error","code":"BackendUnavailable"`, 503},
		"a fault":            {`"pre_stream_error":"internal"`, `"type":"api_error","code":"Internal"`, 500},
	} {
		d := mocked(t, `{"backends":[{"kind":"mock","name":"m",`+test.knob+`}]}`)
		g := d.gateway()
		if status, body := g.chat(""); status != test.status || !strings.Contains(body, test.code) {
			t.Errorf("%s: %d %s", name, status, body)
		}
		status, body := g.chat(`,"stream":true`)
		all := events(t, body)
		_, code, _ := strings.Cut(test.code, `"code"`)
		if status != http.StatusOK || len(all) != 2 || !strings.Contains(all[0], `"type":"api_error","code"`+code) || all[1] != "[DONE]" {
			t.Errorf("%s, as a stream: %d %q", name, status, all)
		}
	}
}

// Check 147 of the reference: a full queue is reported with the status 429.
func TestGatewayQueueIsFull(t *testing.T) {
	d := mocked(t, `{"admission":{"queue_depth":1},"backends":[{"kind":"mock","name":"m","n_slots":1,"tokens":["a"],"token_delay_ms":100000}]}`)
	g := d.gateway()
	for i := range 2 {
		go func() {
			res, err := http.Post(g.base+"/v1/chat/completions", "application/json", strings.NewReader(withMessage(`{"role":"user","content":"hi"}`)))
			if err == nil {
				_ = res.Body.Close()
			}
		}()
		eventually(t, "the requests are there", func() bool { return d.load() == i+1 })
	}
	if status, body := g.chat(""); status != http.StatusTooManyRequests || !strings.Contains(body, `"type":"rate_limit_error","code":"QueueFull"`) {
		t.Errorf("%d %s", status, body)
	}
}

// load returns the number of requests that run or wait, or -1 if there are no stats.
func (d *daemon) load() int {
	out, _, _ := d.ctl("stats")
	var s struct{ Running, Waiting int }
	if json.Unmarshal([]byte(out), &s) != nil {
		return -1
	}
	return s.Running + s.Waiting
}

// Check 147 of the reference: without a daemon, requests wait for --startup-timeout-secs, and then
// get the status 502. If a daemon starts meanwhile, it answers them.
func TestGatewayWithoutADaemon(t *testing.T) {
	dir := shortdir.New(t)
	g := startGateway(t, dir, "--startup-timeout-secs", "1")
	for _, stream := range []string{"", `,"stream":true`} {
		begin := time.Now()
		status, body := g.chat(stream)
		if status != http.StatusBadGateway || !strings.Contains(body, "daemon unreachable") || !strings.Contains(body, `"type":"api_error"}`) {
			t.Errorf("%d %s", status, body)
		}
		if waited := time.Since(begin); waited < time.Second {
			t.Errorf("the request waited %s", waited)
		}
	}
	if status, body := g.do(http.MethodPost, "/v1/embeddings", `{"model":"m","input":"a"}`); status != http.StatusBadGateway {
		t.Errorf("embeddings: %d %s", status, body)
	}
	if status, _ := g.do(http.MethodGet, "/health", ""); status != http.StatusOK {
		t.Errorf("health: %d", status)
	}
	g = startGateway(t, dir, "--startup-timeout-secs", "60")
	answered := make(chan string, 1)
	go func() {
		status, body := g.chat("")
		answered <- fmt.Sprint(status, body)
	}()
	write(t, filepath.Join(dir, "config.json"), oneMock)
	start(t, dir)
	if got := <-answered; !strings.HasPrefix(got, "200") || !strings.Contains(got, "xyz") {
		t.Errorf("a daemon that comes: %s", got)
	}
}

// Check 148 of the reference: other machines are served only with a token. Wrong flags are
// explained.
func TestGatewayStart(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		code int
		text string
	}{
		"all addresses":       {[]string{"--listen", "0.0.0.0:0"}, 1, "needs --token"},
		"no address":          {[]string{"--listen", "nonsense"}, 1, "--listen"},
		"an unknown flag":     {[]string{"--lissen", "x"}, 2, "--listen"},
		"an argument":         {[]string{"x"}, 2, "unexpected argument"},
		"a negative time-out": {[]string{"--startup-timeout-secs", "-1"}, 2, "startup-timeout-secs"},
	} {
		g := runGateway(t, t.TempDir(), test.args...)
		select {
		case <-g.exited:
		case <-time.After(patience):
			t.Fatalf("%s: inferd-http runs", name)
		}
		if g.code != test.code || !strings.Contains(g.stderr.String(), test.text) {
			t.Errorf("%s: exit %d\n%s", name, g.code, g.stderr)
		}
	}
	t.Setenv("INFERD_HTTP_TOKEN", "sesame")
	g := startGateway(t, t.TempDir(), "--listen", "0.0.0.0:0")
	if err := g.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if <-g.exited; g.code != 0 {
		t.Errorf("after SIGTERM: exit %d\n%s", g.code, g.stderr)
	}
	_ = os.Unsetenv("INFERD_HTTP_TOKEN")
}

// sound returns a WAV file of silence. rate is in samples per second, bits is the size of a sample,
// and frames is the number of samples of each channel.
func sound(rate, bits, channels, frames int) []byte {
	data := make([]byte, frames*channels*bits/8)
	var b bytes.Buffer
	put := func(values ...any) {
		for _, v := range values {
			_ = binary.Write(&b, binary.LittleEndian, v)
		}
	}
	b.WriteString("RIFF")
	put(uint32(36 + len(data)))
	b.WriteString("WAVEfmt ")
	put(uint32(16), uint16(1), uint16(channels), uint32(rate), uint32(rate*channels*bits/8), uint16(channels*bits/8), uint16(bits))
	b.WriteString("data")
	put(uint32(len(data)))
	b.Write(data)
	return b.Bytes()
}

// Check 149 of the reference: audio is converted to the sample rate that the daemon announces. The
// daemon refuses clips that are too long at that rate, so an answer shows that it got the converted
// clip.
func TestGatewayAudio(t *testing.T) {
	clip := func(wav []byte) string {
		return withMessage(`{"role":"user","content":[{"type":"text","text":"hear"},{"type":"input_audio","input_audio":{"format":"wav","data":"` + base64.StdEncoding.EncodeToString(wav) + `"}}]}`)
	}
	for name, test := range map[string]struct {
		backend, body string
		status        int
		text          string
	}{
		"16 bits":       {`"audio":true,"audio_sample_rate":16000`, clip(sound(8000, 16, 1, 800)), 200, "mock-response"},
		"stereo, 24":    {`"audio":true,"audio_sample_rate":16000`, clip(sound(44100, 24, 2, 4410)), 200, "mock-response"},
		"12 bits":       {`"audio":true,"audio_sample_rate":16000`, clip(sound(8000, 12, 1, 800)), 400, "12 bits is not supported"},
		"no WAV":        {`"audio":true,"audio_sample_rate":16000`, clip([]byte("ID3 something else")), 400, "mp3 and other formats are not supported"},
		"no rate":       {`"audio":true`, clip(sound(8000, 16, 1, 800)), 400, "too old"},
		"no such model": {`"audio":false`, clip(sound(8000, 16, 1, 800)), 400, "no model of the daemon accepts audio"},
	} {
		d := mocked(t, `{"backends":[{"kind":"mock","name":"m",`+test.backend+`}]}`)
		g := d.gateway()
		if status, body := g.do(http.MethodPost, "/v1/chat/completions", test.body); status != test.status || !strings.Contains(body, test.text) {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
}

// Check 150 of the reference: a client that hangs up frees its slot, streaming or not.
func TestGatewayHangUp(t *testing.T) {
	d := mocked(t, `{"backends":[{"kind":"mock","name":"m","n_slots":1,"tokens":["a","b"],"token_delay_ms":100000}]}`)
	g := d.gateway()
	for _, stream := range []string{"true", "false"} {
		ctx, hangUp := context.WithCancel(t.Context())
		gone := make(chan error, 1)
		go func() {
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, g.base+"/v1/chat/completions",
				strings.NewReader(`{"model":"m","stream":`+stream+`,"messages":[{"role":"user","content":"hi"}]}`))
			if err != nil {
				gone <- err
				return
			}
			req.Header.Set("Content-Type", "application/json")
			res, err := http.DefaultClient.Do(req)
			if err == nil {
				_, err = io.ReadAll(res.Body)
				_ = res.Body.Close()
			}
			gone <- err
		}()
		eventually(t, "the request runs", func() bool { return d.load() == 1 })
		hangUp()
		if err := <-gone; err == nil {
			t.Error("the request has an answer")
		}
		eventually(t, "the slot is free", func() bool { return d.load() == 0 })
	}
}

// The keys of requests appear neither in the stats nor in the activity log of the daemon.
func TestGatewayKeysStaySecret(t *testing.T) {
	d := mocked(t, oneMock)
	g := d.gateway()
	for _, key := range []string{"alpha-secret", "beta-secret", "alpha-secret"} {
		g.token = key
		if status, body := g.chat(""); status != http.StatusOK {
			t.Fatalf("%d %s", status, body)
		}
	}
	if out, _, _ := d.ctl("stats"); strings.Contains(out, "secret") {
		t.Errorf("stats: %s", out)
	}
	if log, err := os.ReadFile(filepath.Join(d.logDir(), "inferd.ndjson")); err != nil || bytes.Contains(log, []byte("secret")) {
		t.Errorf("the activity log: %v %s", err, log)
	}
}
