package browser

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// mock returns an entry that answers with a text in pieces. more is appended to its members.
func mock(t *testing.T, text, more string) string {
	t.Helper()
	tokens, err := json.Marshal(strings.SplitAfter(text, " "))
	if err != nil {
		t.Fatal(err)
	}
	return `{"kind":"mock","name":"gen","prompt_tokens":12,"tokens":` + string(tokens) + more + `}`
}

// An answer of the real engine arrives in pieces, and the page shows its figures.
func TestStream(t *testing.T) {
	d := start(t, `{"kind":"llamacpp","name":"chain","n_ctx":512,"model":{"builtin":"chain"}}`)
	b := open(t, d.base)
	b.has(".banner, main", "") // the page is there before the model
	b.ask("abc")
	b.has(".answer .prose", "defghi")
	b.idle()
	b.has(".answer footer", "tokens/s")
	b.has(".answer footer", "3 prompt tokens cached")
	b.ask("b")
	b.until("two answers", `document.querySelectorAll(".answer footer").length === 2`)
	if got := value[string](b, `document.querySelectorAll(".answer .prose")[1].innerText`); !strings.HasPrefix(got, "cdef") {
		t.Errorf("the second answer is %q", got)
	}
	if live := value[int](b, `document.querySelectorAll("[aria-live]").length`); live != 1 {
		t.Errorf("%d live regions", live)
	}
	b.has("[role=status]", "The answer is complete.")
}

// The button Stop, or Escape in the field, ends an answer, and the daemon frees the slot. After Stop
// the page shows that the answer was stopped.
func TestStop(t *testing.T) {
	d := start(t, mock(t, strings.Repeat("word ", 2000), `,"token_delay_ms":30`))
	b := open(t, d.base)
	b.ask("hi")
	b.has(".answer .prose", "word word")
	if got := d.running(); got != 1 {
		t.Errorf("%d running", got)
	}
	b.click("Stop")
	eventually(t, "the slot is free", func() bool { return d.running() == 0 })
	b.idle()
	b.has(".answer footer", "stopped")
	b.ask("again")
	b.until("another answer", `document.querySelectorAll(".answer").length === 2`)
	b.press(kb.Escape) // pressed in the field
	eventually(t, "the slot is free again", func() bool { return d.running() == 0 })
}

// The page is there before the models, and shows how they are loaded. The test sends the events, so
// that it can check the page between two of them; the daemon answers all other requests.
func TestLoadProgress(t *testing.T) {
	d := start(t, mock(t, "ready now", ""))
	target, err := url.Parse(d.base)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	frames := make(chan string)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/inferd/events" {
			proxy.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for {
			select {
			case f := <-frames:
				fmt.Fprintf(w, "data: {\"id\":\"admin\",\"type\":\"status\",%s}\n\n", f)
				_ = http.NewResponseController(w).Flush()
			case <-r.Context().Done():
				return
			}
		}
	}))
	t.Cleanup(server.Close)
	b := open(t, server.URL)
	frames <- `"status":"starting"`
	b.has(".banner", "inferd is starting.")
	frames <- `"status":"loading_model","phase":"download","backend":"gen","name":"qwen","downloaded_bytes":250000000,"total_bytes":1000000000`
	b.has(".banner", "Downloading qwen, 25 % of 1.0 GB")
	frames <- `"status":"loading_model","phase":"mmap","backend":"gen","progress":0.45`
	b.has(".banner", "Loading gen, 45 %.")
	if got := value[float64](b, `document.querySelector("progress").value`); got != 0.45 {
		t.Errorf("progress %v", got)
	}
	frames <- `"status":"restarting","phase":"gave_up","backend":"gen","reason":"exit code 1"`
	b.has(".banner.bad", "The engine of gen was given up: exit code 1.")
	frames <- `"status":"ready"`
	b.until("the banner is gone", `!document.querySelector(".banner")`)
	b.has("[role=status]", "inferd is ready.")
	b.ask("hi")
	b.has(".answer .prose", "ready now")
}

// The page shows a banner while a daemon is loading, and can be used when it is ready.
func TestLoading(t *testing.T) {
	d := start(t, mock(t, "at last", `,"ready_after_ms":1500`))
	b := open(t, d.base)
	b.has(".banner", "Looking for the model of gen.")
	b.until("ready", `!document.querySelector(".banner")`)
	b.ask("hi")
	b.has(".answer .prose", "at last")
}

