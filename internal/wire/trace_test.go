package wire_test

import (
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

func TestCheckTraceparent(t *testing.T) {
	const trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	const good = "00-" + trace + "-" + parent + "-01"
	for text, valid := range map[string]bool{
		"": true, good: true, good[:len(good)-2] + "00": true,
		"cc-" + good[3:]: true, "cc-" + good[3:] + "-more": true, // of later versions
		good + "-more": false, "ff-" + good[3:]: false, "cc-" + good[3:] + "more": false,
		strings.ToUpper(good): false, good[1:]: false, good + "\n": false, "00-" + trace + "-" + parent: false,
		"00-" + strings.Repeat("0", 32) + "-" + parent + "-01": false,
		"00-" + trace + "-" + strings.Repeat("0", 16) + "-01":  false,
		"cc-" + good[3:] + "-" + strings.Repeat("x", 128):      false,
	} {
		err := wire.CheckTraceparent(text)
		if (err == nil) != valid || err != nil && infer.CodeOf(err) != infer.Invalid {
			t.Errorf("%q: %v", text, err)
		}
	}
	if got := (&infer.Request{Traceparent: good}).TraceID() + (&infer.Request{}).TraceID(); got != trace {
		t.Errorf("TraceID = %s", got)
	}
}
