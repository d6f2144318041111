package bridge_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/bridge"
	"github.com/inferd-go/inferd/internal/infer"
)

const secret, otherSecret = "0123456789abcdef", "fedcba9876543210"

func key(t *testing.T, name, secret string) *bridge.Key {
	t.Helper()
	k, err := bridge.NewKey(name, secret)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// A request over TCP is refused if its Host header does not name this machine: another site can
// make its own name resolve to this machine.
func TestHosts(t *testing.T) {
	h := open(t, words("a"), func(b *bridge.Bridge) { b.Hosts = []string{"box.example"} })
	for host, status := range map[string]int{
		"localhost": 200, "LOCALHOST:8080": 200, "a.localhost": 200, "127.0.0.1": 200, "127.0.0.2:80": 200, "[::1]": 200, "[::1]:8080": 200,
		"box.example": 200, "Box.Example:80": 200,
		"evil.example": 403, "localhost.evil.example": 403, "0.0.0.0": 403, "[::]": 403, "10.0.0.1": 403, "evillocalhost": 403, "": 403,
	} {
		for _, path := range []string{"/v1/models", "/health"} {
			if got := h.once(request("GET", path, "", "Host: "+host)); got.status != status {
				t.Errorf("%s of %q: %+v", path, host, got)
			}
		}
	}
	nc, err := net.Dial("unix", h.path)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for _, host := range []string{"evil.example", "x"} {
		if got := send(t, nc, request("GET", "/v1/models", "", "Host: "+host)); got.status != 200 {
			t.Errorf("over the Unix socket, %q: %+v", host, got)
		}
	}
}

// Requests from pages of other origins are refused, unless the origin is listed.
func TestOrigins(t *testing.T) {
	h := open(t, words("a"), func(b *bridge.Bridge) {
		b.Origins = []string{"https://app.example", "chrome-extension://*", "app://obsidian.md"}
	})
	const jsonType = "Content-Type: application/json"
	for name, test := range map[string]struct {
		headers []string
		status  int    // status of a POST
		get     int    // status of a GET
		allowed string // Access-Control-Allow-Origin
	}{
		"no page":                   {nil, 200, 200, ""},
		"Node's fetch":              {[]string{"Sec-Fetch-Mode: cors"}, 200, 200, ""},
		"its own page":              {[]string{"Origin: http://localhost", "Sec-Fetch-Site: same-origin", jsonType}, 200, 200, ""},
		"its own page, old browser": {[]string{"Origin: http://localhost", jsonType}, 200, 200, ""},
		"a listed page (ggml-org/llama.cpp#26988)": {[]string{"Origin: https://app.example", "Sec-Fetch-Site: cross-site", jsonType}, 200, 200, "https://app.example"},
		"an extension": {[]string{"Origin: chrome-extension://abc", "Sec-Fetch-Site: none", jsonType}, 200, 200, "chrome-extension://abc"},
		"an app":       {[]string{"Origin: app://obsidian.md", jsonType}, 200, 200, "app://obsidian.md"},
		"another page (ggml-org/llama.cpp#25606)": {[]string{"Origin: https://evil.example", "Sec-Fetch-Site: cross-site", jsonType}, 403, 403, ""},
		"another page, old browser":               {[]string{"Origin: https://evil.example", jsonType}, 403, 200, ""}, // the page cannot read the answer
		"another port of this machine":            {[]string{"Origin: http://localhost:3000", "Sec-Fetch-Site: same-site", jsonType}, 403, 403, ""},
		"no origin, another site":                 {[]string{"Sec-Fetch-Site: cross-site", jsonType}, 403, 403, ""},
		"null (janhq/jan#8131)":                   {[]string{"Origin: null", jsonType}, 403, 403, ""},
		"a subdomain of a listed one":             {[]string{"Origin: https://x.app.example", jsonType}, 403, 200, ""},
		"a listed one, not https":                 {[]string{"Origin: http://app.example", jsonType}, 403, 200, ""},
		"an extension without a name":             {[]string{"Origin: chrome-extension://", jsonType}, 403, 200, ""},
		"a page without a preflight":              {[]string{"Origin: https://app.example", "Content-Type: text/plain"}, 415, 200, "https://app.example"},
		"its own page, without a type":            {[]string{"Origin: http://localhost", "Sec-Fetch-Site: same-origin"}, 415, 200, ""},
		"curl -d":                                 {[]string{"Content-Type: application/x-www-form-urlencoded"}, 200, 200, ""},
	} {
		for method, status := range map[string]int{"POST": test.status, "GET": test.get} {
			path, body := chatPath, hi("")
			if method == "GET" {
				path, body = "/v1/models", ""
			}
			t.Run(name+", "+method, func(t *testing.T) {
				got := h.once(request(method, path, body, test.headers...))
				if got.status != status || got.header.Get("Access-Control-Allow-Origin") != test.allowed || got.header.Get("Vary") != "Origin" {
					t.Errorf("%d, want %d: %+v", got.status, status, got)
				}
			})
		}
	}
}

// A browser's preflight needs no key, and is granted only to listed pages.
func TestPreflight(t *testing.T) {
	h := open(t, words("a"), func(b *bridge.Bridge) {
		b.Origins, b.Access.Keys = []string{"https://app.example"}, []*bridge.Key{key(t, "k", secret)}
		b.Access.UID = -1
	})
	asks := func(origin string, more ...string) answered {
		return h.once(request("OPTIONS", chatPath, "", append([]string{"Origin: " + origin, "Access-Control-Request-Method: POST"}, more...)...))
	}
	got := asks("https://app.example", "Access-Control-Request-Headers: authorization, content-type")
	if got.status != 204 || got.header.Get("Access-Control-Allow-Origin") != "https://app.example" || got.header.Get("Access-Control-Allow-Methods") != "GET, POST, OPTIONS" ||
		got.header.Get("Access-Control-Allow-Headers") != "authorization, content-type" {
		t.Errorf("a listed page: %+v", got)
	}
	for _, origin := range []string{"https://evil.example", "null"} {
		if got := asks(origin); got.status != 403 || got.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %+v", origin, got)
		}
	}
	t.Run("lmstudio-ai/lmstudio-bug-tracker#392: a listed page may reach this machine if it asks", func(t *testing.T) {
		const asked, allowed = "Access-Control-Request-Private-Network: true", "Access-Control-Allow-Private-Network"
		if got := asks("https://app.example", asked); got.status != 204 || got.header.Get(allowed) != "true" {
			t.Errorf("a listed page: %+v", got)
		}
		if got := asks("https://app.example"); got.header.Get(allowed) != "" {
			t.Errorf("unasked: %+v", got)
		}
		if got := h.once(request("GET", "/health", "", "Origin: https://app.example", asked)); got.header.Get(allowed) != "" {
			t.Errorf("no preflight: %+v", got)
		}
		for _, origin := range []string{"https://evil.example", "null"} {
			if got := asks(origin, asked); got.status != 403 || got.header.Get(allowed) != "" {
				t.Errorf("%s: %+v", origin, got)
			}
		}
	})
}

