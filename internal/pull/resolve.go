package pull

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/inferd-go/inferd/internal/modelname"
	"github.com/inferd-go/inferd/internal/printable"
	"github.com/inferd-go/inferd/internal/store"
)

// Limits for the answers of a hub.
const (
	maxAnswer = 8 << 20 // bytes of one answer
	maxPages  = 100     // pages of a listing
)

// hubHosts are the host names of Hugging Face, which HF_ENDPOINT replaces.
var hubHosts = []string{"huggingface.co", "www.huggingface.co", "hf.co"}

// resolve returns the plan for the model that a name stands for.
func (s *session) resolve(ctx context.Context, ref modelname.Ref) (*plan, error) {
	switch ref.Kind {
	case modelname.Plain:
		return s.resolveCatalog(ref)
	case modelname.Hub:
		return s.resolveHub(ctx, ref)
	case modelname.Ollama:
		return s.resolveOllama(ctx, ref)
	case modelname.Link:
		return s.resolveLink(ref)
	case modelname.File:
		return nil, fmt.Errorf("%s is a file of this machine: use it with inferd --model-path, or bring it into the store with inferdctl import", printable.Text(ref.Path))
	}
	panic(fmt.Sprintf("internal error: kind %d of a name", int(ref.Kind)))
}

func (s *session) resolveCatalog(ref modelname.Ref) (*plan, error) {
	e, ok := s.Catalog.Find(ref.Name)
	if !ok {
		return nil, s.Catalog.Unknown(ref.Name)
	}
	if len(e.Sources) == 0 {
		return nil, fmt.Errorf("model %q: no source is known that it could be pulled from; a file with SHA-256 %s can be imported", e.Name, e.SHA256)
	}
	f := file{name: e.File, size: e.SizeBytes, sha256: e.SHA256}
	for _, address := range e.Sources {
		src, err := s.sourceOf(address)
		if err != nil {
			return nil, err
		}
		f.sources = append(f.sources, src)
	}
	return &plan{name: e.Name, license: e.License, source: describe(f.sources[0].url, e.File), files: []file{f}}, nil
}

func (s *session) resolveLink(ref modelname.Ref) (*plan, error) {
	src, err := s.sourceOf(ref.URL)
	if err != nil {
		return nil, err
	}
	leaf := path.Base(src.url.Path)
	name, err := store.NameOf(leaf)
	if err != nil {
		name = "" // Pull returns an error unless Options.As names the model
	}
	return &plan{
		name: name, asked: askedOf(ref), source: describe(src.url, leaf),
		files: []file{{name: leaf, sha256: ref.SHA256, sources: []source{src}}},
	}, nil
}

// hubFile matches the path of a file at a revision of a repository.
var hubFile = regexp.MustCompile(`^/([^/]+/[^/]+)/resolve/([^/]+)/(.+)$`)

// describe returns the source member of a manifest, derived from the address of a file.
func describe(u *url.URL, leaf string) store.Source {
	s := store.Source{Registry: u.Host, Filename: leaf}
	if m := hubFile.FindStringSubmatch(u.Path); m != nil {
		s.Repo, s.Revision, s.Filename = m[1], m[2], m[3]
	}
	return s
}

// sourceOf returns the source at an address. An address at Hugging Face is rewritten to the
// configured endpoint, and gets the token.
func (s *session) sourceOf(address string) (source, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return source{}, fmt.Errorf("model URL %q is not valid", printable.Text(modelname.Public(address)))
	}
	for _, host := range hubHosts {
		if u.Scheme == "https" && strings.EqualFold(u.Host, host) {
			u = under(s.hub, u.Path, u.RawQuery)
		}
	}
	src := source{url: u}
	if originOf(u) == originOf(s.hub) {
		src.cred = s.hubCred
	}
	return src, nil
}

// under returns an address below an endpoint. where is its path there, not escaped; query is its query.
func under(endpoint *url.URL, where, query string) *url.URL {
	u := *endpoint
	u.Path, u.RawPath = strings.TrimSuffix(endpoint.Path, "/")+where, ""
	u.RawQuery = query
	return &u
}

// api sends a request and decodes the JSON answer into value. It retries and pauses like a
// download.
func (s *session) api(ctx context.Context, what string, t target, header http.Header, value any) (*answer, error) {
	for fails := 1; ; fails++ {
		got, again, after, err := s.apiOnce(ctx, what, t, header, value)
		if err == nil {
			return got, nil
		}
		if !again || ctx.Err() != nil {
			return nil, err
		}
		switch {
		case after > maxAfter:
			return nil, fmt.Errorf("%s: %w: it asks to wait for %v", what, err, after.Round(time.Second))
		case fails >= maxFails:
			return nil, fmt.Errorf("%s: %d failures in a row, the last one: %w", what, fails, err)
		}
		wait := pause(fails, after, random())
		s.Log.LogAttrs(ctx, slog.LevelInfo, "a hub does not answer, and is asked again",
			slog.String("url", display(t.url)), slog.String("reason", err.Error()), slog.Duration("pause", wait))
		if err := s.sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
}

// apiOnce sends one request, decodes the answer and closes its body. again reports whether a retry
// may succeed, and after is the least time to wait before it.
func (s *session) apiOnce(ctx context.Context, what string, t target, header http.Header, value any) (got *answer, again bool, after time.Duration, err error) {
	inner, cancel := context.WithTimeoutCause(ctx, 2*stallTimeout, errStall)
	defer cancel()
	a, err := s.client.do(inner, http.MethodGet, t, header)
	if err != nil {
		_, refused := errors.AsType[*refusedError](err)
		_, address := errors.AsType[*addressError](err)
		hint := hopeless(err)
		return nil, !refused && !address && hint == "", 0, fmt.Errorf("%s: %w%s", what, cause(inner, err), hint)
	}
	defer a.Body.Close()
	h := judge(a.Response, 0, false, s.now())
	denied := s.client.denied(a, &h)
	switch {
	case a.StatusCode == http.StatusOK:
	case a.StatusCode == http.StatusUnauthorized && a.Header.Get("WWW-Authenticate") != "" && t.cred == nil:
		return nil, false, 0, &challengeError{denied, a.Header.Get("WWW-Authenticate"), a.fromPublic}
	case h.verdict == retry:
		return nil, true, h.after, denied
	case h.verdict == refused:
		return nil, false, 0, fmt.Errorf("%s: no access, or there is no such model: %w", what, denied)
	case a.StatusCode == http.StatusNotFound:
		return nil, false, 0, fmt.Errorf("%s: there is no such model or revision: %w", what, denied)
	default:
		return nil, false, 0, fmt.Errorf("%s: %w", what, denied)
	}
	body, err := io.ReadAll(io.LimitReader(a.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, true, 0, fmt.Errorf("%s: %s: %w", what, display(a.url), cause(inner, err))
	case len(body) > maxAnswer:
		return nil, false, 0, fmt.Errorf("%s: %s: the answer has more than %d bytes", what, display(a.url), maxAnswer)
	}
	if err := json.Unmarshal(body, value); err != nil {
		return nil, false, 0, fmt.Errorf("%s: %s: the answer is not the expected JSON: %w", what, display(a.url), err)
	}
	return a, false, 0, nil
}
