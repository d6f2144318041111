// Package top shows how busy a daemon is: as a table, once, or as one on a terminal that
// is always of now. What it shows is a pure function of what it was told and of how wide
// the terminal is; it does not know how the daemon is asked.
package top

import (
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/inferd-go/inferd/client"
)

// A Model is the live table.
type Model struct {
	// Ask asks the daemon. Its error is shown, and it is asked again.
	Ask func() (*client.Stats, error)
	// Interval is how long to wait after an answer before the daemon is asked again.
	Interval time.Duration

	stats         *client.Stats // the last answer; nil if there is none
	err           error         // why there is none
	width, height int           // of the terminal; 0 is not known yet
	order         order
	backwards     bool
	paused        bool
	first         int // caller that is shown first
}

var _ tea.Model = Model{}

// An answered is what became of asking.
type answered struct {
	stats *client.Stats
	err   error
}

// due says that it is time to ask again.
type due struct{}

// Init asks for the first time.
func (m Model) Init() tea.Cmd { return m.ask }

func (m Model) ask() tea.Msg {
	stats, err := m.Ask()
	return answered{stats, err}
}

// wait is the pause between an answer and the next question: a daemon that is slow is not
// asked twice at once.
func (m Model) wait() tea.Cmd {
	return tea.Tick(m.Interval, func(time.Time) tea.Msg { return due{} })
}

// Update takes a key, an answer, or a new size.
func (m Model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case answered:
		if !m.paused {
			m.stats, m.err = msg.stats, msg.err
		}
		m.scroll(0)
		return m, m.wait()
	case due:
		if m.paused {
			return m, m.wait()
		}
		return m, m.ask
	case tea.KeyPressMsg:
		return m.key(msg.String())
	}
	return m, nil
}

func (m Model) key(name string) (tea.Model, tea.Cmd) {
	switch name {
	case "q", "esc", "ctrl+c":
		return m, tea.Quit
	case "ctrl+z":
		return m, tea.Suspend
	case "p", "space":
		m.paused = !m.paused
	case "s":
		m.order, m.first = (m.order+1)%orders, 0
	case "r":
		m.backwards, m.first = !m.backwards, 0
	case "down", "j":
		m.scroll(1)
	case "up", "k":
		m.scroll(-1)
	case "pgdown":
		m.scroll(page)
	case "pgup":
		m.scroll(-page)
	case "home":
		m.first = 0
	}
	return m, nil
}

// page is how many callers a page key scrolls by.
const page = 10

// scroll shows callers further down, as far as there are any.
func (m *Model) scroll(by int) {
	last := 0
	if m.stats != nil {
		last = max(len(m.stats.Callers)-1, 0)
	}
	m.first = min(max(m.first+by, 0), last)
}

// View is the whole terminal.
func (m Model) View() tea.View {
	v := tea.NewView(m.screen())
	v.AltScreen = true
	v.WindowTitle = "inferd"
	return v
}
