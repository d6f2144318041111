package bridge

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/trust"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// Access holds the rules for clients. Over a Unix socket the permissions of the socket's file
// decide. Over TCP the daemon's own user and the members of Group need no key.
type Access struct {
	Keys  []*Key
	Open  bool   // if set, clients of this machine need no key
	UID   int    // the daemon's user
	Group string // its members, except root, need no key; empty means none
	// Blind means that this system cannot identify TCP clients. In that case keys decide, or
	// without keys all clients of this machine are admitted.
	Blind bool

	members memberships
}

// Limits of keys.
const (
	minKey     = 16 // bytes
	maxKeyName = 32 // bytes
	maxKeyFile = 4 << 10
)

// A Key admits clients. In the fair queue, each key counts as a program of its client's user. Use
// [NewKey] or [NewKeyFile].
type Key struct {
	Name string

	file string // empty if the key does not change

	mu       sync.Mutex // guards the fields below
	sum      [sha256.Size]byte
	modified time.Time // modification time of the file when it was read
	size     int64     // size of the file at that time
}

// NewKey returns a key that does not change. It returns an error if the name is invalid or the
// secret too short.
func NewKey(name, secret string) (*Key, error) {
	k := &Key{Name: name}
	if err := errors.Join(checkKeyName(name), k.set(secret)); err != nil {
		return nil, err
	}
	return k, nil
}

// NewKeyFile returns a key that is read from a file, and read again when the file changes. It
// returns an error if the name or the key is invalid, if the file cannot be read, or if users other
// than the daemon's can read or change it.
func NewKeyFile(name, path string) (*Key, error) {
	k := &Key{Name: name, file: path}
	if err := errors.Join(checkKeyName(name), k.refresh()); err != nil {
		return nil, err
	}
	return k, nil
}

func checkKeyName(name string) error {
	if name == "" || len(name) > maxKeyName {
		return fmt.Errorf("the name of a key must have 1 to %d bytes, this one has %d", maxKeyName, len(name))
	}
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r)
	}
	if strings.ContainsFunc(name, func(r rune) bool { return !plain(r) }) {
		return fmt.Errorf("the name of a key must have letters, digits, dots, underscores and hyphens only, not %q", name)
	}
	if name == "http" || name == "tcp" { // programs of peers without a key
		return fmt.Errorf("the name %q of a key is reserved", name)
	}
	return nil
}

func (k *Key) set(secret string) error {
	if len(secret) < minKey {
		return fmt.Errorf("key %s: it must have at least %d characters", k.Name, minKey)
	}
	k.sum = sha256.Sum256([]byte(secret))
	return nil
}

// refresh reads the file of the key if it has changed. It returns an error if the file cannot be
// used.
func (k *Key) refresh() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.file == "" {
		return nil
	}
	info, err := os.Stat(k.file)
	switch {
	case err != nil:
		return fmt.Errorf("key %s: %w", k.Name, err)
	case !private(info): // the mode may have changed, but not the content
		return fmt.Errorf("key %s: %s can be read by other users: chmod 600", k.Name, k.file)
	case info.ModTime().Equal(k.modified) && info.Size() == k.size:
		return nil
	}
	secret, err := readKey(k.file)
	if err == nil {
		err = k.set(secret)
	}
	if err != nil {
		return fmt.Errorf("key %s: %w", k.Name, err)
	}
	k.modified, k.size = info.ModTime(), info.Size()
	return nil
}

// readKey returns the secret in a file. It returns an error if the file is large, or if users other
// than the daemon's can read or change it.
func readKey(path string) (string, error) {
	if err := trust.Path(path); err != nil {
		return "", err
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "", err
	case !info.Mode().IsRegular() || info.Size() > maxKeyFile:
		return "", fmt.Errorf("%s is not a small file", path)
	case !private(info):
		return "", fmt.Errorf("%s can be read by other users: chmod 600", path)
	}
	data, err := os.ReadFile(path)
	return strings.TrimSpace(string(data)), err
}

// Distinct returns an error if two keys have the same secret, because the second key would never be
// found.
func Distinct(keys []*Key) error {
	names := make(map[[sha256.Size]byte]string, len(keys))
	for _, k := range keys {
		k.mu.Lock()
		sum := k.sum
		k.mu.Unlock()
		if first, taken := names[sum]; taken {
			return fmt.Errorf("the keys %s and %s have the same secret: a client can have only one name", first, k.Name)
		}
		names[sum] = k.Name
	}
	return nil
}

