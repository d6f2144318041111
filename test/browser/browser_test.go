// Package browser runs the page in a real Chromium against a real daemon. It is a module of its
// own, so that inferd does not depend on the driver of the browser. Without a Chromium its tests
// are skipped.
package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// patience bounds each wait of a test. It is not a measurement.
const patience = 20 * time.Second

// bin is the folder of the programs. browsers is the context in which tabs are made.
var (
	bin      string
	browsers context.Context
)

// chromium returns the path of a browser, or an empty text if there is none.
func chromium() string {
	names := []string{"chromium", "chromium-browser", "google-chrome"}
	if name := os.Getenv("CHROMIUM"); name != "" {
		names = []string{name}
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

func TestMain(m *testing.M) {
	os.Exit(func() int {
		path := chromium()
		if path == "" {
			fmt.Println("skipped: there is no Chromium here")
			return 0
		}
		dir, err := os.MkdirTemp("", "ib")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		bin = dir
		build := exec.Command("go", "build", "-C", "../..", "-o", dir, "./cmd/inferd", "./cmd/inferd-engine")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
			return 1
		}
		for name, value := range map[string]string{"XDG_CACHE_HOME": "cache", "XDG_STATE_HOME": "state"} {
			_ = os.Setenv(name, filepath.Join(dir, value))
		}
		opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.WindowSize(1100, 860))
		if os.Geteuid() == 0 {
			opts = append(opts, chromedp.NoSandbox)
		}
		allocator, stop := chromedp.NewExecAllocator(context.Background(), opts...)
		defer stop()
		ctx, closeBrowser := chromedp.NewContext(allocator)
		defer closeBrowser()
		if err := chromedp.Do(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "start Chromium:", err)
			return 1
		}
		browsers = ctx
		return m.Run()
	}())
}

// A daemon is a running inferd.
type daemon struct {
	t      testing.TB
	cmd    *exec.Cmd
	stderr *output
	dir    string // of its sockets
	base   string // URL of HTTP
}

type output struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

var boundAt = regexp.MustCompile(`surface=http path=(127\.0\.0\.1:\d+)`)

// start starts a daemon with the given entries, and waits until HTTP is bound.
func start(t testing.TB, entries string) *daemon {
	t.Helper()
	return startWith(t, `{"http":{"listen":["127.0.0.1:0"]},"backends":[`+entries+`]}`)
}

func startWith(t testing.TB, config string) *daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "if")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "config.json")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	d := &daemon{t: t, stderr: &output{}, dir: dir}
	d.cmd = exec.Command(filepath.Join(bin, "inferd"), "--uds", filepath.Join(dir, "infer.sock"), "--config", file)
	d.cmd.Stderr = d.stderr
	d.cmd.Env = append(os.Environ(), "INFERD_LOG_DIR="+filepath.Join(dir, "logs"))
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		_ = d.cmd.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		_ = d.cmd.Process.Signal(syscall.SIGKILL)
		<-exited
		_ = os.RemoveAll(dir)
		if t.Failed() {
			t.Logf("inferd said:\n%s", d.stderr)
		}
	})
	eventually(t, "HTTP is bound", func() bool {
		m := boundAt.FindStringSubmatch(d.stderr.String())
		if m == nil {
			return false
		}
		d.base = "http://" + m[1]
		return true
	})
	return d
}

// running returns the number of running requests.
func (d *daemon) running() int {
	res, err := http.Get(d.base + "/inferd/stats")
	if err != nil {
		d.t.Fatal(err)
	}
	defer res.Body.Close()
	var s struct {
		Running int `json:"running"`
	}
	if err := json.NewDecoder(res.Body).Decode(&s); err != nil {
		d.t.Fatal(err)
	}
	return s.Running
}

// eventually polls a condition, for states that no event reports.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not true after %s: %s", patience, what)
		}
	}
}

// A tab is a page in the browser.
type tab struct {
	t   *testing.T
	ctx context.Context
}

// policyScript records violations of the page's policy, and errors of its scripts.
const policyScript = `window.violations = [];
document.addEventListener("securitypolicyviolation", (e) => window.violations.push(e.violatedDirective + " " + e.blockedURI + " " + e.sample));
window.addEventListener("error", (e) => window.violations.push("error " + e.message));
window.addEventListener("unhandledrejection", (e) => window.violations.push("rejection " + e.reason));`

