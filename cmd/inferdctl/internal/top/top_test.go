package top

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/inferd-go/inferd/client"
	"github.com/inferd-go/inferd/client/stats"
)

var update = flag.Bool("update", false, "write testdata/*.golden anew")

// golden compares got with the content of a golden file. With -update it writes the file first.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; -update writes it anew):\n%s", path, diff)
	}
}

// busy returns the stats of a daemon with many callers and faults.
func busy() *client.Stats {
	return &client.Stats{Daemon: stats.Daemon{
		UptimeMS: 93_784_000, Version: "1.2.3", Running: 4, Waiting: 61, Parked: 1, Stalled: 2, Connections: 71,
		Backends: []client.BackendStats{
			{
				Name: "gen", Kind: "llamacpp", State: "ready", Breaker: "closed", Slots: 4, Model: "Qwen3 4B Instruct", NCtx: 16384, PID: 4711,
				Counts: client.Counts{Running: 4, Waiting: 61, Parked: 1, Stalled: 2, Requests: 12_345, InputTokens: 4_200_000, OutputTokens: 987_654, Rate: 83.25},
				Engine: &client.EngineStats{
					KVSize: 16384, KVUsed: 6217, KVKept: 2048, Sequences: 5, Parked: 1, Steps: 1_234_567, StepMS: 12.345, Stalls: 3,
					PrefillTokens: 2_500_000, CachedTokens: 1_700_000, DecodeTokens: 987_654, Dropped: 2,
				},
			},
			{Name: "vectors", Kind: "llamacpp", State: "ready", Slots: 4, Model: "nomic-embed", NCtx: 2048, PID: 4712, Silent: true, Restarts: 7, WedgedKills: 2},
			{
				Name: "rank", Kind: "llamacpp", State: "gave_up", Slots: 4, Model: "bge\x1b[2J", NCtx: 2048, Restarts: 3,
				Reason: "exit code 1: ggml.c:123: GGML_ASSERT(a > b) failed, and more than any terminal is wide, which has to be cut somewhere",
			},
			{Name: "fake", Kind: "mock", State: "ready", Breaker: "open", Slots: 4},
			{Name: "new", Kind: "llamacpp", State: "loading", Slots: 1, PID: 4713},
		},
		Callers: []client.CallerStats{
			{User: "ada", Program: "8:1", Exe: "/usr/bin/editor", Counts: client.Counts{Running: 1, Requests: 12, InputTokens: 4000, CachedTokens: 3900, OutputTokens: 600, Rate: 20.5}, KVTokens: 4100},
			{User: "ada", Program: "8:2", Exe: `C:\Program Files\a program whose name is longer than it ought to be.exe`, Counts: client.Counts{Waiting: 1}, KVTokens: 4100},
			{User: "grace", Program: "8:3", Exe: "/home/grace/\x1b]0;owned\x07\u202eflood", Counts: client.Counts{Running: 3, Waiting: 60, Stalled: 2, Requests: 12_000, Rate: 62.75}, Refused: 1_000_000, KVTokens: 1100},
			{Exe: "/opt/日本語のプログラム"},
		},
	}}
}

// shown returns a model that has received the size of the terminal and an answer.
func shown(width, height int, s *client.Stats) Model {
	m := Model{Interval: time.Second}
	m = updated(m, tea.WindowSizeMsg{Width: width, Height: height})
	return updated(m, answered{stats: s})
}

func updated(m Model, msgs ...tea.Msg) Model {
	for _, msg := range msgs {
		next, _ := m.Update(msg)
		m = next.(Model)
	}
	return m
}

// press returns the message for a key.
func press(name string) tea.Msg {
	codes := map[string]tea.Key{
		"ctrl+c": {Code: 'c', Mod: tea.ModCtrl}, "ctrl+z": {Code: 'z', Mod: tea.ModCtrl}, "esc": {Code: tea.KeyEscape}, "space": {Code: ' ', Text: " "},
		"up": {Code: tea.KeyUp}, "down": {Code: tea.KeyDown}, "pgup": {Code: tea.KeyPgUp}, "pgdown": {Code: tea.KeyPgDown}, "home": {Code: tea.KeyHome},
	}
	if k, ok := codes[name]; ok {
		return tea.KeyPressMsg(k)
	}
	return tea.KeyPressMsg{Code: rune(name[0]), Text: name}
}

func TestScreens(t *testing.T) {
	for _, width := range []int{40, 60, 80, 120, 200} {
		golden(t, fmt.Sprint(width), ansi.Strip(shown(width, 20, busy()).View().Content)+"\n")
	}
	golden(t, "colours", shown(80, 20, busy()).View().Content+"\n")
	golden(t, "table", Table(busy(), 0))
}

