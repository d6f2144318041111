package main

import (
	"errors"
	"os"

	"github.com/inferd-go/inferd/internal/store"
)

// models checks the model store, if there is one. It reads no blobs.
func (d *diagnosis) models(c *command) {
	const label = "models"
	s, err := c.storeOrDefault()
	if err != nil {
		return // the check of the config has reported this error
	}
	defer s.Close()
	if _, err := os.Stat(s.Home); errors.Is(err, os.ErrNotExist) {
		return // there is no store
	}
	l, err := s.List()
	if err != nil {
		d.fail(label, "%v", err)
		return
	}
	good := 0
	for _, e := range l.Models {
		switch e.State {
		case store.Missing, store.Damaged:
			d.fail(label, "%s is %s: %s", e.Name, e.State, e.Why)
		case store.OK, store.Unverified:
			good++
		}
	}
	for _, p := range l.Problems {
		d.fail(label, "%s: %s", p.Path, p.What)
	}
	d.ok(label, "%s, %d models, %d unfinished", s.Home, good, len(l.Unfinished))
}
