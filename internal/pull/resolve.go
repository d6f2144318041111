package pull

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/inferd-go/inferd/internal/modelname"
	"github.com/inferd-go/inferd/internal/printable"
	"github.com/inferd-go/inferd/internal/store"
)

// A file is a file to fetch.
type file struct {
	name    string // last segment of its path
	size    int64  // 0: unknown
	sha256  string // empty: unknown
	sources []source
}

// A plan is a model that a name was resolved to.
type plan struct {
	name      string // of the manifest
	asked     string // what was resolved; empty if it is the name itself
	license   string
	source    store.Source
	files     []file // parts in order
	projector string // name that pulls the model's projector; empty: it has none
}

// check refuses a plan with two equal files: no split model has them, and the ingest of the one
// would wait for that of the other.
func (m *plan) check() error {
	no := make(map[string]int)
	for i, f := range m.files {
		if before := no[f.sha256]; before > 0 && f.sha256 != "" {
			return fmt.Errorf("its parts %d and %d have one SHA-256, %s: they cannot both be right", before, i+1, f.sha256)
		}
		no[f.sha256] = i + 1
	}
	return nil
}

// is reports whether a manifest has the content of the plan. It has not if a digest of the plan
// is unknown.
func (m *plan) is(of *store.Manifest) bool {
	return slices.EqualFunc(m.files, digestsOf(of), func(f file, digest string) bool { return f.sha256 == digest })
}

// digestsOf returns the digests of all parts of a model.
func digestsOf(m *store.Manifest) (all []string) {
	for _, p := range m.Blobs() {
		all = append(all, strings.TrimPrefix(p.Blob, "sha256:"))
	}
	return all
}

// askedOf is the spelling of a name in the member "asked" of manifests. Of an address it has no
// query, for that may be a secret: its digest tells addresses apart that differ only there. If the SHA-256 of the
// content is known, it tells enough.
func askedOf(ref modelname.Ref) string {
	u, err := url.Parse(ref.URL)
	if ref.Kind != modelname.Link || err != nil {
		return ref.String()
	}
	switch {
	case ref.SHA256 != "":
		return display(u) + "#sha256=" + ref.SHA256
	case u.RawQuery != "":
		sum := sha256.Sum256([]byte(u.RawQuery))
		return display(u) + "?sha256-of-query=" + hex.EncodeToString(sum[:16])
	}
	return display(u)
}

// Limits of the answers of a hub.
const (
	maxAnswer = 8 << 20 // bytes of one
	maxPages  = 100     // of a listing
)

// hubHosts are the names of Hugging Face in addresses, which HF_ENDPOINT replaces.
var hubHosts = []string{"huggingface.co", "www.huggingface.co", "hf.co"}

// resolve finds out which files a name means.
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
		name = "" // --as gives one, or there is an error
	}
	return &plan{
		name: name, asked: askedOf(ref), source: describe(src.url, leaf),
		files: []file{{name: leaf, sha256: ref.SHA256, sources: []source{src}}},
	}, nil
}

// hubFile matches the path of a file at a revision.
var hubFile = regexp.MustCompile(`^/([^/]+/[^/]+)/resolve/([^/]+)/(.+)$`)

// describe is the source of a manifest by the address of the file.
func describe(u *url.URL, leaf string) store.Source {
	s := store.Source{Registry: u.Host, Filename: leaf}
	if m := hubFile.FindStringSubmatch(u.Path); m != nil {
		s.Repo, s.Revision, s.Filename = m[1], m[2], m[3]
	}
	return s
}

// sourceOf parses an address. One at Hugging Face is moved to the configured endpoint, with the
// token.
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

// under returns the address of an unescaped path at an endpoint.
func under(endpoint *url.URL, where, query string) *url.URL {
	u := *endpoint
	u.Path, u.RawPath = strings.TrimSuffix(endpoint.Path, "/")+where, ""
	u.RawQuery = query
	return &u
}

// A hubInfo is what the API says of a revision of a repository.
type hubInfo struct {
	SHA  string `json:"sha"`
	Card struct {
		License any `json:"license"` // a string, or a list of strings
	} `json:"cardData"`
}

// A hubEntry is a file or folder of a listing.
type hubEntry struct {
	Type string `json:"type"`
	Path string `json:"path"`
	Size int64  `json:"size"`
	LFS  *struct {
		OID  string `json:"oid"`
		Size int64  `json:"size"`
	} `json:"lfs"`
}

var commit = regexp.MustCompile(`^[0-9a-f]{7,64}$`)

