package config_test

import (
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/config"
	"github.com/inferd-go/inferd/internal/paths"
)

func TestLocate(t *testing.T) {
	beside := func(dir string) config.Sockets {
		return config.Sockets{
			Lock: dir + "/inferd.lock", Admin: dir + "/admin.sock", Control: dir + "/control.sock",
			V1: dir + "/infer.sock", V2: dir + "/infer.v2.sock", LP: dir + "/inferd.sock",
			Embed: dir + "/infer.embed.sock", Rerank: dir + "/infer.rerank.sock", HTTP: dir + "/http.sock",
		}
	}
	mine := beside("/x")
	mine.V1 = "/x/my.sock"
	linux := environment(map[string]string{"HOME": "/home/u"})
	windows := paths.Env{GOOS: "windows", Getenv: func(name string) string { return map[string]string{"LOCALAPPDATA": `C:\L`}[name] }}
	pipes := func(base string) config.Sockets {
		at := `\\.\pipe\` + base
		return config.Sockets{
			Lock: `C:\L\inferd\` + base + ".lock", Admin: at + "-admin", Control: at + "-control",
			V1: at + "-infer", V2: at + "-infer-v2", LP: at, Embed: at + "-infer-embed", Rerank: at + "-infer-rerank", HTTP: at + "-http",
		}
	}
	for name, test := range map[string]struct {
		env  paths.Env
		args []string
		want config.Sockets
	}{
		"nothing said":           {linux, nil, beside("/home/u/.inferd/run")},
		"the main socket":        {linux, []string{"--uds", "/x/my.sock"}, mine},
		"the newest main socket": {linux, []string{"--uds", "/x/inferd.sock"}, beside("/x")},
		"each by itself": {linux, []string{
			"--uds", "/x/a.sock", "--v1-addr", "/y/b", "--admin-addr", "/y/c", "--control-addr", "/y/d", "--lock", "/y/e",
			"--v2-addr", "/y/f", "--lp-addr", "/y/g", "--embed-addr", "/y/h", "--rerank-addr", "/y/i", "--http-addr", "/y/j",
		}, config.Sockets{
			V1: "/y/b", Admin: "/y/c", Control: "/y/d", Lock: "/y/e", V2: "/y/f", LP: "/y/g", Embed: "/y/h", Rerank: "/y/i", HTTP: "/y/j",
		}},
		"pipes":             {windows, nil, pipes("inferd")},
		"the main pipe":     {windows, []string{"--pipe", `\\.\pipe\mine`}, pipes("mine")},
		"a main pipe of v1": {windows, []string{"--pipe", `\\.\pipe\mine-infer`}, pipes("mine")},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := config.ParseFlags(test.args, test.env, kinds, io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			if got := config.Locate(&f, test.env); got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestTCP(t *testing.T) {
	const (
		rest  = `"backends":[{"kind":"mock","name":"m"}]}`
		plain = "{" + rest
		addr  = "127.0.0.1:4000"
	)
	key := map[string]string{"INFERD_API_KEY": "k", "OTHER": "o", "INFERD_V2_TCP": ""}
	for name, test := range map[string]struct {
		config string
		env    map[string]string
		args   []string
		want   config.TCP // without KeyVariables
		fails  string
		warns  int
	}{
		"none":                   {plain, nil, nil, config.TCP{}, "", 0},
		"a key alone":            {plain, key, nil, config.TCP{Key: "k"}, "", 0},
		"a flag":                 {plain, key, []string{"--tcp", addr}, config.TCP{V1: netip.MustParseAddrPort(addr), Key: "k"}, "", 0},
		"all of them":            {plain, key, []string{"--tcp", addr, "--v2-tcp", "[::1]:1", "--embed-tcp", "127.8.8.8:2"}, config.TCP{V1: netip.MustParseAddrPort(addr), V2: netip.MustParseAddrPort("[::1]:1"), Embed: netip.MustParseAddrPort("127.8.8.8:2"), Key: "k"}, "", 0},
		"the config":             {`{"listen":{"tcp":"127.0.0.1:1","tcp_v2":"127.0.0.1:2","tcp_embed":"127.0.0.1:3","api_key_env":"OTHER"},` + rest, map[string]string{"OTHER": "o"}, nil, config.TCP{V1: netip.MustParseAddrPort("127.0.0.1:1"), V2: netip.MustParseAddrPort("127.0.0.1:2"), Embed: netip.MustParseAddrPort("127.0.0.1:3"), Key: "o"}, "", 0},
		"flags beat the config":  {`{"listen":{"tcp":"127.0.0.1:1","api_key_env":"OTHER"},` + rest, key, []string{"--tcp", addr}, config.TCP{V1: netip.MustParseAddrPort(addr), Key: "k"}, "", 0},
		"a key as a flag":        {plain, nil, []string{"--tcp", addr, "--api-key", "f"}, config.TCP{V1: netip.MustParseAddrPort(addr), Key: "f"}, "", 1},
		"an empty key":           {plain, map[string]string{"INFERD_API_KEY": ""}, []string{"--tcp", addr}, config.TCP{}, "INFERD_API_KEY", 0},
		"no key":                 {plain, nil, []string{"--tcp", addr}, config.TCP{}, "--tcp-no-auth", 0},
		"no key, on purpose":     {plain, nil, []string{"--tcp", addr, "--tcp-no-auth"}, config.TCP{V1: netip.MustParseAddrPort(addr)}, "", 1},
		"not a loopback address": {plain, key, []string{"--tcp", "0.0.0.0:1"}, config.TCP{}, "not a loopback address", 0},
		"a name":                 {plain, key, []string{"--v2-tcp", "localhost:1"}, config.TCP{}, "bad tcp addr: --v2-tcp", 0},
		"no port":                {plain, key, []string{"--embed-tcp", "127.0.0.1"}, config.TCP{}, "bad tcp addr: --embed-tcp", 0},
		"a bad one in the file":  {`{"listen":{"tcp_v2":"x"},` + rest, key, nil, config.TCP{}, "bad tcp addr: listen.tcp_v2", 0},
		"switched off":           {plain, key, []string{"--tcp", addr, "--v1=false"}, config.TCP{}, "switched off", 0},
		"an unknown member":      {`{"listen":{"udp":"x"},` + rest, nil, nil, config.TCP{}, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.json")
			if err := os.WriteFile(path, []byte(test.config), 0o600); err != nil {
				t.Fatal(err)
			}
			env := environment(test.env)
			f, err := config.ParseFlags(append([]string{"--config", path}, test.args...), env, kinds, io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			c, err := config.Load(&f, env)
			if test.fails != "" {
				if err == nil || !strings.Contains(err.Error(), test.fails) {
					t.Errorf("got %v, want an error with %q", err, test.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.TCP.KeyVariables = nil; !reflect.DeepEqual(c.TCP, test.want) || len(c.Warnings) != test.warns {
				t.Errorf("got %+v, warnings %q, want %+v", c.TCP, c.Warnings, test.want)
			}
		})
	}
}
