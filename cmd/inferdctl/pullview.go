package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/inferd-go/inferd/internal/status"
)

const (
	barTime    = 200 * time.Millisecond // time between two states of the bar on a terminal
	rateWindow = 10 * time.Second       // time for which the rate is computed
)

// A rate is the speed of a download over the last rateWindow.
type rate struct {
	samples []rateSample // oldest first; the first one may be older than the window
}

type rateSample struct {
	at   time.Time
	done uint64
}

// add records that done bytes have been received, and returns the rate in bytes per second; 0 if it
// is unknown.
func (r *rate) add(at time.Time, done uint64) float64 {
	if n := len(r.samples); n > 0 && done < r.samples[n-1].done {
		r.samples = nil // the download was restarted
	}
	r.samples = append(r.samples, rateSample{at, done})
	for len(r.samples) > 2 && at.Sub(r.samples[1].at) >= rateWindow {
		r.samples = r.samples[1:]
	}
	first := r.samples[0]
	if seconds := at.Sub(first.at).Seconds(); seconds > 0.1 {
		return float64(done-first.done) / seconds
	}
	return 0
}

// timeLeft formats the time that rest bytes will take at perSecond bytes per second. It returns an
// empty text if the rate is below 1.
func timeLeft(rest uint64, perSecond float64) string {
	if perSecond < 1 {
		return ""
	}
	t := time.Duration(min(float64(rest)/perSecond, 1e6) * float64(time.Second))
	switch {
	case t < time.Minute:
		return fmt.Sprintf("%.0f s left", t.Seconds())
	case t < time.Hour:
		return fmt.Sprintf("%d min %02d s left", int(t.Minutes()), int(t.Seconds())%60)
	}
	return fmt.Sprintf("%d h %02d min left", int(t.Hours()), int(t.Minutes())%60)
}

// downloadLine formats the progress of a download. If width is not 0, the line is shorter than width
// columns, and has a bar if there is room for it.
func downloadLine(d status.Download, perSecond float64, width int) string {
	what := d.Name
	if d.Parts > 1 {
		what += fmt.Sprintf(" (part %d of %d)", d.Part, d.Parts)
	}
	parts := []string{size(int64(d.Done))}
	percent, share := "", 0.0
	if d.Total > 0 {
		share = min(float64(d.Done)/float64(d.Total), 1)
		parts[0] += " of " + size(int64(d.Total))
		percent = fmt.Sprintf("%3.0f%% ", 100*share)
	}
	if perSecond >= 1 && d.Done != d.Total {
		parts = append(parts, size(int64(perSecond))+"/s")
		if text := timeLeft(d.Total-d.Done, perSecond); d.Total > d.Done && text != "" {
			parts = append(parts, text)
		}
	}
	text := percent + strings.Join(parts, ", ")
	if width == 0 {
		return what + ": " + strings.TrimSpace(text)
	}
	bar := ""
	if room := width - len(what) - len(text) - 5; room >= 8 && d.Total > 0 {
		cells := min(room, barWidth)
		done := int(share*float64(cells) + 0.5)
		bar = "[" + strings.Repeat("#", done) + strings.Repeat("-", cells-done) + "] "
	}
	line := what + " " + bar + text
	return line[:min(len(line), width-1)] // our names and texts are ASCII
}

// A plainView shows progress as text: on a terminal as one line that changes, otherwise as lines.
type plainView struct {
	out   io.Writer
	width int              // columns of the terminal; 0 if there is none
	now   func() time.Time // nil means time.Now

	mu   sync.Mutex // guards the fields below
	rate rate
	open bool // the next line replaces the last one
}

func (v *plainView) begin(string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.rate = rate{}
}

// line prints a line. The next line replaces it, unless stays is set.
func (v *plainView) line(text string, stays bool) {
	switch {
	case v.width == 0:
		fmt.Fprintln(v.out, text)
	case stays:
		fmt.Fprint(v.out, "\r\x1b[K", text, "\n")
	default:
		fmt.Fprint(v.out, "\r\x1b[K", text)
	}
	v.open = v.width > 0 && !stays
}

func (v *plainView) phase(p status.Phase) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch p := p.(type) {
	case status.Download:
		now := time.Now
		if v.now != nil {
			now = v.now
		}
		v.line(downloadLine(p, v.rate.add(now(), p.Done), v.width), false)
	case status.Verify:
		if v.width > 0 {
			v.line("verifying", false)
		}
	case status.Quarantine:
		v.line(fmt.Sprintf("SHA-256 mismatch (expected %s, got %s); quarantined to %s", p.Expected, p.Actual, p.MovedTo), true)
	default:
	}
}

func (v *plainView) message(text string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.line(text, true)
}

func (v *plainView) failure(error) {}

// end ends the open line, which the next line would otherwise replace.
func (v *plainView) end() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.open {
		fmt.Fprintln(v.out)
		v.open = false
	}
}

// A jsonView prints phases, messages and failures as lines of JSON. Phases have the members that
// they have on the admin socket.
type jsonView struct {
	out func([]byte) error // prints a line

	mu    sync.Mutex // guards the fields below
	asked string
}

func (v *jsonView) begin(name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.asked = name
}

// write prints a line. It ignores an error, because the line of the result will then fail, too.
func (v *jsonView) write(members map[string]any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	members["asked"] = v.asked
	if line, err := json.Marshal(members, json.Deterministic(true)); err == nil {
		_ = v.out(line) // the line of the result will fail as well
	}
}

func (v *jsonView) phase(p status.Phase) {
	switch p := p.(type) {
	case status.CheckingLocal:
		v.write(map[string]any{"phase": "checking_local", "path": p.Path})
	case status.Download:
		m := map[string]any{
			"phase": "download", "name": p.Name, "downloaded_bytes": p.Done, "total_bytes": nil, "source_url": p.URL, "resumed_bytes": p.Resumed,
		}
		if p.Total > 0 {
			m["total_bytes"] = p.Total
		}
		if p.Parts > 0 {
			m["part"], m["parts"] = p.Part, p.Parts
		}
		v.write(m)
	case status.Verify:
		v.write(map[string]any{"phase": "verify", "path": p.Path})
	case status.Quarantine:
		v.write(map[string]any{
			"phase": "quarantine", "path": p.Path, "expected_sha256": p.Expected, "actual_sha256": p.Actual, "quarantine_path": p.MovedTo,
		})
	default:
	}
}

func (v *jsonView) message(text string) {
	v.write(map[string]any{"phase": "message", "message": text})
}

func (v *jsonView) failure(err error) {
	v.write(map[string]any{"phase": "failed", "message": err.Error()})
}

func (v *jsonView) end() {}
