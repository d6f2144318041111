package pull

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/inferd-go/inferd/internal/modelname"
	"github.com/inferd-go/inferd/internal/store"
)

// An ociManifest is a manifest of a model in a registry.
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
	model := &plan{asked: what, source: store.Source{Registry: s.ollama.Host, Repo: image, Revision: ref.Tag}}
	name := strings.ReplaceAll(strings.TrimPrefix(ref.Name, "library/"), "/", "-")
	if ref.Tag != "latest" {
		name += "-" + ref.Tag
	}
	if model.name, err = store.NameOf(name + ".gguf"); err != nil {
		model.name = "" // Pull returns an error unless Options.As names the model
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
		model.files = append(model.files, file{"sha256-" + digest, l.Size, digest, []source{src}})
	}
	switch len(model.files) {
	case 0:
		return nil, fmt.Errorf("%s: its manifest has no model layer: it is no GGUF model, or runs in the cloud only", what)
	case 1:
		model.source.Filename = model.files[0].name
		return model, nil
	}
	return nil, fmt.Errorf("%s: its manifest has %d model layers, and only one can be used", what, len(model.files))
}

var challenge = regexp.MustCompile(`(\w+)="([^"]*)"`)

// anonymous fetches a token for a registry, without a login. The rules for redirects also apply to
// the address of the token, so a public registry cannot cause a request to a private address.
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

// A challengeError means that a registry answered 401 with a WWW-Authenticate header.
type challengeError struct {
	*deniedError
	header     string
	fromPublic bool // as in answer
}

func (e *challengeError) Unwrap() error { return e.deniedError }
