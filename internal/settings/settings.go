// Package settings reads settings that are described by tables. A row describes one setting: its
// flag, its variable, its member of the config file, its bounds and its help. A [Document] is a
// config file in JSON; it reports the first mistake with its line, and finds unknown members. The
// package defines no setting: config defines those of the daemon, and each kind of backend defines
// its own.
package settings

import (
	"flag"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// A Setting is a value that can be set by a flag, by its variable and in the config file. Its row
// is its only description: the flag, the variable, the member of the config file, --help and
// docs/settings.md are derived from it. T is the struct that holds the value.
type Setting[T any] struct {
	Flag string // name without dashes; the variable's name is derived from it. Empty: no flag
	Key  string // member of the config file, with its object if it is in one: http.listen. Empty: no member
	Help string // for --help and docs/settings.md; the word in back quotes names the value

	// At returns a pointer to the value: a *string, *bool, *int, *Word, *Words or *time.Duration.
	At func(*T) any

	Least, Most int           // bounds of a number; Most 0 stands for 2^30
	Unit        time.Duration // unit of the number that a flag or the file gives for a *time.Duration
}

// A Word is a string or a number, as it is written.
type Word string

// Words are the values of a flag that may be given several times, and may be given without a value. In
// the config file they are an array of strings.
type Words []string

// Bare is the value that package flag passes to [Words.Set] for a flag without a value.
const Bare = "true"

// String returns the words, for package flag.
func (w *Words) String() string { return strings.Join(*w, ",") }

// Set appends the words of text, which commas separate. It ignores empty words.
func (w *Words) Set(text string) error {
	for word := range strings.SplitSeq(text, ",") {
		if word = strings.TrimSpace(word); word != "" {
			*w = append(*w, word)
		}
	}
	return nil
}

// IsBoolFlag returns true, for package flag: the flag may be given without a value.
func (*Words) IsBoolFlag() bool { return true }

// JoinValues returns args with each flag that is [Words] joined by an equals sign to the value that
// follows it, if any. Package flag needs this form for a flag with an optional value.
func JoinValues(fs *flag.FlagSet, args []string) (joined []string) {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			return append(joined, args[i:]...)
		}
		name := strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-")
		if f := fs.Lookup(name); strings.HasPrefix(arg, "-") && f != nil && i+1 < len(args) && args[i+1] != "" {
			if _, words := f.Value.(*Words); words && args[i+1][0] != '-' {
				i++
				arg += "=" + args[i]
			} else if b, ok := f.Value.(interface{ IsBoolFlag() bool }); !ok || !b.IsBoolFlag() { // the next argument is its value
				i++
				joined = append(joined, arg)
				arg = args[i]
			}
		}
		joined = append(joined, arg)
	}
	return joined
}

// A Table combines the rows of settings with the struct that holds their values.
type Table interface {
	// Define defines the flags, with the present values as their defaults.
	Define(fs *flag.FlagSet)
	// Check returns an error for the first setting that has a flag and a number out of bounds.
	Check() error
	// Read reads the members of all settings from o into the values.
	Read(o *Object)
	// Rows describes the settings.
	Rows() []Row
	// Members returns the present values in the form of the config file, by key. Values for which
	// the file has no spelling, such as an empty string, are left out.
	Members() map[string]any
}

// A Row describes a setting; Value is the present value as text.
type Row struct{ Flag, Key, Help, Value string }

// Of returns the table of rows with the values in to.
func Of[T any](rows []Setting[T], to *T) Table { return table[T]{rows, to} }

type table[T any] struct {
	rows []Setting[T]
	to   *T
}

// Define defines the flags of all rows.
func (t table[T]) Define(fs *flag.FlagSet) {
	for _, s := range t.rows {
		if s.Flag != "" {
			s.define(fs, t.to)
		}
	}
}

// Check checks the bounds of the flags.
func (t table[T]) Check() error {
	for _, s := range t.rows {
		if s.Flag != "" {
			if err := s.check(t.to); err != nil {
				return err
			}
		}
	}
	return nil
}

// Read reads the members.
func (t table[T]) Read(o *Object) {
	for _, s := range t.rows {
		s.Read(o, t.to)
	}
}

// Rows returns a row for each setting.
func (t table[T]) Rows() (all []Row) {
	for _, s := range t.rows {
		all = append(all, Row{s.Flag, s.Key, s.Help, s.value(t.to)})
	}
	return all
}