func (s *session) resolveHub(ctx context.Context, ref modelname.Ref) (*plan, error) {
	repo, rev := ref.Owner+"/"+ref.Repo, ref.Rev
	if rev == "" {
		rev = "main"
	}
	what := "hf:" + repo
	api := s.hub.JoinPath("api", "models", ref.Owner, ref.Repo)
	var info hubInfo
	revision := target{url: api.JoinPath("revision", url.PathEscape(rev)), cred: s.hubCred}
	if _, err := s.api(ctx, what, revision, nil, &info); err != nil {
		return nil, err
	}
	if !commit.MatchString(info.SHA) {
		return nil, fmt.Errorf("%s: the hub names no commit for revision %s", what, rev)
	}
	listed, err := s.listing(ctx, what, api.JoinPath("tree", info.SHA))
	if err != nil {
		return nil, err
	}
	choice, err := modelname.Choose(listed, ref)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	made := &plan{
		asked: ref.String(), license: licenseOf(info.Card.License),
		source: store.Source{Registry: s.hub.Host, Repo: repo, Revision: info.SHA, Filename: choice.Parts[0].Path},
	}
	if made.name, err = store.NameOf(path.Base(choice.Parts[0].Path)); err != nil {
		made.name = "" // --as gives one, or there is an error
	}
	for _, part := range choice.Parts {
		src := source{url: under(s.hub, "/"+repo+"/resolve/"+info.SHA+"/"+part.Path, ""), cred: s.hubCred}
		made.files = append(made.files, file{path.Base(part.Path), part.Size, part.SHA256, []source{src}})
	}
	if choice.Projector != nil {
		made.projector = what + "/" + choice.Projector.Path
	}
	return made, nil
}

// listing returns all files of a repository at a commit.
func (s *session) listing(ctx context.Context, what string, u *url.URL) (listed []modelname.Listed, err error) {
	u.RawQuery = "recursive=true"
	public := false
	for page := 0; u != nil; page++ {
		if page >= maxPages {
			return nil, fmt.Errorf("%s: its listing has more than %d pages", what, maxPages)
		}
		var entries []hubEntry
		got, err := s.api(ctx, what, target{u, s.hubCred, public}, nil, &entries)
		if err != nil {
			return nil, err
		}
		public = got.fromPublic
		for _, e := range entries {
			if e.Type != "file" {
				continue
			}
			f := modelname.Listed{Path: e.Path, Size: e.Size}
			if e.LFS != nil {
				f.SHA256, f.Size = strings.TrimPrefix(e.LFS.OID, "sha256:"), e.LFS.Size
				if !modelname.IsSHA256(f.SHA256) {
					return nil, fmt.Errorf("%s: the digest of %s in its listing is not a SHA-256", what, printable.Text(e.Path))
				}
			}
			if bad := strings.Contains("/"+e.Path+"/", "/../") || strings.ContainsAny(e.Path, "\\\x00"); bad || f.Size < 0 {
				return nil, fmt.Errorf("%s: its listing has a file with a bad path or size: %s", what, printable.Text(e.Path))
			}
			listed = append(listed, f)
		}
		if u, err = s.nextPage(got.Header.Get("Link"), u); err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
	}
	return listed, nil
}

var nextLink = regexp.MustCompile(`<([^>]*)>\s*;\s*rel="?next"?`)

// nextPage returns the address of the next page of a listing, moved to the endpoint; nil after
// the last one.
func (s *session) nextPage(link string, from *url.URL) (*url.URL, error) {
	m := nextLink.FindStringSubmatch(link)
	if m == nil {
		return nil, nil // no next page is no failure
	}
	next, err := from.Parse(m[1])
	if err != nil {
		return nil, errors.New("the address of the next page of its listing is not valid")
	}
	moved, err := s.sourceOf(next.String())
	if err != nil {
		return nil, err
	}
	if originOf(moved.url) != originOf(s.hub) {
		return nil, fmt.Errorf("the next page of its listing is at another origin, %s", display(next))
	}
	return moved.url, nil
}

func licenseOf(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []any:
		if len(v) > 0 {
			return licenseOf(v[0])
		}
	}
	return ""
}

// An ociManifest is a manifest of a registry.
type ociManifest struct {
	Layers []struct {
		MediaType string `json:"mediaType"`
		Digest    string `json:"digest"`
		Size      int64  `json:"size"`
	} `json:"layers"`
}

// Media types of the registry.
const (
	manifestType   = "application/vnd.docker.distribution.manifest.v2+json"
	modelLayer     = "application/vnd.ollama.image.model"
	projectorLayer = "application/vnd.ollama.image.projector"
)