// open opens a page in a new tab. At the end of the test it checks that the page has not violated
// its policy.
func open(t *testing.T, url string, media ...string) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browsers)
	t.Cleanup(cancel)
	ctx, stop := context.WithTimeout(ctx, 3*patience)
	t.Cleanup(stop)
	b := &tab{t, ctx}
	if _, err := chromedp.Call(ctx, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: policyScript}); err != nil {
		t.Fatal(err)
	}
	b.media(media...)
	if err := chromedp.Do(ctx, chromedp.Navigate(url)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if all := value[[]string](b, "window.violations"); len(all) > 0 {
			t.Errorf("violations: %q", all)
		}
	})
	b.until("the page is drawn", `!!document.querySelector(".top")`)
	return b
}

// media sets media features, such as prefers-color-scheme=dark.
func (b *tab) media(features ...string) {
	b.t.Helper()
	var params emulation.SetEmulatedMediaParams
	for _, f := range features {
		name, value, _ := strings.Cut(f, "=")
		params.Features = append(params.Features, &emulation.MediaFeature{Name: name, Value: value})
	}
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, params); err != nil {
		b.t.Fatal(err)
	}
}

// value evaluates an expression in the page.
func value[T any](b *tab, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// until waits until an expression is true.
func (b *tab) until(what, expression string) {
	b.t.Helper()
	for deadline := time.Now().Add(patience); !value[bool](b, expression); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatalf("not true after %s: %s; the page says\n%s", patience, what, b.text("body"))
		}
	}
}

// text returns the visible text of an element, or an empty text if there is no such element.
func (b *tab) text(selector string) string {
	b.t.Helper()
	return value[string](b, `document.querySelector(`+quote(selector)+`)?.innerText ?? ""`)
}

// has waits until the text of an element contains the given text.
func (b *tab) has(selector, text string) {
	b.t.Helper()
	b.until(selector+" has "+text, `(document.querySelector(`+quote(selector)+`)?.innerText ?? "").includes(`+quote(text)+`)`)
}

// do runs the steps.
func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// press presses keys.
func (b *tab) press(keys string, options ...chromedp.KeyOption) {
	b.t.Helper()
	b.do(chromedp.KeyEvent(keys, options...))
}

// enter presses Enter as a keyboard does: the key event has no character.
func (b *tab) enter() {
	b.t.Helper()
	for _, kind := range []input.DispatchKeyEventType{input.DispatchKeyEventTypeRawKeyDown, input.DispatchKeyEventTypeKeyUp} {
		if _, err := chromedp.Call(b.ctx, input.DispatchKeyEvent, input.DispatchKeyEventParams{Type: kind, Key: "Enter", Code: "Enter", WindowsVirtualKeyCode: 13}); err != nil {
			b.t.Fatal(err)
		}
	}
}

// ask waits for a model, types a message and sends it.
func (b *tab) ask(text string) {
	b.t.Helper()
	b.until("there is a model", `!!document.querySelector(".row select")?.value`)
	// For a moment after a dialog was closed, the browser drops keys.
	eventually(b.t, "the text is in the field", func() bool {
		value[bool](b, `document.querySelector("#draft").focus(), document.querySelector("#draft").select(), true`)
		b.press(text)
		return value[string](b, `document.querySelector("#draft").value`) == text
	})
	b.enter()
	b.until("it is sent", `document.querySelector("#draft").value === ""`)
}

// click clicks the first button with the given text.
func (b *tab) click(text string) {
	b.t.Helper()
	b.until("there is a button "+text, `!![...document.querySelectorAll("button")].find((x) => x.innerText === `+quote(text)+` && !x.disabled)`)
	value[bool](b, `[...document.querySelectorAll("button")].find((x) => x.innerText === `+quote(text)+` && !x.disabled).click(), true`)
}

// again clicks a button that requests another answer, and waits until that answer has been drawn:
// for a moment the page still shows the old one.
func (b *tab) again(text string) {
	b.t.Helper()
	value[bool](b, `(() => {
		const fetch = window.fetch;
		const frame = () => new Promise(requestAnimationFrame);
		window.answered = false;
		window.fetch = async (...args) => {
			window.fetch = fetch;
			const answer = await fetch(...args);
			answer.clone().text().then(frame).then(frame).then(() => { window.answered = true; });
			return answer;
		};
		return true;
	})()`)
	b.click(text)
	b.until("another answer has arrived", `window.answered`)
	b.idle()
}

// idle waits until no answer is arriving.
func (b *tab) idle() {
	b.t.Helper()
	b.until("no answer is arriving", `!document.querySelector("#stop") && !!document.querySelector("#send") && !document.querySelector("[aria-busy=true]")`)
}

func quote(s string) string {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(text)
}
