package speech

import (
	"strings"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
)

const whiteSpace = " \t\r\n"

// spellsMember reports whether a member's name that is written without quotes is read back unchanged.
func (s *Speech) spellsMember(name string) bool {
	p := &s.Dialect.Calls.Param
	switch s.Dialect.Shape {
	case dialect.Params:
		for _, middle := range []string{p.Middle, p.MiddleJSON} {
			if read, _ := s.cutParam(name + middle); middle != "" && read != name {
				return false
			}
		}
	case dialect.Python:
		return !strings.Contains(name, p.Middle) && (!p.Raw || !strings.Contains(name, p.Quote))
	case dialect.Literal:
		loose := p.Separator != strings.TrimSpace(p.Separator)
		return !strings.Contains(name, ":") && !strings.HasPrefix(name, "}") && (!loose || name == strings.TrimSpace(name))
	case dialect.NoCalls, dialect.Object, dialect.Array, dialect.Named:
	}
	return true
}
