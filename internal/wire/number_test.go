package wire_test

import (
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

func TestInteger(t *testing.T) {
	for in, test := range map[string]struct {
		text string // "" means a decode error
		n    int    // -1 if Within refuses it
	}{
		"1":                    {"1", 1},
		"4294967295":           {"4294967295", 1<<32 - 1},
		"4294967296":           {"4294967296", -1},
		"0":                    {"0", -1},
		"-0":                   {"0", -1},
		"-1":                   {"-1", -1},
		"null":                 {"0", -1},
		"-9223372036854775809": {"-9223372036854775809", -1},
		"18446744073709551615": {"18446744073709551615", -1},
		"18446744073709551616": {"18446744073709551615", -1}, // the nearest number
		"1.0":                  {"", 0},
		"1e3":                  {"", 0},
		"\"1\"":                {"", 0},
		"true":                 {"", 0},
		"[1]":                  {"", 0},
	} {
		t.Run(in, func(t *testing.T) {
			var i wire.Integer
			if err := json.Unmarshal([]byte(in), &i); (err == nil) != (test.text != "") {
				t.Fatal(err)
			} else if err != nil {
				return
			}
			if out, err := json.Marshal(i); err != nil || string(out) != test.text {
				t.Errorf("written as %s, %v, want %s", out, err, test.text)
			}
			n, err := i.Within("n", 1)
			if test.n >= 0 && (err != nil || n != test.n) || test.n < 0 && infer.CodeOf(err) != infer.Invalid {
				t.Errorf("got %d, %v, want %d", n, err, test.n)
			}
		})
	}
	for n, want := range map[int]string{0: "0", 7: "7", -7: "-7"} {
		if got := wire.IntegerOf(n).String(); got != want {
			t.Errorf("%d is written as %s", n, got)
		}
	}
}

// A seed of 32 bits is used unchanged. The two halves of a longer seed are combined by XOR.
func TestSeed(t *testing.T) {
	for in, want := range map[string]uint32{
		"0": 0, "7": 7, "4294967295": 1<<32 - 1,
		"4294967296":           1,               // 1 << 32
		"4294967297":           0,               // both halves are 1
		"1796000000000":        418 ^ 703670272, // the time in milliseconds
		"9223372036854775807":  1 << 31,         // 7fffffff ^ ffffffff
		"18446744073709551615": 0,               // all bits set
		"-1":                   0,               // all bits set
		"-2":                   1,               // ffffffff ^ fffffffe
		"-9223372036854775808": 1 << 31,
	} {
		var i wire.Integer
		if err := json.Unmarshal([]byte(in), &i); err != nil {
			t.Fatal(err)
		}
		if got, err := i.Seed(); err != nil || got != want {
			t.Errorf("%s: got %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"18446744073709551616", "-9223372036854775809"} {
		var i wire.Integer
		if err := json.Unmarshal([]byte(in), &i); err != nil {
			t.Fatal(err)
		}
		if _, err := i.Seed(); infer.CodeOf(err) != infer.Invalid {
			t.Errorf("%s: %v", in, err)
		}
	}
}
