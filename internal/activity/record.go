package activity

import (
	"cmp"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// A Record is a line of the log, with the members that a reader needs.
type Record struct {
	Line []byte `json:"-"` // the whole line, without its newline

	Time      time.Time `json:"t"`
	Level     string    `json:"level"`
	Component string    `json:"component"`
	Event     string    `json:"msg"`

	UID *uint32 `json:"peer_uid"`
	SID string  `json:"peer_sid"`
	PID int     `json:"peer_pid"`
	Exe string  `json:"peer_exe"`
	Key string  `json:"key"` // name of the key

	Entry      string `json:"entry"`
	Model      string `json:"model"`
	Prompt     int64  `json:"prompt_tokens"` // in v1, with completion_tokens; other dialects have Input and Output
	Completion int64  `json:"completion_tokens"`
	Input      int64  `json:"input_tokens"`
	Output     int64  `json:"output_tokens"`
}

// parse decodes a line. It returns nil if the line is not a record.
func parse(line []byte) *Record {
	rec := &Record{Line: line}
	if json.Unmarshal(line, rec) == nil {
		return rec.valid()
	}
	// Records of other components may have members of these names with other types.
	var head struct {
		Time      time.Time `json:"t"`
		Level     string    `json:"level"`
		Component string    `json:"component"`
		Event     string    `json:"msg"`
	}
	if json.Unmarshal(line, &head) != nil {
		return nil
	}
	rec = &Record{Line: line, Time: head.Time, Level: head.Level, Component: head.Component, Event: head.Event}
	return rec.valid()
}

func (r *Record) valid() *Record {
	if r.Time.IsZero() || r.Event == "" {
		return nil
	}
	return r
}

// An outcome is how a request ended: the suffix of the name of its event. It has only the values
// below.
type outcome string

// The values of outcome.
const (
	done    outcome = "request_done"
	gone    outcome = "request_gone"
	refused outcome = "request_refused"
	failed  outcome = "request_error_mid_stream"
)

// outcome returns the outcome of a request, or an empty text if the record is not about a request.
func (r *Record) outcome() outcome {
	for _, o := range []outcome{done, gone, refused, failed} {
		if strings.HasSuffix(r.Event, string(o)) && r.Component == "activity" {
			return o
		}
	}
	return ""
}

// Bad reports whether the record is a warning, an error, or the end of a request whose client hung
// up.
func (r *Record) Bad() bool {
	return r.Level == "warn" || r.Level == "error" || r.outcome() == gone
}

// User returns the client's uid or SID; it is empty if unknown.
func (r *Record) User() string {
	if r.UID != nil {
		return strconv.FormatUint(uint64(*r.UID), 10)
	}
	return r.SID
}

// IsOf reports whether a record is about a client. The client is given by its uid or SID, its pid,
// the name of its key, or its executable (the path or its last element). An empty text stands for
// no client.
func (r *Record) IsOf(client string) bool {
	if client == "" {
		return false
	}
	exe := strings.ReplaceAll(r.Exe, `\`, "/")
	return client == r.User() || client == r.Key || r.PID != 0 && client == strconv.Itoa(r.PID) || client == r.Exe || r.Exe != "" && client == path.Base(exe)
}

// A Usage sums up the requests and tokens of clients, by entry and model.
type Usage struct {
	From, To time.Time // times of the first and the last request

	sums map[account]*Sum
}

type account struct{ user, exe, key, entry, model string }

// A Sum counts the requests and tokens of a client on the model of an entry. Entry and Model may be
// empty for requests that were refused, or that ended in the queue because the client hung up.
type Sum struct {
	User     string `json:"user"` // uid or SID; empty if unknown
	Exe      string `json:"exe"`  // empty if unknown
	Key      string `json:"key,omitzero"`
	Entry    string `json:"entry"` // name of the entry; empty if there is none
	Model    string `json:"model"` // the model's own name; empty if unknown
	Requests int64  `json:"requests"`
	In       int64  `json:"input_tokens"`
	Out      int64  `json:"output_tokens"`
	Errors   int64  `json:"errors"` // requests that were refused or failed
	Gone     int64  `json:"gone"`   // requests whose client hung up
}

// Add counts a record. It ignores records that are not about requests.
func (u *Usage) Add(r *Record) {
	what := r.outcome()
	if what == "" {
		return
	}
	if u.From.IsZero() {
		u.From = r.Time
	}
	u.To = r.Time
	key := account{r.User(), r.Exe, r.Key, r.Entry, r.Model}
	s := u.sums[key]
	if s == nil {
		if u.sums == nil {
			u.sums = make(map[account]*Sum)
		}
		s = &Sum{User: key.user, Exe: key.exe, Key: key.key, Entry: key.entry, Model: key.model}
		u.sums[key] = s
	}
	s.Requests++
	s.In += r.Prompt + r.Input
	s.Out += r.Completion + r.Output
	switch what {
	case done:
	case gone:
		s.Gone++
	case refused, failed:
		s.Errors++
	}
}

// Sums returns all sums, sorted by user, executable, key, entry and model.
func (u *Usage) Sums() []*Sum {
	all := make([]*Sum, 0, len(u.sums))
	for _, s := range u.sums {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *Sum) int {
		return cmp.Or(cmp.Compare(a.User, b.User), cmp.Compare(a.Exe, b.Exe), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Entry, b.Entry), cmp.Compare(a.Model, b.Model))
	})
	return all
}
