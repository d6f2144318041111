package top

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/inferd-go/inferd/client"
	"github.com/inferd-go/inferd/client/stats"
)

// styles are the text styles of the screen. The zero value is plain text.
type styles struct{ title, head, bad, faint lipgloss.Style }

var live = styles{
	title: lipgloss.NewStyle().Bold(true),
	head:  lipgloss.NewStyle().Reverse(true),
	bad:   lipgloss.NewStyle().Bold(true).Foreground(lipgloss.Red),
	faint: lipgloss.NewStyle().Faint(true),
}

// Table formats stats as plain text, with lines of at most width columns; 0 means no limit. The
// callers are in the daemon's order.
func Table(s *client.Stats, width int) string {
	var plain styles
	lines := []string{summary(s)}
	if len(s.Listeners) > 0 {
		lines = append(lines, listeners(s.Listeners))
	}
	lines = append(lines, "")
	lines = append(lines, entries(s).lines(width, plain)...)
	lines = append(lines, reasons(s, plain)...)
	lines = append(lines, "")
	lines = append(lines, callers(s.Callers).lines(width, plain)...)
	return strings.Join(cut(lines, width), "\n") + "\n"
}

// screen formats the live screen, cut to the size of the terminal.
func (m Model) screen() string {
	if m.width == 0 {
		return "" // the size is unknown
	}
	var lines []string
	foot := "q quit  p pause  s sort: " + m.order.String() + "  r reverse"
	switch {
	case m.stats != nil:
		top := append([]string{live.title.Render(summary(m.stats)), ""}, entries(m.stats).lines(m.width, live)...)
		top = append(append(top, reasons(m.stats, live)...), "")
		sorted := m.sorted()
		table := callers(sorted).lines(m.width, live)
		room := max(m.height-len(top)-2, 1) // the rest is the head of the table and the foot
		last := min(m.first+room, len(sorted))
		if len(sorted) > room {
			foot += fmt.Sprintf("  ↑↓ callers %d-%d of %d", m.first+1, last, len(sorted))
		}
		lines = append(append(top, table[0]), table[1+m.first:1+last]...)
	case m.err != nil:
		lines = []string{live.bad.Render(errorTitle(m.err)), "", clean(m.err.Error()), "", fmt.Sprintf("asking again every %s", m.Interval)}
	default:
		lines = []string{"asking…"}
	}
	if m.paused {
		foot = "PAUSED  " + foot
	}
	lines = lines[:min(len(lines), max(m.height-1, 0))]
	for len(lines) < m.height-1 {
		lines = append(lines, "")
	}
	return strings.Join(cut(append(lines, live.faint.Render(foot)), m.width), "\n")
}

// errorTitle returns a short description of err.
func errorTitle(err error) string {
	if dial, ok := errors.AsType[*client.DialError](err); ok && dial.Transient() {
		return "inferd is not running"
	}
	return "inferd does not answer"
}

func cut(lines []string, width int) []string {
	if width > 0 {
		for i, l := range lines {
			lines[i] = ansi.Truncate(l, width, "…")
		}
	}
	return lines
}

// An order is one of the sort orders of callers below.
type order int

const (
	byRate order = iota
	byRunning
	byWaiting
	byKV
	byRequests
	byName
	orders // number of orders
)

func (o order) String() string {
	return [orders]string{"tok/s", "running", "waiting", "kv", "requests", "name"}[o]
}

// compare orders the larger value first. It returns 0 for byName.
func (o order) compare(a, b client.CallerStats) int {
	switch o {
	case byRate:
		return cmp.Compare(b.Rate, a.Rate)
	case byRunning:
		return cmp.Compare(b.Running, a.Running)
	case byWaiting:
		return cmp.Compare(b.Waiting, a.Waiting)
	case byKV:
		return cmp.Compare(b.KVTokens, a.KVTokens)
	case byRequests:
		return cmp.Compare(b.Requests, a.Requests)
	default:
		return 0
	}
}

// sorted returns the callers in the chosen order, and equal ones by user and program.
func (m Model) sorted() []client.CallerStats {
	return slices.SortedStableFunc(slices.Values(m.stats.Callers), func(a, b client.CallerStats) int {
		by := cmp.Or(m.order.compare(a, b), cmp.Compare(a.User, b.User), cmp.Compare(program(a), program(b)))
		if m.backwards {
			return -by
		}
		return by
	})
}

func summary(s *client.Stats) string {
	rate := 0.0
	for _, b := range s.Backends {
		rate += b.Rate
	}
	unread := ""
	if s.Stalled > 0 {
		unread = fmt.Sprintf("%d unread, ", s.Stalled)
	}
	return fmt.Sprintf("inferd %s, up %s: %d running, %d waiting, %d parked, %s%s tok/s, %d connections", clean(s.Version),
		(time.Duration(s.UptimeMS) * time.Millisecond).Round(time.Second), s.Running, s.Waiting, s.Parked, unread, decimal(rate), s.Connections)
}

// listeners returns a line with the addresses of the daemon. TCP addresses are first, because other
// programs need them.
func listeners(all []stats.Listener) string {
	var tcp, others []string
	for _, l := range all {
		text := clean(l.Surface + " " + l.Addr)
		if _, err := netip.ParseAddrPort(l.Addr); err == nil {
			tcp = append(tcp, text)
		} else {
			others = append(others, text)
		}
	}
	return "listening: " + strings.Join(append(tcp, others...), ", ")
}