// matches reports whether sum is the hash of the key's secret. The comparison takes a constant
// time. It reports false if the file of the key can no longer be used.
func (k *Key) matches(sum [sha256.Size]byte) bool {
	if k.refresh() != nil {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return subtle.ConstantTimeCompare(sum[:], k.sum[:]) == 1
}

// secrets returns the secrets in the headers of a request: the bearer token and the value of
// X-Api-Key.
func secrets(h http.Header) (all []string) {
	if scheme, token, ok := strings.Cut(h.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		all = append(all, strings.TrimSpace(token))
	}
	if key := h.Get("X-Api-Key"); key != "" {
		all = append(all, key)
	}
	return all
}

// find returns the name of the configured key that a request contains, or an empty name. given
// reports whether the request has any secret. find always compares with all keys.
func (a *Access) find(h http.Header) (name string, given bool) {
	for _, secret := range secrets(h) {
		given = true
		sum := sha256.Sum256([]byte(secret))
		for _, k := range a.Keys {
			if k.matches(sum) && name == "" {
				name = k.Name
			}
		}
	}
	return name, given
}

// forwarders are headers that only proxies add to a request, in addition to X-Forwarded-*.
var forwarders = []string{"Forwarded", "X-Real-Ip", "Via"}

func forwarded(h http.Header) bool {
	for name := range h {
		if slices.Contains(forwarders, name) || strings.HasPrefix(name, "X-Forwarded-") {
			return true
		}
	}
	return false
}

// admit returns the identity of the client of a request, or the error that refuses the client. peer
// is the client as the kernel reports it; local means that it is on this machine.
func (a *Access) admit(peer infer.Peer, local bool, h http.Header) (infer.Peer, error) {
	peer.Relayed = forwarded(h) // the peer is a proxy, and the client behind it is unknown
	name, given := a.find(h)
	switch {
	case name != "":
		peer.Key, peer.Program = name, name
		return peer, nil
	case given && len(a.Keys) > 0:
		f := web.Refused(http.StatusUnauthorized, web.WrongKey, "this key is not among http.keys")
		return peer, f
	case fileDecides(peer) || local && (a.Open || a.Blind && len(a.Keys) == 0) || a.needsNoKey(peer.Owner()):
		return peer, nil
	}
	who := "of an unknown user"
	if uid := peer.Owner(); uid != "" {
		who = "of user " + uid
	}
	return peer, web.Refused(http.StatusForbidden, "", "a client %s needs a key: see http.keys, or http.open, in the daemon's config", who)
}

// fileDecides reports whether the permissions of a file have admitted the client. A peer with
// another transport, or none, is treated like a TCP client.
func fileDecides(peer infer.Peer) bool {
	return peer.Transport == infer.Unix || peer.Transport == infer.Pipe
}

// needsNoKey reports whether a user needs no key. Root needs a key unless the daemon runs as root,
// because programs that pass on requests of other users often run as root.
func (a *Access) needsNoKey(uid string) bool {
	if uid == "" {
		return false
	}
	return uid == strconv.Itoa(a.UID) || a.Group != "" && uid != "0" && a.members.has(uid, a.Group)
}

// memberships caches whether users belong to a group.
type memberships struct {
	mu   sync.Mutex // guards user
	user map[string]membership
}

type membership struct {
	member bool
	until  time.Time
}

const (
	rememberMember = time.Minute
	maxMembers     = 1024
)

func (m *memberships) has(uid, group string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if known, ok := m.user[uid]; ok && now.Before(known.until) {
		return known.member
	}
	if m.user == nil || len(m.user) >= maxMembers {
		m.user = make(map[string]membership)
	}
	member := isMember(uid, group)
	m.user[uid] = membership{member, now.Add(rememberMember)}
	return member
}

// isMember reports whether a user belongs to a group, according to the user database of the system.
// It reports false if the user or the group is unknown.
func isMember(uid, group string) bool {
	g, err := user.LookupGroup(group)
	if err != nil {
		return false
	}
	u, err := user.LookupId(uid)
	if err != nil {
		return false
	}
	if u.Gid == g.Gid {
		return true
	}
	ids, err := u.GroupIds()
	return err == nil && slices.Contains(ids, g.Gid)
}
