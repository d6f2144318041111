package config

import (
	"errors"
	"fmt"
	"net/netip"
)

// TCP says which surfaces listen on loopback addresses as well, and who may come in there:
// every process of the machine can connect, and the kernel does not tell whose it is.
type TCP struct {
	V1, V2, Embed netip.AddrPort // the zero value is not at all
	// Key is what a client has to show first; empty lets everybody in.
	Key string
	// KeyVariables are those of the environment that may hold the key.
	KeyVariables []string
}

// apiKeyVariable is that of --api-key.
const apiKeyVariable = "INFERD_API_KEY" //nolint:gosec // a name, not a key

// tcp reads the addresses and the key, from the flags and what the config file says.
func (c *Config) tcp(file *fileListen, f *Flags, getenv func(string) string) error {
	var said fileListen
	if file != nil {
		said = *file
	}
	c.TCP.Key, c.TCP.KeyVariables = f.APIKey, []string{apiKeyVariable}
	if said.APIKeyEnv != "" {
		c.TCP.KeyVariables = append(c.TCP.KeyVariables, said.APIKeyEnv)
		if c.TCP.Key == "" {
			c.TCP.Key = getenv(said.APIKeyEnv)
		}
	}
	if f.Given("api-key") && f.APIKey != "" && f.APIKey != getenv(apiKeyVariable) {
		c.Warnings = append(c.Warnings, "--api-key can be read by every user of this machine: use "+apiKeyVariable)
	}
	listens := false
	for _, at := range []struct {
		flag, value, key, fallback, surface string
		wanted                              bool
		to                                  *netip.AddrPort
	}{
		{"--tcp", f.TCPAddr, "listen.tcp", said.TCP, "v1", c.Surfaces.V1, &c.TCP.V1},
		{"--v2-tcp", f.V2TCPAddr, "listen.tcp_v2", said.TCPV2, "v2", c.Surfaces.V2, &c.TCP.V2},
		{"--embed-tcp", f.EmbedTCPAddr, "listen.tcp_embed", said.TCPEmbed, "embed", c.Surfaces.Embed, &c.TCP.Embed},
	} {
		name, value := at.flag, at.value
		if value == "" {
			name, value = at.key, at.fallback
		}
		if value == "" {
			continue
		}
		addr, err := netip.ParseAddrPort(value)
		switch {
		case err != nil:
			return fmt.Errorf("bad tcp addr: %s %q: want an address and a port, such as 127.0.0.1:47321", name, value)
		case !addr.Addr().Unmap().IsLoopback():
			return fmt.Errorf("%s %s is not a loopback address: nobody from outside of this machine may come in", name, value)
		case !at.wanted:
			return fmt.Errorf("%s: the surface %s is switched off", name, at.surface)
		}
		*at.to = addr
		listens = true
	}
	switch {
	case listens && c.TCP.Key == "" && !f.TCPNoAuth:
		return errors.New("TCP needs a key, for every user of this machine can connect: set " + apiKeyVariable + ", or name a variable in listen.api_key_env, or let everybody in with --tcp-no-auth")
	case listens && c.TCP.Key == "":
		c.Warnings = append(c.Warnings, "--tcp-no-auth: every user of this machine may come in, and all of them are one caller")
	}
	return nil
}
