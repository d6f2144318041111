package browser

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/png"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// focus presses Tab until an element with the given text or label has the focus, and checks that the
// focus is visible.
func (b *tab) focus(name string, options ...chromedp.KeyOption) {
	b.t.Helper()
	const label = `((e) => e.ariaLabel || e.innerText || e.id)(document.activeElement)`
	for range 60 {
		if value[string](b, label) == name {
			if value[string](b, `getComputedStyle(document.activeElement).outlineStyle`) == "none" {
				b.t.Errorf("the focus on %s is not seen", name)
			}
			return
		}
		b.press(kb.Tab, options...)
	}
	b.t.Fatalf("Tab does not reach %s; the page says\n%s", name, b.text("body"))
}

// The page can be used without a mouse, and the focus is visible.
func TestKeyboardOnly(t *testing.T) {
	back := chromedp.KeyModifiers(chromedp.ModifierShift)
	d := start(t, mock(t, "an answer of words ", ""))
	b := open(t, d.base)
	b.until("the field has the focus", `document.activeElement.id === "draft"`)
	b.until("there is a model", `!!document.querySelector(".row select")?.value`)
	b.press("one")
	b.press(kb.Enter, back) // inserts a new line
	b.press("two")
	b.enter()
	b.has(".answer .prose", "an answer of words")
	b.idle()
	if got := value[string](b, `document.querySelector(".question p").textContent`); got != "one\ntwo" {
		t.Errorf("the question is %q", got)
	}
	if value[string](b, `document.querySelector("#draft").value`) != "" || !value[bool](b, `document.activeElement.id === "draft"`) {
		t.Error("the field is not ready for the next message")
	}
	b.focus("Edit", back)
	b.press(kb.Enter)
	b.until("the editor has the focus", `document.activeElement.id === "editor"`)
	b.press(kb.Escape)
	b.until("the editor is gone", `!document.querySelector("#editor") && document.activeElement.id === "draft"`)
	b.focus("Regenerate", back)
	b.press(" ")
	b.idle()
	b.focus("History", back)
	b.press(kb.Enter)
	b.has("dialog", "Conversations")
	b.until("the focus is in the dialog", `document.querySelector("dialog").contains(document.activeElement)`)
	b.press(kb.Escape)
	b.until("the dialog is closed", `!document.querySelector("dialog")`)
	b.focus("Status")
	b.press(kb.Enter)
	b.has("main.status", "Entries")
	b.focus("Chat", back)
	b.press(kb.Enter)
	b.has(".answer .prose", "an answer of words")
	b.focus("Skip to the message", back)
	b.press(kb.Enter)
	b.until("the field has the focus again", `document.activeElement.id === "draft"`)
}

// Every field and button has a name, every image has a text, and IDs are unique. There is one h1 and
// one main.
func TestNames(t *testing.T) {
	d := start(t, mock(t, "text\n\n```go\nvar x int\n```\n", ""))
	b := open(t, d.base)
	b.ask("hi")
	b.idle()
	check := func(where string) {
		t.Helper()
		if got := value[[]string](b, `[...document.querySelectorAll("button, input, select, textarea, img, svg, dialog")]
			.filter((e) => !(e.ariaLabel || e.innerText || e.alt || e.labels?.length || e.getAttribute("aria-labelledby")))
			.map((e) => e.outerHTML.slice(0, 120))`); len(got) > 0 {
			t.Errorf("%s: without a name: %q", where, got)
		}
		if got := value[int](b, `(() => { const ids = [...document.querySelectorAll("[id]")].map((e) => e.id); return ids.length - new Set(ids).size })()`); got > 0 {
			t.Errorf("%s: %d ids twice", where, got)
		}
		if got := value[string](b, `[...document.querySelectorAll("h1")].length + " " + [...document.querySelectorAll("main")].length`); got != "1 1" {
			t.Errorf("%s: h1 and main: %s", where, got)
		}
	}
	check("chat")
	b.click("Settings")
	check("settings")
	b.press(kb.Escape)
	b.click("Status")
	b.has("main.status", "Callers")
	check("status")
}

