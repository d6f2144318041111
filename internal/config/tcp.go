package config

import (
	"errors"
	"fmt"
	"net/netip"
)

// TCP holds the loopback addresses of surfaces, and the key of their clients. A key is needed
// because every process of the machine can connect, and the kernel does not report its user.
type TCP struct {
	V1, V2, Embed netip.AddrPort // the zero value: none
	// A client must send Key first. If Key is empty, every client is accepted.
	Key string
	// KeyVariables are the variables of the environment that may hold the key.
	KeyVariables []string
}

// apiKeyVariable is the variable of --api-key.
const apiKeyVariable = "INFERD_API_KEY" //nolint:gosec // a name, not a key

// tcp checks the addresses of f, finds the key, and sets c.TCP.
func (c *Config) tcp(f *Flags, getenv func(string) string) error {
	c.TCP.Key, c.TCP.KeyVariables = f.APIKey, []string{apiKeyVariable}
	if f.APIKeyEnv != "" {
		c.TCP.KeyVariables = append(c.TCP.KeyVariables, f.APIKeyEnv)
		if c.TCP.Key == "" {
			c.TCP.Key = getenv(f.APIKeyEnv)
		}
	}
	if f.IsSet("api-key") && f.APIKey != "" && f.APIKey != getenv(apiKeyVariable) {
		c.Warnings = append(c.Warnings, "--api-key can be read by every user of this machine: use "+apiKeyVariable)
	}
	listens := false
	for _, at := range []struct {
		flag, key, value, surface string
		wanted                    bool
		to                        *netip.AddrPort
	}{
		{"tcp", "listen.tcp", f.TCPAddr, "v1", c.Surfaces.V1, &c.TCP.V1},
		{"v2-tcp", "listen.tcp_v2", f.V2TCPAddr, "v2", c.Surfaces.V2, &c.TCP.V2},
		{"embed-tcp", "listen.tcp_embed", f.EmbedTCPAddr, "embed", c.Surfaces.Embed, &c.TCP.Embed},
	} {
		name, value := at.key, at.value
		if f.IsSet(at.flag) {
			name = "--" + at.flag
		}
		if value == "" {
			continue
		}
		addr, err := netip.ParseAddrPort(value)
		switch {
		case err != nil:
			return fmt.Errorf("bad tcp addr: %s %q: want an address and a port, such as 127.0.0.1:47321", name, value)
		case !addr.Addr().Unmap().IsLoopback():
			return fmt.Errorf("%s %s is not a loopback address: clients of other machines are not served", name, value)
		case !at.wanted:
			return fmt.Errorf("%s: the surface %s is switched off", name, at.surface)
		}
		*at.to = addr
		listens = true
	}
	switch {
	case listens && c.TCP.Key == "" && !f.TCPNoAuth:
		return errors.New("TCP requires a key: any local user can connect. Set " + apiKeyVariable + ", or name a variable in listen.api_key_env, or accept every user with --tcp-no-auth")
	case listens && c.TCP.Key == "":
		c.Warnings = append(c.Warnings, "--tcp-no-auth: every user of this machine is accepted, and all of them are one caller")
	}
	return nil
}