// Over TCP the daemon's user needs no key; other users, unknown users and proxies need one, unless
// Open or Blind admits them. If keys are configured, a wrong key is refused. The name of a key
// becomes the program of the peer.
func TestAccess(t *testing.T) {
	const own, other, root = 1000, 1001, 0
	right, wrong := "Authorization: Bearer "+secret, "Authorization: Bearer sk-something-else"
	some := []*bridge.Key{key(t, "ci", secret), key(t, "bot", otherSecret)}
	for name, test := range map[string]struct {
		uid     int // uid of the client; negative means unknown
		change  func(*bridge.Access)
		headers []string
		status  int
		peer    string // user, key and program of the peer
	}{
		"the daemon's user":                 {own, nil, nil, 200, "1000//http"},
		"with a key, but no keys are set":   {own, nil, []string{wrong}, 200, "1000//http"},
		"another user":                      {other, nil, nil, 403, ""},
		"another user, any key":             {other, nil, []string{right}, 403, ""},
		"root":                              {root, nil, nil, 403, ""},
		"root's own daemon":                 {root, func(a *bridge.Access) { a.UID = 0 }, nil, 200, "0//http"},
		"an unknown user":                   {-1, nil, nil, 403, ""},
		"open to all":                       {other, func(a *bridge.Access) { a.Open = true }, nil, 200, "1001//http"},
		"open to all, unknown":              {-1, func(a *bridge.Access) { a.Open = true }, nil, 200, "//http"},
		"the daemon's user, no key":         {own, func(a *bridge.Access) { a.Keys = some }, nil, 200, "1000//http"},
		"the daemon's user, its key":        {own, func(a *bridge.Access) { a.Keys = some }, []string{right}, 200, "1000/ci/ci"},
		"the daemon's user, a wrong key":    {own, func(a *bridge.Access) { a.Keys = some }, []string{wrong}, 401, ""},
		"another user, its key":             {other, func(a *bridge.Access) { a.Keys = some }, []string{right}, 200, "1001/ci/ci"},
		"another user, the second key":      {other, func(a *bridge.Access) { a.Keys = some }, []string{"X-Api-Key: " + otherSecret}, 200, "1001/bot/bot"},
		"unknown, a key":                    {-1, func(a *bridge.Access) { a.Keys = some }, []string{"authorization: bearer " + secret}, 200, "/ci/ci"},
		"open to all, a wrong key":          {own, func(a *bridge.Access) { a.Keys, a.Open = some, true }, []string{wrong}, 401, ""},
		"a key of another scheme":           {other, func(a *bridge.Access) { a.Keys = some }, []string{"Authorization: Basic " + secret}, 403, ""},
		"half a key":                        {other, func(a *bridge.Access) { a.Keys = some }, []string{"X-Api-Key: 01234567"}, 401, ""},
		"two keys, one right":               {other, func(a *bridge.Access) { a.Keys = some }, []string{wrong, "X-Api-Key: " + secret}, 200, "1001/ci/ci"},
		"a proxy of the daemon's user":      {own, nil, []string{"X-Forwarded-For: 1.2.3.4"}, 403, ""},
		"another kind of proxy":             {own, nil, []string{"Via: 1.1 x"}, 403, ""},
		"a third kind":                      {own, nil, []string{"Forwarded: for=1.2.3.4"}, 403, ""},
		"a fourth kind":                     {own, nil, []string{"X-Real-IP: 1.2.3.4"}, 403, ""},
		"a proxy with a key":                {own, func(a *bridge.Access) { a.Keys = some }, []string{right, "X-Forwarded-Host: x"}, 200, "1000/ci/ci"},
		"a system that knows no users":      {-1, func(a *bridge.Access) { a.Blind = true }, nil, 200, "//http"},
		"a system that knows none, keys":    {-1, func(a *bridge.Access) { a.Blind, a.Keys = true, some }, nil, 403, ""},
		"a system that knows none, its key": {-1, func(a *bridge.Access) { a.Blind, a.Keys = true, some }, []string{right}, 200, "/ci/ci"},
	} {
		t.Run(name, func(t *testing.T) {
			h := open(t, words("a"), func(b *bridge.Bridge) {
				b.Access.UID = own
				if test.change != nil {
					test.change(&b.Access)
				}
				b.UserOf = func(*net.TCPConn) (uint32, error) {
					if test.uid < 0 {
						return 0, errors.New("unknown")
					}
					return uint32(test.uid), nil
				}
			})
			got := h.once(request("POST", chatPath, hi(""), test.headers...))
			_, code, _, message := got.failure()
			switch {
			case got.status != test.status:
				t.Errorf("got %+v", got)
			case got.status == 401 && (code != "invalid_api_key" || got.header.Get("WWW-Authenticate") == ""),
				got.status == 403 && !strings.Contains(message, "http.keys"):
				t.Errorf("got %+v", got)
			case got.status == 200:
				peer := h.kept.records()[0].Peer
				if is := peer.User + "/" + peer.Key + "/" + peer.Program; is != test.peer || peer.Transport != infer.TCP {
					t.Errorf("the peer is %q, want %q", is, test.peer)
				}
			}
			if strings.Contains(got.body, secret) {
				t.Error("the answer has a key")
			}
			if got := h.once(request("GET", "/health", "", test.headers...)); got.status != 200 {
				t.Errorf("/health: %+v", got)
			}
		})
	}
}

