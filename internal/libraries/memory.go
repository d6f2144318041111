package libraries

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/trust"
)

// A Memory keeps in a file the CPU variants that ended with an illegal instruction, so that no later
// start tries them again. Each entry is for one processor and one set of libraries, because a variant
// may run on another processor or in another set. Several goroutines may use it.
type Memory struct {
	Path      string // of the file
	Processor Processor

	mu       sync.Mutex // guards the fields below, and the file
	read     bool
	machines map[string]machine // by [Processor.key]
}

// A machine is one processor with one set of libraries.
type machine struct {
	CPU   string   `json:"cpu"`
	Avoid []string `json:"avoid"`
}

// memoryFile is the content of the file.
type memoryFile struct {
	Machines map[string]machine `json:"machines"`
}

const (
	maxMemory   = 1 << 20 // bytes of the file
	maxMachines = 64      // entries in the file; several machines may share a home
)

// Avoid returns the avoided variants of the set of libraries with that digest. A file that cannot be
// read counts as empty; the error is returned once.
func (m *Memory) Avoid(digest string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	err := m.loadLocked()
	return slices.Clone(m.machines[m.Processor.key(digest)].Avoid), err
}

// Remember adds an avoided variant and reports as news whether it is new. If the file cannot be
// written, only this process avoids the variant. As with Avoid, the error may be that of the first read.
func (m *Memory) Remember(digest, variant string) (news bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	err = m.loadLocked()
	key := m.Processor.key(digest)
	known := m.machines[key]
	if slices.Contains(known.Avoid, variant) {
		return false, err
	}
	known.CPU, known.Avoid = m.Processor.Model, append(slices.Clone(known.Avoid), variant)
	m.machines[key] = known
	return true, errors.Join(err, m.saveLocked(m.machines, key))
}

// Forget removes the entry of a set of libraries from the file. It is called if no variant of the set
// is left, so that the next process tries them all again. This process still avoids them.
func (m *Memory) Forget(digest string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	err := m.loadLocked()
	left := maps.Clone(m.machines)
	delete(left, m.Processor.key(digest))
	return errors.Join(err, m.saveLocked(left, ""))
}

// loadLocked reads the file on its first call.
func (m *Memory) loadLocked() error {
	if m.read {
		return nil
	}
	m.read, m.machines = true, make(map[string]machine)
	f, err := trust.OpenFile(m.Path, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("avoided CPU variants: ignored: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxMemory))
	if err != nil {
		return fmt.Errorf("avoided CPU variants: ignored: %w", err)
	}
	var file memoryFile
	if err := json.Unmarshal(data, &file); err != nil {
		return fmt.Errorf("avoided CPU variants: %s is ignored: %w", m.Path, err)
	}
	maps.Copy(m.machines, file.Machines)
	return nil
}

// saveLocked writes machines to a new file, which replaces the old one or, if the path is a link, the
// link. Of more than maxMachines entries it drops the excess, but never the one with the key keep.
func (m *Memory) saveLocked(machines map[string]machine, keep string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("save the avoided CPU variants: %w", err)
		}
	}()
	machines = maps.Clone(machines)
	for key := range machines {
		if len(machines) <= maxMachines {
			break
		}
		if key != keep {
			delete(machines, key)
		}
	}
	data, err := json.Marshal(memoryFile{Machines: machines}, jsontext.Multiline(true), json.Deterministic(true))
	if err != nil {
		return err
	}
	dir, leaf := filepath.Split(m.Path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	temp := "." + leaf + "." + rand.Text()
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, root.Remove(temp))
		}
	}()
	_, err = f.Write(append(data, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return root.Rename(temp, leaf)
}