// A question can be changed, and an answer can be requested again.
func TestEditAndRegenerate(t *testing.T) {
	d := start(t, `{"kind":"llamacpp","name":"chain","n_ctx":512,"model":{"builtin":"chain"}}`)
	b := open(t, d.base)
	b.ask("a")
	b.idle()
	b.ask("m")
	b.idle()
	b.has(".answer:last-of-type .prose", "nop")
	b.until("two questions", `document.querySelectorAll(".question").length === 2`)
	value[bool](b, `(document.querySelector(".question button").click(), true)`)
	b.until("the editor is there", `document.activeElement.id === "editor"`)
	b.press("bc")
	b.enter()
	b.until("the rest is gone", `document.querySelectorAll(".question").length === 1`)
	b.has(".answer .prose", "defg") // the continuation of abc
	b.idle()
	before := b.text(".answer .prose")
	b.again("Regenerate")
	b.until("an answer", `document.querySelectorAll(".answer footer").length === 1`)
	b.idle()
	if got := b.text(".answer .prose"); got != before {
		t.Errorf("the chain says %q, and then %q", before, got)
	}
}

// Conversations and their settings are there again after a reload, and can be removed.
func TestHistory(t *testing.T) {
	d := start(t, mock(t, "kept in this browser", ""))
	b := open(t, d.base)
	b.click("Settings")
	b.has("dialog", "System message")
	value[bool](b, `(document.querySelector("#system").focus(), true)`)
	b.press("Be brief.")
	value[bool](b, `(document.querySelector("#temperature").focus(), true)`)
	b.press("0.5")
	b.press(kb.Escape)
	b.ask("first question")
	b.idle()
	b.click("New")
	b.until("it is empty", `!document.querySelector(".question")`)
	b.ask("second question")
	b.idle()
	b.do(chromedp.Reload())
	b.has(".question", "second question") // the address names the conversation
	b.click("History")
	b.has("dialog", "first question")
	b.click(b.text(".chats li:last-child .open"))
	b.has(".question", "first question")
	b.has(".answer .prose", "kept in this browser")
	b.click("Settings")
	b.has("dialog", "System message")
	if got := value[string](b, `document.querySelector("#system").value + "|" + document.querySelector("#temperature").value`); got != "Be brief.|0.5" {
		t.Errorf("settings %q", got)
	}
	b.press(kb.Escape)
	b.click("History")
	b.has("dialog", "second question")
	b.click("Delete all")
	b.has("dialog", "There is none yet")
	b.press(kb.Escape)
	b.do(chromedp.Reload())
	b.until("it is drawn", `!!document.querySelector(".empty")`)
	b.click("History")
	b.has("dialog", "There is none yet")
}

// Tool calls are shown, and the conversation can continue after them.
func TestToolCalls(t *testing.T) {
	d := start(t, mock(t, "x", `,"emit_tool_use":"look_up","tools":true`))
	b := open(t, d.base)
	b.ask("use it")
	b.has(".call", "look_up")
	b.idle()
	b.ask("and again")
	b.until("two calls", `document.querySelectorAll(".call").length === 2`)
	b.idle()
	if got := b.text(".error"); got != "" {
		t.Errorf("error %q", got)
	}
}

// Errors are shown with the daemon's message, and the request can be tried again.
func TestErrors(t *testing.T) {
	d := start(t, mock(t, "better", `,"fail_first":1`))
	b := open(t, d.base)
	b.ask("hi")
	b.until("an error", `!!document.querySelector(".answer .error")`)
	if got := b.text(".answer .error"); got != "mock" {
		t.Errorf("it says %q", got)
	}
	b.again("Try again")
	b.has(".answer .prose", "better")
	b.idle()
	drop := open(t, start(t, mock(t, "cut off here", `,"mid_stream_drop_after":2,"token_delay_ms":20`)).base)
	drop.ask("hi")
	drop.until("an error", `!!document.querySelector(".answer .error")`)
	drop.has(".answer .prose", "cut off")
	d.cmd.Process.Kill()
	b.has(".banner", "inferd does not answer")
	b.ask("is it there?")
	b.has(".answer:last-of-type .error", "inferd does not answer.")
	value[bool](b, `(window.violations = window.violations.filter((v) => !v.includes("connect")), true)`)
}

