package trust

import "testing"

func TestRootOf(t *testing.T) {
	for name, test := range map[string]struct {
		ids  string
		want uint32
	}{
		"no namespace":                {"         0          0 4294967295\n", 0},
		"root is this user":           {"         0       1000          1\n", 0},
		"this user alone":             {"      1000       1000          1\n", 65534},
		"this user and a range":       {"      1000          0          1\n         0     100000       1000\n", 0},
		"nothing is known":            {"", 0},
		"a range that begins above 0": {"       100     100000      65536\n", 65534},
	} {
		t.Run(name, func(t *testing.T) {
			if got := rootOf(test.ids, "65534\n"); got != test.want {
				t.Errorf("root is %d, want %d", got, test.want)
			}
		})
	}
}
