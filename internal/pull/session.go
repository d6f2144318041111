package pull

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/inferd-go/inferd/internal/status"
)

// A session is the state of one call of a Puller's method.
type session struct {
	*Puller
	client      *client
	hub, ollama *url.URL
	hubCred     *credential
	report      func(status.Phase)
	fetched     int64
}

// The default endpoints.
const (
	defaultHub    = "https://huggingface.co"
	defaultOllama = "https://registry.ollama.ai"
)

func (p *Puller) session(report func(status.Phase)) (*session, error) {
	s := &session{Puller: p, report: report}
	if report == nil {
		s.report = func(status.Phase) {}
	}
	var configured []*url.URL
	for _, e := range []struct {
		what, given, usual string
		to                 **url.URL
	}{{"hub", p.HubEndpoint, defaultHub, &s.hub}, {"registry of Ollama", p.OllamaEndpoint, defaultOllama, &s.ollama}} {
		text := e.usual
		if e.given != "" {
			text = strings.TrimRight(e.given, "/")
		}
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" {
			return nil, fmt.Errorf("the endpoint of the %s must be an https:// address without user and query (HF_ENDPOINT, OLLAMA_ENDPOINT)", e.what)
		}
		*e.to = u
		if e.given != "" {
			configured = append(configured, u)
		}
	}
	if p.Token != "" {
		s.hubCred = &credential{originOf(s.hub), "Bearer " + p.Token}
	}
	proxy := p.Proxy
	if proxy == nil {
		proxy = http.ProxyFromEnvironment
	}
	public := p.test.isPublic
	if public == nil {
		public = isPublic
	}
	s.client = newClient(p.Agent, s.hub, configured, p.EndpointOnly, p.Roots, proxy, public, p.test.dial)
	return s, nil
}

func (p *Puller) now() time.Time { return time.Now() }

func (p *Puller) sleep(ctx context.Context, d time.Duration) error {
	if p.test.sleep != nil {
		return p.test.sleep(ctx, d)
	}
	return wait(ctx, d)
}