// Images are shown before they are sent, and can be removed. Any other file causes a message.
func TestImages(t *testing.T) {
	d := start(t, mock(t, "a picture", `,"vision":true`))
	b := open(t, d.base)
	b.until("there is a model", `!!document.querySelector(".row select")?.value`)
	paste := func(kind, make string) {
		t.Helper()
		value[bool](b, fmt.Sprintf(`(async () => {
			const transfer = new DataTransfer();
			transfer.items.add(new File([%s], "it.%s", { type: "image/%s" }));
			document.querySelector("#draft").dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true }));
			return true;
		})(), true`, make, kind, kind))
	}
	const draw = `await new Promise((r) => { const c = document.createElement("canvas"); c.width = c.height = 4; c.getContext("2d").fillRect(0, 0, 2, 2); c.toBlob(r, "image/%s"); })`
	paste("png", fmt.Sprintf(draw, "png"))
	b.until("one image", `document.querySelectorAll(".images img").length === 1`)
	paste("webp", fmt.Sprintf(draw, "webp")) // converted by the page
	b.until("two images", `document.querySelectorAll(".images img").length === 2`)
	if kinds := value[string](b, `[...document.querySelectorAll(".images img")].map((i) => i.src.slice(0, 14)).join()`); kinds != "data:image/png,data:image/png" {
		t.Errorf("kinds %s", kinds)
	}
	paste("gif", `"no image"`)
	b.has(".note", "it.gif cannot be read as an image")
	b.click("Remove")
	b.until("one is left", `document.querySelectorAll(".images img").length === 1`)
	b.ask("what is it?")
	b.has(".answer .prose", "a picture")
	b.until("it is in the question", `document.querySelectorAll(".question img").length === 1`)
	b.idle()
	if got := b.text(".answer .error"); got != "" {
		t.Errorf("error %q", got)
	}
}

// An image that is dropped on the page is attached to the message, like a pasted one. The browser does
// not open it in place of the page, whatever is dropped.
func TestDrop(t *testing.T) {
	d := start(t, mock(t, "a picture", `,"vision":true`))
	b := open(t, d.base)
	b.until("there is a model", `!!document.querySelector(".row select")?.value`)
	picture := filepath.Join(t.TempDir(), "it.png")
	var file bytes.Buffer
	if err := png.Encode(&file, image.NewRGBA(image.Rect(0, 0, 4, 4))); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(t.TempDir(), "broken.png")
	text := filepath.Join(t.TempDir(), "notes.txt")
	for name, content := range map[string][]byte{picture: file.Bytes(), broken: []byte("no image"), text: []byte("some words")} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	drop := func(files ...string) {
		t.Helper()
		data := &input.DragData{Items: []*input.DragDataItem{}, Files: files, DragOperationsMask: 1}
		for _, kind := range []input.DispatchDragEventType{input.DispatchDragEventTypeDragEnter, input.DispatchDragEventTypeDragOver, input.DispatchDragEventTypeDrop} {
			if _, err := chromedp.Call(b.ctx, input.DispatchDragEvent, input.DispatchDragEventParams{Type: kind, X: 400, Y: 300, Data: data}); err != nil {
				t.Fatal(err)
			}
		}
	}
	drop(picture)
	b.until("one image", `document.querySelectorAll(".images img").length === 1`)
	drop(broken)
	b.has(".note", "broken.png cannot be read as an image")
	b.click("Dismiss")
	drop(text)
	b.has(".note", "notes.txt is not an image")
	b.click("Dismiss")
	drop(text, picture)
	b.until("two images", `document.querySelectorAll(".images img").length === 2`)
	b.has(".note", "notes.txt is not an image")
	b.click("Status")
	b.has("main.status", "Entries")
	drop(picture) // outside the chat it has no effect
	b.click("Chat")
	b.until("the two images are there again", `location.pathname === "/" && document.querySelectorAll(".images img").length === 2`)
	b.ask("what is it?")
	b.has(".answer .prose", "a picture")
	b.until("they are in the question", `document.querySelectorAll(".question img").length === 2`)
	b.idle()
	if got := b.text(".answer .error"); got != "" {
		t.Errorf("error %q", got)
	}
}

