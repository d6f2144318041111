package store

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/status"
)

// A Phase is a step of obtaining a model; see package status.
type Phase = status.Phase

// A Quarantined is the record of content with a wrong digest. It is stored beside the content.
type Quarantined struct {
	Name     string    `json:"name"` // name of the model; empty if unknown
	Expected string    `json:"expected"`
	Actual   string    `json:"actual"`
	Size     int64     `json:"size_bytes"`
	URL      string    `json:"url"`      // the source; empty if the content was damaged in the store
	MovedTo  string    `json:"moved_to"` // path of the content; empty if the content was removed
	At       time.Time `json:"at"`       // time of the latest fetch, or of the discovery of the damage
	Times    int       `json:"times"`    // number of fetches that brought this content
}

// A MismatchError means that the content of an ingest does not have the expected digest.
type MismatchError struct {
	Quarantined
	// Damaged means that the source may not be at fault: another program may have changed the bytes on
	// disk, or a power cut may have damaged bytes that were resumed.
	Damaged bool
}

func (e *MismatchError) Error() string {
	to := "removed"
	if e.MovedTo != "" {
		to = "quarantined to " + e.MovedTo
	}
	return fmt.Sprintf("SHA-256 mismatch (expected %s, got %s); %s", e.Expected, e.Actual, to)
}

const (
	mismatchReason = "sha-mismatch" // part of the names of quarantined files
	maxRecord      = 1 << 16        // bytes
	maxSameSecond  = 1000           // limit for quarantined files of the same second
)

// mismatch quarantines the data, which has the digest got, and ends the ingest. It returns a
// [MismatchError], or the error that prevented it.
func (i *Ingest) mismatch(got string) error {
	i.stop()
	q := Quarantined{Name: i.state.Name, Expected: i.state.SHA256, Actual: got, Size: i.state.Total, URL: i.state.URL}
	damaged := i.resumed || i.firstSum != "" && i.firstSum != got
	if damaged {
		q.URL = ""
	}
	if err := i.closeFile(); err != nil {
		return err
	}
	q, err := i.store.quarantine(i.disk, i.path(tempLeaf), q, nil)
	if err != nil {
		return err
	}
	i.markCommitted() // Close removes the other files
	return &MismatchError{q, damaged}
}

// quarantine moves a file with a wrong digest to the quarantine and writes its record. The file is
// removed instead if the quarantine is on another disk, or if a source already sent the same content:
// then the old record counts it.
func (s *Store) quarantine(d *disk, file string, q Quarantined, phase func(Phase)) (Quarantined, error) {
	q.At, q.Times = time.Now().UTC().Truncate(time.Second), 1
	old, base := d.record(q.Expected, func(r *Quarantined) bool { return r.Actual == q.Actual && q.URL != "" && r.URL != "" })
	gone := false
	err := func() error {
		if old != nil {
			q.MovedTo, q.Times = old.MovedTo, old.Times+1
			if err := d.remove(file); err != nil {
				return err
			}
			return d.writeRecord(base, &q)
		}
		var err error
		if base, err = d.freeBase(q); err != nil {
			return err
		}
		q.MovedTo = d.path(base + ".bin")
		err = d.rename(file, base+".bin")
		if errors.Is(err, syscall.EXDEV) { // a copy of gigabytes is not worth it
			q.MovedTo = ""
			err = d.remove(file)
		}
		if errors.Is(err, fs.ErrNotExist) { // another process has moved it
			q.MovedTo, gone = "", true
			return nil
		}
		if err != nil {
			return err
		}
		return d.writeRecord(base, &q)
	}()
	if err != nil {
		return q, s.unwritable(fmt.Errorf("quarantine %s, whose SHA-256 is %s instead of %s: %w", d.path(file), q.Actual, q.Expected, err))
	}
	if phase != nil && !gone {
		phase(status.Quarantine{Path: d.path(file), Expected: q.Expected, Actual: q.Actual, MovedTo: q.MovedTo})
	}
	return q, nil
}

// freeBase returns an unused path, without extension, for a quarantined file and its record: the
// time in seconds, with a number if there are several in one second.
func (d *disk) freeBase(q Quarantined) (string, error) {
	stem := path.Join(quarantineDir, q.At.Format("20060102T150405Z")+"-"+mismatchReason)
	base := stem
	for n := 2; n < maxSameSecond; n++ {
		_, bin := d.root.Lstat(base + ".bin")
		_, record := d.root.Lstat(base + ".json")
		if errors.Is(bin, fs.ErrNotExist) && errors.Is(record, fs.ErrNotExist) {
			return base, nil
		}
		base = fmt.Sprintf("%s-%d", stem, n)
	}
	return "", errors.New("too many quarantined files within a second")
}

func (d *disk) writeRecord(base string, q *Quarantined) error {
	data, err := json.Marshal(q, jsontext.WithIndent("  "))
	if err != nil {
		return err
	}
	return d.replace(base+".json", append(data, '\n'), sharedFileMode, true)
}

// records returns the records of the quarantine by their paths without extension. Unreadable ones
// are skipped: without a record, content is at worst fetched once more.
func (d *disk) records() (map[string]*Quarantined, error) {
	entries, err := d.readDir(quarantineDir)
	if err != nil {
		return nil, err
	}
	all := make(map[string]*Quarantined)
	for _, e := range entries {
		stem, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || strings.HasPrefix(stem, ".") {
			continue
		}
		data, _, err := d.readFile(path.Join(quarantineDir, e.Name()), maxRecord)
		if err != nil {
			continue
		}
		var q Quarantined
		if json.Unmarshal(data, &q) == nil {
			all[path.Join(quarantineDir, stem)] = &q
		}
	}
	return all, nil
}

// record returns a record of the expected digest that matches, with its path without extension, or
// nil.
func (d *disk) record(expected string, match func(*Quarantined) bool) (*Quarantined, string) {
	all, err := d.records()
	if err != nil {
		return nil, ""
	}
	for base, q := range all {
		if q.Expected == expected && match(q) {
			return q, base
		}
	}
	return nil, ""
}

// Refused returns the record of wrong content that the sources of a digest have sent at least
// twice, so that another fetch is pointless. It returns nil if there is no such record.
func (s *Store) Refused(digest string) (*Quarantined, error) {
	d, err := s.open(false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // no record is no failure
	}
	if err != nil {
		return nil, err
	}
	q, _ := d.record(digest, func(q *Quarantined) bool { return q.Times >= 2 })
	return q, nil
}

// Forgive removes the quarantined content of a digest and its records, so that the next pull
// fetches the model again.
func (s *Store) Forgive(digest string) error {
	d, err := s.open(true)
	if err != nil {
		return err
	}
	all, err := d.records()
	if err != nil {
		return err
	}
	for base, q := range all {
		if q.Expected == digest {
			if err := errors.Join(d.remove(base+".bin"), d.remove(base+".json")); err != nil {
				return s.unwritable(err)
			}
		}
	}
	return nil
}