func TestKeys(t *testing.T) {
	for name, secret := range map[string]string{"short": "0123456789abcde", "": secret, strings.Repeat("x", 33): secret, "a\x00b": secret, "a b": secret, "http": secret, "tcp": secret} {
		if _, err := bridge.NewKey(name, secret); err == nil {
			t.Errorf("%q with %d bytes is accepted", name, len(secret))
		}
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "key")
	write := func(text string, mode os.FileMode, at time.Time) {
		t.Helper()
		if err := errors.Join(os.WriteFile(file, []byte(text), mode), os.Chmod(file, mode), os.Chtimes(file, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := bridge.NewKeyFile("k", file); err == nil {
		t.Error("a missing file is accepted")
	}
	write("short", 0o600, time.Unix(1, 0))
	if _, err := bridge.NewKeyFile("k", file); err == nil {
		t.Error("a short key is accepted")
	}
	write(secret+"\n", 0o644, time.Unix(2, 0))
	if _, err := bridge.NewKeyFile("k", file); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a file that others can read: %v", err)
	}
	write(secret+"\n", 0o600, time.Unix(3, 0))
	k, err := bridge.NewKeyFile("k", file)
	if err != nil {
		t.Fatal(err)
	}
	h := open(t, words("a"), func(b *bridge.Bridge) { b.Access = bridge.Access{UID: -1, Keys: []*bridge.Key{k}} })
	try := func(secret string) int {
		return h.once(request("GET", "/v1/models", "", "X-Api-Key: "+secret)).status
	}
	if a, b := try(secret), try(otherSecret); a != http.StatusOK || b != http.StatusUnauthorized {
		t.Errorf("at first: %d, %d", a, b)
	}
	write(otherSecret+"\n", 0o600, time.Unix(4, 0))
	if a, b := try(secret), try(otherSecret); a != http.StatusUnauthorized || b != http.StatusOK {
		t.Errorf("after a change: %d, %d", a, b)
	}
	if err := os.Chmod(file, 0o644); err != nil { // changes neither the file's time nor its size
		t.Fatal(err)
	}
	if a := try(otherSecret); a != http.StatusUnauthorized {
		t.Errorf("readable by others: %d", a)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if a := try(otherSecret); a != http.StatusUnauthorized {
		t.Errorf("without its file: %d", a)
	}
}

// A request over a Unix socket needs no key, but a wrong key is refused.
func TestUnixAccess(t *testing.T) {
	h := open(t, words("a"), func(b *bridge.Bridge) { b.Access.Keys = []*bridge.Key{key(t, "ci", secret)} })
	for header, status := range map[string]int{"X: x": 200, "X-Api-Key: " + secret: 200, "X-Api-Key: " + otherSecret: 401} {
		nc, err := net.Dial("unix", h.path)
		if err != nil {
			t.Fatal(err)
		}
		if got := send(t, nc, request("POST", chatPath, hi(""), header)); got.status != status {
			t.Errorf("%s: %+v", header, got)
		}
		_, _ = io.WriteString(nc, "")
		_ = nc.Close()
	}
}

// Two keys with the same secret are refused, because a client can have only one name.
func TestDistinctKeys(t *testing.T) {
	var keys []*bridge.Key
	for _, name := range []string{"ci", "bot"} {
		k, err := bridge.NewKey(name, "0123456789abcdef")
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	if err := bridge.Distinct(keys); err == nil || !strings.Contains(err.Error(), "ci and bot have the same secret") {
		t.Errorf("got %v", err)
	}
	if err := bridge.Distinct(keys[:1]); err != nil {
		t.Error(err)
	}
}