// The screen never exceeds the size of the terminal.
func TestScreenFits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &client.Stats{}
		for range rapid.IntRange(0, 12).Draw(t, "entries") {
			s.Backends = append(s.Backends, client.BackendStats{
				Name: rapid.String().Draw(t, "name"), Model: rapid.String().Draw(t, "model"), Reason: rapid.String().Draw(t, "reason"),
				Counts: client.Counts{Requests: rapid.Int64().Draw(t, "requests"), Rate: rapid.Float64().Draw(t, "rate")},
				Engine: &client.EngineStats{KVSize: rapid.Int().Draw(t, "size"), KVUsed: rapid.Int().Draw(t, "used"), StepMS: rapid.Float64().Draw(t, "step")},
			})
		}
		for range rapid.IntRange(0, 30).Draw(t, "callers") {
			s.Callers = append(s.Callers, client.CallerStats{User: rapid.String().Draw(t, "user"), Exe: rapid.String().Draw(t, "exe")})
		}
		width, height := rapid.IntRange(1, 220).Draw(t, "width"), rapid.IntRange(1, 50).Draw(t, "height")
		m := shown(width, height, s)
		for range rapid.IntRange(0, 40).Draw(t, "down") {
			m = updated(m, press("down"))
		}
		lines := strings.Split(m.View().Content, "\n")
		if len(lines) != height {
			t.Fatalf("%d lines on a terminal of %d", len(lines), height)
		}
		for _, l := range lines {
			if got := ansi.StringWidth(l); got > width {
				t.Fatalf("%d columns on a terminal of %d: %q", got, width, l)
			}
		}
	})
}

