package pull

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Environment sets the endpoints, the token and the authorities from the variables that the
// programs of the hubs use: HF_ENDPOINT or MODEL_ENDPOINT, OLLAMA_ENDPOINT, HF_TOKEN or the token
// file of Hugging Face, and SSL_CERT_FILE for certificates in addition to the system's.
func (p *Puller) Environment(getenv func(string) string) error {
	p.HubEndpoint = cmp.Or(getenv("HF_ENDPOINT"), getenv("MODEL_ENDPOINT"))
	p.OllamaEndpoint = getenv("OLLAMA_ENDPOINT")
	var err error
	if p.Token, err = token(getenv); err != nil {
		return err
	}
	if file := getenv("SSL_CERT_FILE"); file != "" {
		if p.Roots, err = rootsWith(file); err != nil {
			return fmt.Errorf("SSL_CERT_FILE: %w", err)
		}
	}
	return nil
}

// maxToken bounds the bytes of a token, and of its file.
const maxToken = 4096

// token returns HF_TOKEN, or else the content of the token file. The result is empty if HF_TOKEN is
// not set and there is no token file, or this user may not read it.
func token(getenv func(string) string) (string, error) {
	from, text := "HF_TOKEN", strings.TrimSpace(getenv("HF_TOKEN"))
	if text == "" {
		from = tokenFile(getenv)
		if from == "" {
			return "", nil
		}
		f, err := os.Open(from)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			return "", nil
		}
		if err != nil {
			return "", fmt.Errorf("the token of Hugging Face: %w", err)
		}
		defer f.Close()
		data, err := io.ReadAll(io.LimitReader(f, maxToken+1))
		if err != nil {
			return "", fmt.Errorf("the token of Hugging Face: %w", err)
		}
		text = strings.TrimSpace(string(data))
	}
	if len(text) > maxToken || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return "", fmt.Errorf("%s has no valid token of Hugging Face", from)
	}
	return text, nil
}

// tokenFile returns the path at which Hugging Face's programs keep the token. It is empty if no
// variable names a folder.
func tokenFile(getenv func(string) string) string {
	if file := getenv("HF_TOKEN_PATH"); file != "" {
		return file
	}
	if home := getenv("HF_HOME"); home != "" {
		return filepath.Join(home, "token")
	}
	cache := getenv("XDG_CACHE_HOME")
	if cache == "" {
		home := cmp.Or(getenv("HOME"), getenv("USERPROFILE"))
		if home == "" {
			return ""
		}
		cache = filepath.Join(home, ".cache")
	}
	return filepath.Join(cache, "huggingface", "token")
}

// rootsWith returns the system's certificate authorities and those in a file. On Linux crypto/x509
// reads SSL_CERT_FILE in place of the system's bundle, but still reads the system's folders.
func rootsWith(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool, err := x509.SystemCertPool()
	if err != nil { // the system may have no pool
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate", file)
	}
	return pool, nil
}
