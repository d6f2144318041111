// Package top shows the stats of a daemon, as a table or as a live screen on a terminal. The output
// depends only on the stats, the keys and the size of the terminal. Fetching the stats is up to the
// caller.
package top

import (
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/inferd-go/inferd/client"
)

// A Model is the live screen.
type Model struct {
	// Ask fetches the stats. If it returns an error, the error is shown, and Ask is called again
	// later.
	Ask func() (*client.Stats, error)
	// Interval is the pause between an answer and the next call of Ask.
	Interval time.Duration

	stats         *client.Stats // stats of the latest answer; nil after an error
	err           error         // error of the latest answer; nil after stats
	width, height int           // of the terminal; 0 if unknown
	order         order
	backwards     bool
	paused        bool
	first         int // index of the first caller shown
}

var _ tea.Model = Model{}

// answered is the message with the result of Ask.
type answered struct {
	stats *client.Stats
	err   error
}

// due is the message that the interval is over.
type due struct{}

// Init calls Ask for the first time.
func (m Model) Init() tea.Cmd { return m.ask }

func (m Model) ask() tea.Msg {
	stats, err := m.Ask()
	return answered{stats, err}
}

// wait begins the pause between an answer and the next call of Ask, so that a slow daemon never
// gets two requests at once.
func (m Model) wait() tea.Cmd {
	return tea.Tick(m.Interval, func(time.Time) tea.Msg { return due{} })
}

// Update handles a key, an answer, or a new size of the terminal.
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

// page is the number of callers by which a page key scrolls.
const page = 10

// scroll moves the first shown caller by a number of callers, within the list.
func (m *Model) scroll(by int) {
	last := 0
	if m.stats != nil {
		last = max(len(m.stats.Callers)-1, 0)
	}
	m.first = min(max(m.first+by, 0), last)
}

// View returns the screen.
func (m Model) View() tea.View {
	v := tea.NewView(m.screen())
	v.AltScreen = true
	v.WindowTitle = "inferd"
	return v
}