const hostile = "<script>window.hacked = 1</script>\n\n<img src=x onerror=\"window.hacked = 2\">\n\n" +
	"[click](javascript:window.hacked=3) [data](data:text/html,<script>1</script>) [good](https://example.org/a?b=1&c)\n\n" +
	"![picture](https://example.org/spy.png) <a href=\"javascript:window.hacked=4\">raw</a> &lt;b&gt; `<i>`\n\n" +
	"**bold** and _emphasis_\n\n- one\n- [x] two\n\n| a | b |\n|---|--:|\n| 1 | <svg onload=window.hacked=5> |\n\n" +
	"<iframe srcdoc=\"<script>top.hacked = 6</script>\"></iframe>\n\n" +
	"```go\nfunc main() { println(\"</code><script>window.hacked=7</script>\") }\n```\n\nend\n"

// An answer is shown as text only: no script runs, no file is loaded, and the policy has no
// violation to report.
func TestHostileMarkdown(t *testing.T) {
	d := start(t, mock(t, hostile, `,"thinking_tokens":["<script>window.hacked = 8</script>"]`))
	b := open(t, d.base)
	b.thinks()
	b.ask("<img src=x onerror=window.hacked=9> hi")
	b.has(".answer > .prose", "end")
	b.idle()
	b.until("the code has colours", `!!document.querySelector(".code .c-keyword")`)
	if value[bool](b, `"hacked" in window`) {
		t.Errorf("a script ran: %v", value[int](b, "window.hacked"))
	}
	b.has(".question", "<img src=x onerror=window.hacked=9> hi")
	for _, want := range []string{"<script>window.hacked = 1</script>", `<img src=x onerror="window.hacked = 2">`, "[click](javascript:window.hacked=3)", `<a href="javascript:window.hacked=4">`, "<b>", "<svg onload=window.hacked=5>", "<iframe"} {
		if got := value[string](b, `document.querySelector(".answer > .prose").innerText`); !strings.Contains(got, want) {
			t.Errorf("%q is not shown as text in\n%s", want, got)
		}
	}
	for selector, want := range map[string]int{
		"main script": 0, "main iframe": 0, "main img": 0, "main svg": 0, "main [onerror], main [onload]": 0,
		".answer > .prose a": 2, ".answer > .prose strong": 1, ".answer > .prose em": 1, ".answer > .prose li": 2, ".answer > .prose li input:checked": 1,
		".answer > .prose td": 2, ".code": 1, "details.thinking": 1,
	} {
		if got := value[int](b, `document.querySelectorAll(`+quote(selector)+`).length`); got != want {
			t.Errorf("%d of %s, want %d", got, selector, want)
		}
	}
	if hrefs := value[[]string](b, `[...document.querySelectorAll("main a")].map((a) => a.href + " " + a.rel)`); len(hrefs) != 2 ||
		hrefs[0] != "https://example.org/a?b=1&c noopener noreferrer" {
		t.Errorf("links %q", hrefs)
	}
	if value[bool](b, `document.querySelector("details.thinking").open`) {
		t.Error("the thoughts are not folded")
	}
	if loaded := value[[]string](b, `performance.getEntriesByType("resource").map((e) => e.name).filter((n) => !n.startsWith(location.origin))`); len(loaded) > 0 {
		t.Errorf("loaded from elsewhere: %q", loaded)
	}
	// Nesting deeper than the stack allows is shown as plain text.
	deep := open(t, start(t, mock(t, strings.Repeat(">", 20_000)+"deep", "")).base)
	deep.ask("hi")
	deep.has(".answer", "deep")
}

// The policy prevents forbidden actions, even if a script of the page attempts them.
func TestPolicyHolds(t *testing.T) {
	d := start(t, mock(t, "a", ""))
	b := open(t, d.base)
	for name, script := range map[string]string{
		"HTML":    `(() => { try { document.body.innerHTML = "<b>x</b>"; return false } catch { return true } })()`,
		"a frame": `(() => { const f = document.createElement("iframe"); f.src = "https://example.org"; document.body.append(f); return true })()`,
	} {
		if !value[bool](b, script) {
			t.Errorf("%s was allowed", name)
		}
	}
	b.until("both were reported", `window.violations.length >= 2`)
	value[bool](b, `(window.violations = [], true)`)
}

