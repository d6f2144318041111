package engine

import (
	"strings"
	"testing"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/budget"
)

// The error of a slow rendering names the limit that applies, the default or another one.
func TestSlowTemplateNamesTheLimit(t *testing.T) {
	for limit, want := range map[time.Duration]string{0: "more than 5 s of", 1500 * time.Millisecond: "more than 1.5 s of"} {
		if err := errSlowTemplate(&budget.CPU{Limit: limit}); !strings.Contains(err.Error(), want) {
			t.Errorf("a limit of %v: %v, want %q in it", limit, err, want)
		}
	}
}