// reasons returns a line for each fault: lost lines of the log, and entries that were given up.
func reasons(s *client.Stats, l styles) (lines []string) {
	if s.LogLost > 0 {
		lines = append(lines, l.bad.Render(fmt.Sprintf("%d lines of the activity log are lost: inferdctl doctor", s.LogLost)))
	}
	for _, b := range s.Backends {
		if b.Reason != "" {
			lines = append(lines, l.bad.Render(clean(b.Name+": "+b.Reason)))
		}
	}
	return lines
}

func entries(s *client.Stats) *table {
	t := &table{columns: []column{
		{title: "ENTRY", squeeze: true},
		{title: "STATE"},
		{title: "RUN", right: true, rank: 1},
		{title: "WAIT", right: true, rank: 3},
		{title: "PARK", right: true, rank: 6},
		{title: "UNREAD", right: true, rank: 9},
		{title: "TOK/S", right: true, rank: 2},
		{title: "KV", right: true, rank: 4},
		{title: "KEPT", right: true, rank: 9},
		{title: "HIT", right: true, rank: 5},
		{title: "STEP MS", right: true, rank: 7},
		{title: "STALLS", right: true, rank: 8},
		{title: "STEPS", right: true, rank: 13},
		{title: "DROP", right: true, rank: 12},
		{title: "REQS", right: true, rank: 11},
		{title: "IN", right: true, rank: 14},
		{title: "OUT", right: true, rank: 14},
		{title: "RESTARTS", right: true, rank: 10},
		{title: "CTX", right: true, rank: 15},
		{title: "PID", right: true, rank: 16},
		{title: "MODEL", rank: 17, squeeze: true},
	}}
	for _, b := range s.Backends {
		state, bad := stateOf(b)
		kv, kept, hit, step, stalls, steps, drop := none, none, none, none, none, none, none
		if e := b.Engine; e != nil {
			steps = number(e.Steps)
			if e.Steps > 0 {
				step = decimal(e.StepMS)
			}
			if e.KVSize > 0 {
				kv, kept = percent(int64(e.KVUsed), int64(e.KVSize)), percent(int64(e.KVKept), int64(e.KVSize))
				hit = percent(e.CachedTokens, e.CachedTokens+e.PrefillTokens)
				stalls, drop = number(e.Stalls), number(e.Dropped)
			}
		}
		ctx, pid, restarts := none, none, none
		if b.NCtx > 0 {
			ctx = fmt.Sprint(b.NCtx)
		}
		if b.PID > 0 {
			pid = fmt.Sprint(b.PID)
		}
		if b.PID > 0 || b.Restarts > 0 { // the entry has or had an engine
			restarts = fmt.Sprint(b.Restarts)
			if b.WedgedKills > 0 {
				restarts = fmt.Sprintf("%d (%d wedged)", b.Restarts, b.WedgedKills)
			}
		}
		t.rows = append(t.rows, row{bad: bad, cells: []string{
			clean(b.Name), state, fmt.Sprintf("%d/%d", b.Running, b.Slots), fmt.Sprint(b.Waiting), fmt.Sprint(b.Parked), fmt.Sprint(b.Stalled),
			decimal(b.Rate), kv, kept, hit, step, stalls, steps, drop,
			number(b.Requests), number(b.InputTokens), number(b.OutputTokens), restarts, ctx, pid, clean(cmp.Or(b.Model, b.Kind)),
		}})
	}
	return t
}

// stateOf returns the state of an entry. It reports bad if the operator should look at it.
func stateOf(b client.BackendStats) (state string, bad bool) {
	switch {
	case b.State == "gave_up":
		return "gave up", true
	case b.Silent:
		return "silent", true
	case b.Breaker == "open":
		return "resting", true
	case b.Breaker == "half_open":
		return "trying", true
	default:
		return clean(b.State), false
	}
}

func callers(all []client.CallerStats) *table {
	t := &table{columns: []column{
		{title: "USER", squeeze: true},
		{title: "PROGRAM", squeeze: true},
		{title: "RUN", right: true, rank: 1},
		{title: "WAIT", right: true, rank: 3},
		{title: "PARK", right: true, rank: 6},
		{title: "UNREAD", right: true, rank: 9},
		{title: "TOK/S", right: true, rank: 2},
		{title: "KV", right: true, rank: 4},
		{title: "HIT", right: true, rank: 5},
		{title: "REQS", right: true, rank: 7},
		{title: "REFUSED", right: true, rank: 8},
		{title: "IN", right: true, rank: 9},
		{title: "OUT", right: true, rank: 9},
	}}
	for _, c := range all {
		t.rows = append(t.rows, row{cells: []string{
			cmp.Or(clean(c.User), none), program(c), fmt.Sprint(c.Running), fmt.Sprint(c.Waiting), fmt.Sprint(c.Parked), fmt.Sprint(c.Stalled),
			decimal(c.Rate), number(int64(c.KVTokens)), percent(c.CachedTokens, c.InputTokens),
			number(c.Requests), number(c.Refused), number(c.InputTokens), number(c.OutputTokens),
		}})
	}
	return t
}

// program returns the base name of a caller's executable.
func program(c client.CallerStats) string {
	if c.Exe == "" {
		return none
	}
	return clean(path.Base(strings.ReplaceAll(c.Exe, `\`, "/")))
}
