package top

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/charmbracelet/x/ansi"
)

// A column of a table. If the terminal is narrow, the columns with the highest rank are hidden
// first; columns of rank 0 are always shown.
type column struct {
	title   string
	right   bool // aligned to the right, for numbers
	rank    int
	squeeze bool // the text may be cut if the terminal is narrow
}

// A row has one cell for each column of the table.
type row struct {
	cells []string
	bad   bool
}

// A table is text in columns.
type table struct {
	columns []column
	rows    []row
}

const (
	gap      = 2 // spaces between two columns
	squeezed = 8 // least width of a column whose text is cut
)

// lines returns the lines of the table: its head and its rows. They are at most width columns wide,
// if possible; 0 means no limit.
func (t *table) lines(width int, l styles) []string {
	shown, widths := t.fit(width)
	titles := make([]string, len(t.columns))
	for i, c := range t.columns {
		titles[i] = c.title
	}
	lines := []string{l.head.Render(t.line(titles, shown, widths))}
	for _, r := range t.rows {
		line := t.line(r.cells, shown, widths)
		if r.bad {
			line = l.bad.Render(line)
		}
		lines = append(lines, line)
	}
	return lines
}

// fit returns the indices of the columns to show, and the widths of all columns, for lines of at
// most width columns, if possible; 0 means no limit.
func (t *table) fit(width int) (shown, widths []int) {
	widths = make([]int, len(t.columns))
	for i, c := range t.columns {
		widths[i] = ansi.StringWidth(c.title)
		for _, r := range t.rows {
			widths[i] = max(widths[i], ansi.StringWidth(r.cells[i]))
		}
		shown = append(shown, i)
	}
	if width <= 0 {
		return shown, widths
	}
	over := func(widthOf func(i int) int) int {
		total := gap * (len(shown) - 1)
		for _, i := range shown {
			total += widthOf(i)
		}
		return total - width
	}
	least := func(i int) int {
		if t.columns[i].squeeze {
			return min(widths[i], squeezed)
		}
		return widths[i]
	}
	for over(least) > 0 {
		worst := slices.MaxFunc(shown, func(a, b int) int { return t.columns[a].rank - t.columns[b].rank })
		if t.columns[worst].rank == 0 {
			break
		}
		shown = slices.DeleteFunc(shown, func(i int) bool { return i == worst })
	}
	for n := over(func(i int) int { return widths[i] }); n > 0; n-- {
		widest := slices.MaxFunc(shown, func(a, b int) int { return widths[a] - least(a) - widths[b] + least(b) })
		if widths[widest] == least(widest) {
			break
		}
		widths[widest]--
	}
	return shown, widths
}

// line formats one line of cells.
func (t *table) line(cells []string, shown, widths []int) string {
	var b strings.Builder
	for n, i := range shown {
		text := ansi.Truncate(cells[i], widths[i], "…")
		pad := strings.Repeat(" ", widths[i]-ansi.StringWidth(text))
		last := n == len(shown)-1
		if n > 0 {
			b.WriteString(strings.Repeat(" ", gap))
		}
		switch {
		case t.columns[i].right:
			b.WriteString(pad + text)
		case last:
			b.WriteString(text)
		default:
			b.WriteString(text + pad)
		}
	}
	return b.String()
}

// none is shown in place of a value that is unknown or does not apply.
const none = "-"

// clean replaces characters that are not printable. Other users choose the names of their programs,
// and must not be able to control the operator's terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// number formats n in about five characters.
func number(n int64) string {
	if n < 10_000 {
		return fmt.Sprint(n)
	}
	x := float64(n)
	for _, unit := range "kMGT" {
		if x /= 1000; x < 999.95 { // a value that rounds to 1000 gets the next unit
			return fmt.Sprintf("%.1f%c", x, unit)
		}
	}
	return fmt.Sprintf("%.0fT", x)
}

func decimal(x float64) string {
	switch {
	case x >= 10_000:
		return number(int64(x))
	case x >= 100:
		return fmt.Sprintf("%.0f", x)
	case x > 0:
		return fmt.Sprintf("%.1f", x)
	default:
		return "0"
	}
}

func percent(part, whole int64) string {
	if whole <= 0 {
		return none
	}
	return fmt.Sprintf("%d%%", 100*part/whole)
}
