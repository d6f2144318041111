package store

import (
	"fmt"
	"os"
	"path"
	"strings"
	"time"
)

// A NoSpaceError means that the disk has too little free space for an ingest.
type NoSpaceError struct {
	Path       string // the store's folder
	Need, Free int64  // bytes: Need includes a margin; Free excludes space that other running ingests need
}

func (e *NoSpaceError) Error() string {
	return fmt.Sprintf("the model store %s needs %d bytes, but only %d are free: \"inferdctl gc\" and \"inferdctl rm NAME\" make room", e.Path, e.Need, e.Free)
}

// spaceMargin is the number of bytes that must stay free on the disk.
const spaceMargin = 64 << 20 // bytes

// Reserve allocates disk space for the missing bytes of an ingest. It does nothing if the total is
// unknown. If there is too little space, the error is a [NoSpaceError] and nothing has changed. Space
// that other running ingests still need counts as used.
func (i *Ingest) Reserve() error {
	i.mu.Lock()
	total, missing := i.state.Total, i.state.Total-sum(i.state.Ranges)
	i.mu.Unlock()
	if total == 0 || missing <= 0 {
		return nil
	}
	free, known := freeSpace(i.disk.root.Name())
	if known {
		others, _, err := i.disk.ingests(i.dir)
		if err != nil {
			return err
		}
		for _, o := range others {
			if o.Running {
				free -= max(o.Total-o.allocated, 0)
			}
		}
		info, err := i.file.Stat()
		if err != nil {
			return err
		}
		if need := total - min(allocated(info), total) + spaceMargin; free < need {
			return &NoSpaceError{i.disk.root.Name(), need, max(free, 0)}
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	err := i.disk.do(Op{Kind: OpReserve, Path: i.path(tempLeaf), Size: total}, func() error { return reserve(i.file, total) })
	if err != nil {
		return fmt.Errorf("reserve disk space for %s: %w", i.disk.path(i.path(tempLeaf)), err)
	}
	return i.noteFile()
}

// An Unfinished describes an ingest that is not committed.
type Unfinished struct {
	Digest  string // expected digest; empty if unknown
	Name    string // name of the model; empty if unknown
	URL     string
	Done    int64     // bytes
	Total   int64     // bytes; 0 means unknown
	PID     int       // process ID of the writer; 0 if there is none, or if it is unknown
	Running bool      // a process is writing
	Touched time.Time // time of the last write to the data

	dir       string
	allocated int64 // bytes on disk
}

// Unfinished returns the ingests of all processes that are not committed. It skips folders that
// cannot be read.
func (s *Store) Unfinished() ([]Unfinished, error) {
	d, err := s.open(false)
	if err != nil {
		return nil, err
	}
	all, _, err := d.ingests("")
	return all, err
}

// ingests returns all ingests, without the one in the folder except, which may be empty. Folders that
// cannot be read become problems.
func (d *disk) ingests(except string) (all []Unfinished, problems []Problem, err error) {
	prefixes, err := d.readDir(blobsDir)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range prefixes {
		if !p.IsDir() {
			continue
		}
		shard := path.Join(blobsDir, p.Name())
		dirs, err := d.readDir(shard)
		if err != nil {
			problems = append(problems, Problem{d.path(shard), err.Error()})
			continue
		}
		for _, dir := range dirs {
			name := path.Join(shard, dir.Name())
			if ref, ok := strings.CutPrefix(dir.Name(), partialPrefix); ok && dir.IsDir() && name != except {
				all = append(all, d.unfinished(name, ref))
			}
		}
	}
	return all, problems, nil
}

// unfinished reads the state of an ingest. Ingests of the reference implementation have no state:
// then only the size of the data is known.
func (d *disk) unfinished(dir, ref string) Unfinished {
	u := Unfinished{dir: dir}
	info, err := d.root.Lstat(path.Join(dir, tempLeaf))
	if err == nil {
		u.Touched, u.allocated = info.ModTime(), allocated(info)
	} else if info, err := d.root.Lstat(dir); err == nil {
		u.Touched = info.ModTime()
	}
	s, stateErr := d.readState(path.Join(dir, stateLeaf))
	if stateErr != nil {
		s, stateErr = d.readState(path.Join(dir, durableLeaf))
	}
	if stateErr != nil {
		u.Digest = ref // the reference names its ingests by digest
		if err == nil {
			u.Done = info.Size()
		}
		return u
	}
	u.Digest, u.Name, u.URL, u.Total = s.SHA256, s.Name, s.URL, s.Total
	u.Done = sum(clip(s.Ranges, sizeOf(info, err)))
	if d.isHeld(ref) {
		u.Running, u.PID = true, s.PID
	}
	return u
}

func sizeOf(info os.FileInfo, err error) int64 {
	if err != nil {
		return 0
	}
	return info.Size()
}