func (s *session) resolveOllama(ctx context.Context, ref modelname.Ref) (*plan, error) {
	image := ref.Name
	if !strings.Contains(image, "/") {
		image = "library/" + image
	}
	what := ref.String()
	base := s.ollama.JoinPath("v2", image)
	manifest := target{url: base.JoinPath("manifests", ref.Tag)}
	var m ociManifest
	_, err := s.api(ctx, what, manifest, http.Header{"Accept": {manifestType}}, &m)
	var cred *credential
	if denied, ok := errors.AsType[*challengeError](err); ok {
		if cred, err = s.anonymous(ctx, what, denied); err != nil {
			return nil, err
		}
		manifest.cred, manifest.fromPublic = cred, denied.fromPublic
		_, err = s.api(ctx, what, manifest, http.Header{"Accept": {manifestType}}, &m)
	}
	if err != nil {
		return nil, err
	}
	made := &plan{asked: what, source: store.Source{Registry: s.ollama.Host, Repo: image, Revision: ref.Tag}}
	name := strings.ReplaceAll(strings.TrimPrefix(ref.Name, "library/"), "/", "-")
	if ref.Tag != "latest" {
		name += "-" + ref.Tag
	}
	if made.name, err = store.NameOf(name + ".gguf"); err != nil {
		made.name = "" // --as gives one, or there is an error
	}
	for _, l := range m.Layers {
		digest := strings.TrimPrefix(l.Digest, "sha256:")
		switch {
		case l.MediaType == projectorLayer:
			s.Log.LogAttrs(ctx, slog.LevelWarn, "the image has a projector, which is not pulled", slog.String("name", what))
			continue
		case l.MediaType != modelLayer:
			continue
		case !modelname.IsSHA256(digest) || l.Size <= 0:
			return nil, fmt.Errorf("%s: its manifest has a model layer without a valid digest and size", what)
		}
		src := source{url: base.JoinPath("blobs", "sha256:"+digest), cred: cred}
		made.files = append(made.files, file{"sha256-" + digest, l.Size, digest, []source{src}})
	}
	switch len(made.files) {
	case 0:
		return nil, fmt.Errorf("%s: its manifest has no model layer: it is no GGUF model, or runs in the cloud only", what)
	case 1:
		made.source.Filename = made.files[0].name
		return made, nil
	}
	return nil, fmt.Errorf("%s: its manifest has %d model layers, and only one can be used", what, len(made.files))
}

var challenge = regexp.MustCompile(`(\w+)="([^"]*)"`)

// anonymous fetches the token that a registry gives without a login. The address for it is like
// a redirect: a public registry cannot name one that is not.
func (s *session) anonymous(ctx context.Context, what string, denied *challengeError) (*credential, error) {
	if scheme, _, _ := strings.Cut(denied.header, " "); !strings.EqualFold(scheme, "Bearer") {
		return nil, fmt.Errorf("%s: the registry wants a login, which inferd does not do", what)
	}
	asked := make(map[string]string)
	for _, m := range challenge.FindAllStringSubmatch(denied.header, -1) {
		asked[strings.ToLower(m[1])] = m[2]
	}
	realm, err := url.Parse(asked["realm"])
	if err != nil || realm.Host == "" {
		return nil, fmt.Errorf("%s: the registry wants a token from an address that is not valid", what)
	}
	realm.RawQuery = url.Values{"service": {asked["service"]}, "scope": {asked["scope"]}}.Encode()
	var answer struct {
		Token string `json:"token"`
		Other string `json:"access_token"`
	}
	if _, err := s.api(ctx, what, target{url: realm, fromPublic: denied.fromPublic}, nil, &answer); err != nil {
		return nil, err
	}
	token := answer.Token
	if token == "" {
		token = answer.Other
	}
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return nil, fmt.Errorf("%s: the registry gave no valid token", what)
	}
	return &credential{originOf(s.ollama), "Bearer " + token}, nil
}

// A challengeError is a 401 that says how to log in.
type challengeError struct {
	*deniedError
	header     string
	fromPublic bool // as in answer
}

func (e *challengeError) Unwrap() error { return e.deniedError }

// api gets an answer in JSON, with the pauses and tries of a download.
func (s *session) api(ctx context.Context, what string, t target, header http.Header, value any) (*answer, error) {
	for fails := 1; ; fails++ {
		got, again, after, err := s.apiOnce(ctx, what, t, header, value)
		if err == nil {
			return got, nil
		}
		if !again || ctx.Err() != nil {
			return nil, err
		}
		if fails >= maxFails || after > maxAfter {
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

// apiOnce sends one request; the body of its answer has been read. again reports whether another try may succeed.
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
