// Package builtin generates small models, so that a first try and the tests of the real engine need
// no download: chain and loop recite the alphabet, fim does so in the gap of a text, tiny generates
// random text, embed and rerank compare texts by their words. They are complete GGUF files that
// llama.cpp loads like any other, with the same bytes on every platform. The package generates and
// stores these files; it depends neither on the engine nor on the daemon.
package builtin

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/inferd-go/inferd/internal/gguf"
)

// A model describes a model that can be generated.
type model struct {
	name   string
	digest string // SHA-256 of its file, in hex; a test generates the file and compares
	file   func(name string) *gguf.File
}

var models = []model{
	{"chain", "92625db9416ea141d62842a683c9e5db46ed0787bd6ce8a5b8c3c6663558085d", chain},
	{"embed", "d7f25bbefb0c54929be109aef95367ce08f8f1c4d37dd56c52cf17b40d7551f1", embed},
	{"fim", "f8ef6330d4049256b5a3bfb05147e669fcd210dd8b44fc1a918618a5246f32f4", fim},
	{"loop", "cf5ed50c8273e1eddde6ba8adf2d7561ce2a6db336a4b135a6afd0654d0cca66", loop},
	{"rerank", "ff19514ae1071939f975129c74188c0cd5d02b01af9ce464822c3d3a7d5a4fec", rerank},
	{"tiny", "1743fb83a5268f96be930ca0e260b37257dc8f2cda28245e6361566d4e2c637c", tiny},
}

// Names returns the names of the models, sorted.
func Names() []string {
	names := make([]string, 0, len(models))
	for _, m := range models {
		names = append(names, m.name)
	}
	return names
}

// Has reports whether a model has that name.
func Has(name string) bool {
	_, err := find(name)
	return err == nil
}

// Digest returns the SHA-256 of a model's file, in hex. The error for an unknown name lists
// the known ones.
func Digest(name string) (string, error) {
	m, err := find(name)
	return m.digest, err
}

// Write writes the file of a model, 0.5 to 2 MB. The error for an unknown name lists the
// known names.
func Write(name string, w io.Writer) error {
	m, err := find(name)
	if err != nil {
		return err
	}
	if _, err := m.file(m.name).WriteTo(w); err != nil {
		return fmt.Errorf("write built-in model %s: %w", name, err)
	}
	return nil
}

// Ensure returns the path of the model's file in dir. It writes the file unless a complete
// one is there, and creates dir, mode 0700, if it is missing. A file appears under its name
// only when complete, so calls from several processes do not disturb each other, and a
// failure leaves nothing behind. The error for an unknown name lists the known names.
func Ensure(dir, name string) (string, error) {
	m, err := find(name)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("folder of built-in models: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", fmt.Errorf("folder of built-in models: %w", err)
	}
	defer root.Close()
	leaf := m.name + "-" + m.digest[:16] + ".gguf"
	if !isWhole(root, leaf, m.digest) {
		if err := m.save(root, leaf); err != nil {
			return "", fmt.Errorf("make built-in model %s: %w", filepath.Join(dir, leaf), err)
		}
	}
	return filepath.Join(dir, leaf), nil
}

func find(name string) (model, error) {
	for _, m := range models {
		if m.name == name {
			return m, nil
		}
	}
	return model{}, fmt.Errorf("no built-in model is called %q: there are %s", name, strings.Join(Names(), ", "))
}

// isWhole reports whether a file exists and has the digest. Any error counts as no: writing
// the file again repairs it or fails with the reason.
func isWhole(root *os.Root, leaf, digest string) bool {
	info, err := root.Lstat(leaf)
	if err != nil || !info.Mode().IsRegular() { // opening a named pipe would block forever
		return false
	}
	f, err := root.Open(leaf)
	if err != nil {
		return false
	}
	defer f.Close()
	sum := sha256.New()
	_, err = io.Copy(sum, f)
	return err == nil && hex.EncodeToString(sum.Sum(nil)) == digest
}

// save writes the file under a temporary name and renames it. The folder is not synced: a
// file that a power failure removes is generated again.
func (m model) save(root *os.Root, leaf string) (err error) {
	var content bytes.Buffer
	if _, err := m.file(m.name).WriteTo(&content); err != nil {
		return err
	}
	if sum := sha256.Sum256(content.Bytes()); hex.EncodeToString(sum[:]) != m.digest {
		return fmt.Errorf("internal error: its SHA-256 comes out as %x, not %s", sum, m.digest)
	}
	temp := "." + leaf + "." + rand.Text()
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close() // harmless if it was closed
			err = errors.Join(err, root.Remove(temp))
		}
	}()
	if _, err := f.Write(content.Bytes()); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := root.Rename(temp, leaf); err != nil {
		// Windows does not replace a file while another process reads it, which may have just
		// written it.
		if isWhole(root, leaf, m.digest) {
			return root.Remove(temp)
		}
		return err
	}
	return nil
}
