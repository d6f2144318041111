package config_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

const oneMock = `"backends":[{"kind":"mock","name":"m"}]`

// --http may have a value, may be repeated, and has a variable.
func TestHTTPAddresses(t *testing.T) {
	const both = "[127.0.0.1:8080 [::1]:8080?]"
	for name, test := range map[string]struct {
		file string
		env  string
		args []string
		want string
	}{
		"nothing":                    {"", "", nil, "[]"},
		"bare":                       {"", "", []string{"--http"}, both},
		"bare, before another flag":  {"", "", []string{"--http", "--queue-depth", "3"}, both},
		"bare, behind another":       {"", "", []string{"--queue-depth", "3", "--http"}, both},
		"with an address":            {"", "", []string{"--http", "127.0.0.1:1"}, "[127.0.0.1:1]"},
		"with one dash":              {"", "", []string{"-http", "127.0.0.1:1"}, "[127.0.0.1:1]"},
		"behind an equals sign":      {"", "", []string{"--http=127.0.0.1:1"}, "[127.0.0.1:1]"},
		"localhost":                  {"", "", []string{"--http", "localhost:1"}, "[127.0.0.1:1]"},
		"repeated":                   {"", "", []string{"--http", "--http", "127.0.0.1:1", "--http=[::1]:2"}, "[127.0.0.1:8080 [::1]:8080? 127.0.0.1:1 [::1]:2]"},
		"a value that is like it":    {"", "", []string{"--lock", "--http"}, "[]"},
		"the variable":               {"", "127.0.0.1:1, 127.0.0.1:2", nil, "[127.0.0.1:1 127.0.0.1:2]"},
		"the variable, true":         {"", "true", nil, both},
		"the flag beats it":          {"", "true", []string{"--http", "127.0.0.1:1"}, "[127.0.0.1:1]"},
		"the file":                   {`"http":{"listen":["127.0.0.1:1","[::1]:2"]},`, "", nil, "[127.0.0.1:1 [::1]:2]"},
		"the flag beats the file":    {`"http":{"listen":["127.0.0.1:1"]},`, "", []string{"--http", "127.0.0.1:3"}, "[127.0.0.1:3]"},
		"off, in spite of the file":  {`"http":{"listen":["127.0.0.1:1"]},`, "", []string{"--http=false"}, "[]"},
		"another machine's, allowed": {`"http":{"listen":["0.0.0.0:1"],"hosts":["box"],"keys":[{"name":"k","key_env":"K"}]},`, "", nil, "[0.0.0.0:1]"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := load(t, "{"+test.file+oneMock+"}", map[string]string{"INFERD_HTTP": test.env}, test.args...)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, a := range c.HTTP.Listen {
				text := a.String()
				if a.Optional {
					text += "?"
				}
				got = append(got, text)
			}
			if fmt.Sprint(got) != test.want || !c.HTTP.Sock || !c.HTTP.Page {
				t.Errorf("got %s, %v, %v, want %s", got, c.HTTP.Sock, c.HTTP.Page, test.want)
			}
			if warned := slices.ContainsFunc(c.Warnings, func(w string) bool { return strings.Contains(w, "no TLS") }); warned != strings.Contains(test.want, "0.0.0.0") {
				t.Errorf("warnings %q", c.Warnings)
			}
		})
	}
}

func TestHTTPSettings(t *testing.T) {
	c, err := load(t, `{"http":{"sock":false,"listen":["127.0.0.1:1"],"open":true,"any_model":true,"page":false,"hosts":["box"],"origins":["https://app.example","chrome-extension://*"],
		"keys":[{"name":"ci","key_env":"CI_KEY"},{"name":"bot","key_file":"/k"}]},`+oneMock+`}`, map[string]string{"INFERD_CI": "x"})
	if err != nil {
		t.Fatal(err)
	}
	h := c.HTTP
	if h.Sock || !h.Open || !h.AnyModel || h.Page || !slices.Equal(h.Hosts, []string{"box"}) || len(h.Origins) != 2 || len(h.Keys) != 2 || h.Keys[1].File != "/k" {
		t.Errorf("got %+v", h)
	}
	if !slices.Contains(c.Secrets(), "CI_KEY") {
		t.Errorf("secrets %q", c.Secrets())
	}
	if !slices.ContainsFunc(c.Warnings, func(w string) bool { return strings.Contains(w, "http.open") }) {
		t.Errorf("warnings %q", c.Warnings)
	}
}

func TestHTTPRefusals(t *testing.T) {
	for name, test := range map[string]struct {
		file string
		args []string
		want string
	}{
		"no address":                  {"", []string{"--http", "here"}, `--http "here": want an address and a port`},
		"no port":                     {"", []string{"--http", "127.0.0.1"}, "want an address and a port"},
		"another machine's":           {"", []string{"--http", "0.0.0.0:8080"}, "need http.keys, and their names for this machine http.hosts"},
		"another machine's, no hosts": {`"http":{"listen":["192.168.1.2:80"],"keys":[{"name":"k","key_env":"K"}]},`, nil, "http.listen 192.168.1.2:80 is not a loopback address"},
		"another machine's, open":     {`"http":{"listen":["0.0.0.0:1"],"open":true,"hosts":["box"],"keys":[{"name":"k","key_env":"K"}]},`, nil, "http.open is for loopback addresses only"},
		"a key without a source":      {`"http":{"keys":[{"name":"k"}]},`, nil, "http.keys[0]: one of key_env and key_file is needed"},
		"a key with two":              {`"http":{"keys":[{"name":"k","key_env":"K","key_file":"/k"}]},`, nil, "one of key_env and key_file"},
		"a key without a name":        {`"http":{"keys":[{"key_env":"K"}]},`, nil, "http.keys[0].name must not be empty"},
		"two keys of one name":        {`"http":{"keys":[{"name":"k","key_env":"K"},{"name":"k","key_env":"L"}]},`, nil, `"k" is the name of an earlier key`},
		"an origin that is none":      {`"http":{"origins":["app.example"]},`, nil, "is not an origin"},
		"an origin with a path":       {`"http":{"origins":["https://app.example/"]},`, nil, "is not an origin"},
		"every origin of the web":     {`"http":{"origins":["https://*"]},`, nil, "a * stands only for"},
		"a part of an origin":         {`"http":{"origins":["https://*.example.com"]},`, nil, "a * stands only for"},
		"a part of an application":    {`"http":{"origins":["chrome-extension://a*"]},`, nil, "a * stands only for"},
		"a host with a port":          {`"http":{"hosts":["box:8080"]},`, nil, "has a port"},
		"listen of another type":      {`"http":{"listen":"127.0.0.1:1"},`, nil, "http.listen must be an array, not a string"},
		"keys for nothing":            {`"http":{"sock":false,"keys":[{"name":"k","key_env":"K"}]},`, nil, "HTTP is switched off"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, "{"+test.file+oneMock+"}", nil, test.args...)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}