// Members returns the values with a key.
func (t table[T]) Members() map[string]any {
	all := make(map[string]any)
	for _, s := range t.rows {
		if s.Key == "" {
			continue
		}
		if value := s.member(t.to); value != nil {
			all[s.Key] = value
		}
	}
	return all
}

// member returns the present value in the form of the config file. It returns nil for a value that
// the file would leave out.
func (s Setting[T]) member(from *T) any {
	switch p := s.At(from).(type) {
	case *string:
		if *p != "" {
			return *p
		}
	case *Word:
		if *p != "" {
			return string(*p)
		}
	case *Words:
		if len(*p) > 0 {
			return []string(*p)
		}
	case *bool:
		return *p
	case *int:
		if *p != 0 || s.Least <= 0 {
			return *p
		}
	case *time.Duration:
		return int(*p / s.Unit)
	}
	return nil
}

// value returns the present value as text. The text is empty for the number 0, because the help
// states its meaning, and for a Word.
func (s Setting[T]) value(from *T) string {
	switch p := s.At(from).(type) {
	case *string:
		return *p
	case *Words:
		return p.String()
	case *bool:
		return strconv.FormatBool(*p)
	case *int:
		if *p != 0 {
			return strconv.Itoa(*p)
		}
	case *time.Duration:
		if *p != 0 {
			return ticks{p, s.Unit}.String()
		}
	}
	return ""
}

// bounds returns the bounds of a number.
func (s Setting[T]) bounds() (least, most int) {
	if s.Most == 0 {
		return s.Least, 1 << 30
	}
	return s.Least, s.Most
}

// define defines the flag, with the present value as its default.
func (s Setting[T]) define(fs *flag.FlagSet, to *T) {
	switch p := s.At(to).(type) {
	case *string:
		fs.StringVar(p, s.Flag, *p, s.Help)
	case *Word:
		fs.StringVar((*string)(p), s.Flag, string(*p), s.Help)
	case *Words:
		fs.Var(p, s.Flag, s.Help)
	case *bool:
		fs.BoolVar(p, s.Flag, *p, s.Help)
	case *int:
		fs.IntVar(p, s.Flag, *p, s.Help)
	case *time.Duration:
		fs.Var(ticks{p, s.Unit}, s.Flag, s.Help)
	}
}

// check returns an error for a number that is out of bounds. Unlike Read, it never refuses 0, which is
// the default of most settings.
func (s Setting[T]) check(from *T) error {
	var n int
	switch p := s.At(from).(type) {
	case *int:
		n = *p
	case *time.Duration:
		n = int(*p / s.Unit)
	}
	least, most := s.bounds()
	switch {
	case n < min(least, 0):
		return fmt.Errorf("--%s %d is out of range: it must be at least %d", s.Flag, n, min(least, 0))
	case n > most:
		return fmt.Errorf("--%s %d is out of range: it must be at most %d", s.Flag, n, most)
	}
	return nil
}

// Read takes the member of the setting from o, if there is one, into the value in to.
func (s Setting[T]) Read(o *Object, to *T) {
	name := s.Key[strings.LastIndexByte(s.Key, '.')+1:]
	switch p := s.At(to).(type) {
	case *string:
		o.Text(name, p)
	case *Word:
		o.word(name, p)
	case *Words:
		if all := o.Texts(name); all != nil {
			*p = all
		}
	case *bool:
		o.boolean(name, p)
	case *int:
		least, most := s.bounds()
		o.Number(name, p, least, most)
	case *time.Duration:
		n := int(*p / s.Unit)
		least, most := s.bounds()
		o.Number(name, &n, least, most)
		*p = time.Duration(n) * s.Unit
	}
}

// ticks makes a duration the value of a flag: a whole number of units.
type ticks struct {
	to   *time.Duration
	unit time.Duration
}

// Set parses a whole number of units.
func (t ticks) Set(text string) error {
	n, err := strconv.Atoi(text)
	switch {
	case err != nil:
		return strconv.ErrSyntax
	case n > int(math.MaxInt64/t.unit) || n < int(math.MinInt64/t.unit):
		return strconv.ErrRange
	}
	*t.to = time.Duration(n) * t.unit
	return nil
}

// String returns the number of units. Package flag also calls it on the zero value of ticks.
func (t ticks) String() string {
	if t.to == nil {
		return "0"
	}
	return strconv.Itoa(int(*t.to / t.unit))
}