// The text of these elements of the page must be easy to read.
var readable = []string{"body", ".name", ".quiet", ".question p", ".answer .prose", ".answer small", ".main", ".code code", ".code figcaption", ".c-keyword", ".c-string", "#draft", ".prose a"}

// contrast computes the contrast of the text of an element as WCAG 2 defines it.
const contrast = `(selector) => {
  const e = document.querySelector(selector);
  if (!e) return 0;
  const parse = (c) => c.match(/[\d.]+/g).map(Number);
  const light = (c) => { const [r, g, b] = c.slice(0, 3).map((x) => (x /= 255) <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  let ground = e;
  while (ground.parentElement && (parse(getComputedStyle(ground).backgroundColor)[3] ?? 1) === 0) ground = ground.parentElement;
  const [a, b] = [light(parse(getComputedStyle(e).color)), light(parse(getComputedStyle(ground).backgroundColor))].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
}`

// The page is light or dark as the system is. In both, texts have the contrast of WCAG AA. With
// reduced motion, the page has no animation. If PAGE_SHOTS names a folder, the screens are written
// there.
func TestLightAndDark(t *testing.T) {
	d := start(t, mock(t, "Rayleigh scattering: short waves are scattered **more**. See [the article](https://example.org).\n\n"+
		"| colour | wavelength |\n|---|--:|\n| blue | 450 nm |\n| red | 700 nm |\n\n```go\n// ratio of both\nfunc ratio() float64 { return math.Pow(700.0/450, 4) } // \"5.9\"\nvar s = \"blue\"\n```\n\nSo the sky is blue.", `,"thinking_tokens":["Which ","waves?"]`))
	grounds := make(map[string]string)
	for _, scheme := range []string{"light", "dark"} {
		b := open(t, d.base, "prefers-color-scheme="+scheme)
		b.until("there is a model", `!!document.querySelector(".row select")?.value`)
		b.shot("empty-" + scheme)
		b.thinks()
		b.ask("Why is the sky blue?")
		b.has(".answer > .prose", "So the sky is blue.")
		b.until("the code has colours", `!!document.querySelector(".code .c-string")`)
		b.idle()
		b.shot("chat-" + scheme)
		grounds[scheme] = value[string](b, `getComputedStyle(document.body).backgroundColor`)
		for _, selector := range readable {
			if got := value[float64](b, "("+contrast+")("+quote(selector)+")"); got < 4.5 {
				t.Errorf("%s: %s has a contrast of %.2f", scheme, selector, got)
			}
		}
		b.click("Settings")
		b.has("dialog", "Sampling")
		b.shot("settings-" + scheme)
		b.press(kb.Escape)
		b.click("Status")
		b.has("main.status", "Entries")
		b.has("main.status table", "gen")
		b.has("main.status", "Log")
		b.shot("status-" + scheme)
		for _, selector := range []string{".faint", "main.status td", "main.status thead th", ".log", "dt"} {
			if got := value[float64](b, "("+contrast+")("+quote(selector)+")"); got < 4.5 {
				t.Errorf("%s: %s has a contrast of %.2f", scheme, selector, got)
			}
		}
	}
	if grounds["light"] == grounds["dark"] {
		t.Errorf("both are %s", grounds["light"])
	}
	still := open(t, d.base, "prefers-reduced-motion=reduce")
	if got := value[string](still, `(() => { const e = document.createElement("span"); e.className = "pulse"; document.body.append(e); return getComputedStyle(e).animationName })()`); got != "none" {
		t.Errorf("with reduced motion: animation %q", got)
	}
}

// thinks switches thinking on in the settings of the conversation.
func (b *tab) thinks() {
	b.t.Helper()
	b.click("Settings")
	b.has("dialog", "Thinking")
	value[bool](b, `(() => { const s = document.querySelector("#thinking"); s.value = "on"; s.dispatchEvent(new Event("change", { bubbles: true })); return true })()`)
	b.press(kb.Escape)
	b.until("the dialog is closed", `!document.querySelector("dialog")`)
}

// shot writes a picture of the screen.
func (b *tab) shot(name string) {
	b.t.Helper()
	dir := os.Getenv("PAGE_SHOTS")
	if dir == "" {
		return
	}
	image, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), image, 0o600)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}