// The name of a program cannot send control sequences to the operator's terminal.
func TestNamesCannotEscape(t *testing.T) {
	for name, got := range map[string]string{"live": ansi.Strip(shown(200, 20, busy()).View().Content), "once": Table(busy(), 0)} {
		if strings.ContainsAny(got, "\x1b\x07\u202e\r\t") {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// callersOf returns the names of the programs on the screen, in order.
func callersOf(m Model) (names []string) {
	_, table, _ := strings.Cut(ansi.Strip(m.View().Content), "USER")
	lines := strings.Split(table, "\n")
	for _, l := range lines[1 : len(lines)-1] {
		if f := strings.Fields(l); len(f) > 1 {
			names = append(names, f[1])
		}
	}
	return names
}

func three() *client.Stats {
	caller := func(name string, rate float64, running, waiting, kv int, requests int64) client.CallerStats {
		return client.CallerStats{User: "u", Exe: name, KVTokens: kv, Counts: client.Counts{Rate: rate, Running: running, Waiting: waiting, Requests: requests}}
	}
	return &client.Stats{Daemon: stats.Daemon{Callers: []client.CallerStats{caller("a", 1, 3, 0, 2, 7), caller("b", 3, 2, 0, 1, 7), caller("c", 2, 1, 5, 3, 8)}}}
}

func TestSorting(t *testing.T) {
	m := shown(120, 30, three())
	for _, want := range []string{
		"sort: tok/s b c a", "sort: running a b c", "sort: waiting c a b", "sort: kv c a b", "sort: requests c a b", "sort: name a b c", "sort: tok/s b c a",
	} {
		_, foot, _ := strings.Cut(ansi.Strip(m.View().Content), "sort: ")
		if got := fmt.Sprintf("sort: %s %s", strings.Fields(foot)[0], strings.Join(callersOf(m), " ")); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		m = updated(m, press("s"))
	}
	m = updated(m, press("r"))
	if got := strings.Join(callersOf(m), " "); got != "c b a" { // in the order of running requests
		t.Errorf("backwards: %s", got)
	}
}

// While the screen is paused, its content stays the same, but the timer continues.
func TestPause(t *testing.T) {
	for _, key := range []string{"p", "space"} {
		m := updated(shown(120, 30, three()), press(key))
		before := callersOf(m)
		if !strings.Contains(m.View().Content, "PAUSED") {
			t.Error("the screen does not show the pause")
		}
		m = updated(m, answered{stats: &client.Stats{}}) // the answer to a request before the pause
		if diff := cmp.Diff(before, callersOf(m)); diff != "" {
			t.Errorf("%s: -before +after\n%s", key, diff)
		}
		if _, cmd := m.Update(due{}); cmd == nil {
			t.Fatal("the timer has stopped")
		}
		m = updated(m, press(key), answered{stats: &client.Stats{}})
		if got := callersOf(m); len(got) > 0 {
			t.Errorf("%s: after the pause: %q", key, got)
		}
	}
}

func TestScrolling(t *testing.T) {
	s := &client.Stats{}
	for i := range 30 {
		s.Callers = append(s.Callers, client.CallerStats{User: "u", Exe: fmt.Sprintf("p%02d", i)})
	}
	m := shown(100, 12, s)
	for _, step := range []struct{ key, want string }{
		{"", "p00"}, {"down", "p01"}, {"j", "p02"}, {"k", "p01"}, {"pgdown", "p11"}, {"pgdown", "p21"}, {"pgdown", "p29"}, {"up", "p28"}, {"pgup", "p18"}, {"home", "p00"}, {"up", "p00"},
	} {
		if step.key != "" {
			m = updated(m, press(step.key))
		}
		if got := callersOf(m); len(got) == 0 || got[0] != step.want {
			t.Errorf("after %q: %q, want %s first", step.key, got, step.want)
		}
	}
	if got := ansi.Strip(m.View().Content); !strings.Contains(got, "callers 1-6 of 30") {
		t.Errorf("the screen does not show that there are more:\n%s", got)
	}
	m = updated(m, press("pgdown"), answered{stats: three()}) // most callers have disappeared meanwhile
	if got := callersOf(m); len(got) == 0 {
		t.Error("no caller is shown")
	}
}

func TestQuitAndSuspend(t *testing.T) {
	for key, want := range map[string]tea.Msg{"q": tea.QuitMsg{}, "esc": tea.QuitMsg{}, "ctrl+c": tea.QuitMsg{}, "ctrl+z": tea.SuspendMsg{}} {
		_, cmd := shown(80, 20, busy()).Update(press(key))
		if cmd == nil {
			t.Errorf("%s: nothing happens", key)
		} else if got := cmd(); got != want {
			t.Errorf("%s: %T, want %T", key, got, want)
		}
	}
	if _, cmd := shown(80, 20, busy()).Update(press("x")); cmd != nil {
		t.Error("an unknown key has an effect")
	}
}

// While the daemon does not answer, the screen shows the error in place of the old figures, and the
// requests continue.
func TestDaemonRestarts(t *testing.T) {
	m := shown(100, 12, busy())
	for _, test := range []struct {
		err   error
		wants []string
	}{
		{&client.DialError{Path: "/run/control.sock", Err: syscall.ENOENT}, []string{"inferd is not running", "no daemon at /run/control.sock", "asking again every 1s"}},
		{errors.New("it says nothing for 5s"), []string{"inferd does not answer", "it says nothing for 5s"}},
	} {
		next, cmd := m.Update(answered{err: test.err})
		if cmd == nil {
			t.Fatal("no further request")
		}
		m = next.(Model)
		got := ansi.Strip(m.View().Content)
		for _, want := range test.wants {
			if !strings.Contains(got, want) {
				t.Errorf("the screen lacks %q:\n%s", want, got)
			}
		}
		if strings.Contains(got, "ENTRY") {
			t.Errorf("old figures:\n%s", got)
		}
	}
	if got := updated(m, answered{stats: busy()}).View().Content; !strings.Contains(got, "ENTRY") {
		t.Errorf("the figures are missing:\n%s", got)
	}
}

// The model calls Ask, waits for the answer and then for the interval, and calls Ask again.
func TestAsking(t *testing.T) {
	asked := 0
	m := Model{Interval: time.Millisecond, Ask: func() (*client.Stats, error) {
		asked++
		return busy(), nil
	}}
	msg := m.Init()()
	for range 3 {
		next, cmd := m.Update(msg)
		m = next.(Model)
		if msg = cmd(); msg != (due{}) {
			t.Fatalf("after the answer comes a %T", msg)
		}
		_, cmd = m.Update(msg)
		msg = cmd()
	}
	if asked != 4 {
		t.Errorf("asked %d times, want 4", asked)
	}
}

func TestNumbers(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 9999: "9999", 10_000: "10.0k", 999_949: "999.9k", 999_999: "1.0M", 5e9: "5.0G", 5e18: "5000000T"} {
		if got := number(n); got != want {
			t.Errorf("number(%d) = %s, want %s", n, got, want)
		}
	}
	for x, want := range map[float64]string{0: "0", -1: "0", 0.04: "0.0", 12.34: "12.3", 123.4: "123", 12_345: "12.3k"} {
		if got := decimal(x); got != want {
			t.Errorf("decimal(%v) = %s, want %s", x, got, want)
		}
	}
}