// A question that waits shows its place in the queue, in the chat and in the status, until it runs.
func TestPlaceInTheQueue(t *testing.T) {
	d := start(t, mock(t, strings.Repeat("word ", 2000), `,"n_slots":1,"token_delay_ms":20`))
	b := open(t, d.base)
	b.until("there is a model", `!!document.querySelector(".row select")?.value`)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(d.dir, "http.sock"))
	}
	// The requests of the test are those of another program. One runs, and one waits.
	c := &http.Client{Transport: &http.Transport{DialContext: dial}}
	ctx, leave := context.WithCancel(t.Context())
	var others sync.WaitGroup
	defer others.Wait()
	defer leave()
	for range 2 {
		others.Go(func() {
			req, _ := http.NewRequestWithContext(ctx, http.MethodPost, "http://inferd/v1/chat/completions", strings.NewReader(`{"model":"gen","messages":[{"role":"user","content":"hi"}]}`))
			if res, err := c.Do(req); err == nil {
				_ = res.Body.Close()
			}
		})
	}
	eventually(t, "a request runs", func() bool { return d.running() == 1 })
	b.ask("how long?")
	b.has(".waiting", "Place 1 in the queue: 1 running, 2 waiting for a slot")
	b.click("Status")
	const row = `[...document.querySelectorAll("main.status tbody tr")].map((r) => [...r.children].map((e) => e.innerText)).find((r) => r[0] === "http")`
	b.until("the status shows the place", row+`?.slice(3, 5).join() === "1,1"`) // waiting, and place
	b.click("Chat")
	leave()
	b.has(".answer .prose", "word word")
	b.until("no place is left", `!document.querySelector(".waiting")`)
	b.click("Stop")
	b.idle()
}

// If the daemon refuses a request, the page asks for a key and sends it. The key is kept only
// until the tab is closed.
func TestKey(t *testing.T) {
	t.Setenv("TEST_PAGE_KEY", "0123456789abcdef")
	d := startWith(t, `{"http":{"listen":["127.0.0.1:0"],"keys":[{"name":"me","key_env":"TEST_PAGE_KEY"}]},"backends":[`+mock(t, "let in", "")+`]}`)
	b := open(t, d.base)
	value[bool](b, `(sessionStorage.setItem("inferd.key", "a-wrong-key-of-mine"), true)`)
	b.do(chromedp.Reload())
	b.has(".banner", "this key is not among http.keys")
	value[bool](b, `(document.querySelector("#key").focus(), true)`)
	b.press("0123456789abcdef")
	b.enter()
	b.click("Use the key")
	b.ask("hi")
	b.has(".answer .prose", "let in")
	b.idle()
	b.click("Status")
	b.has("main.status", "Your programs")
	b.until("the key is a caller", `[...document.querySelectorAll("main.status tbody th")].some((e) => e.innerText === "me")`)
	if got := value[string](b, `Object.keys(localStorage).join() + "|" + Object.keys(sessionStorage).join()`); strings.Contains(strings.Split(got, "|")[0], "key") || !strings.Contains(got, "inferd.key") {
		t.Errorf("kept: %s", got)
	}
}
