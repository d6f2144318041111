package dialect_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
)

func TestSpaced(t *testing.T) {
	for source, want := range map[string]string{
		`{"a":1,"b":[1,2,{"c":null}]}`:        `{"a": 1, "b": [1, 2, {"c": null}]}`,
		"{ \"a\" :\n1.50 , \"b\": \"x,y:z\"}": `{"a": 1.50, "b": "x,y:z"}`,
		`{"a":"\",:\\","b":"<&>"}`:            `{"a": "\",:\\", "b": "<&>"}`,
		`[]`:                                  `[]`,
		`{"a":`:                               `{"a":`,
	} {
		if got := dialect.Spaced(source); got != want {
			t.Errorf("%s: got %s, want %s", source, got, want)
		}
	}
}

// Write escapes letters beyond ASCII in arguments that are JSON exactly if the template does so.
func TestSpacedASCII(t *testing.T) {
	for ascii, want := range map[bool]string{false: `{"é": "a🙂\\\u00ea"}`, true: `{"\u00e9": "a\ud83d\ude42\\\u00ea"}`} {
		d := dialect.Generic()
		d.Calls.Space = &dialect.Space{JSON: true, Comma: " ", Colon: " ", ASCII: ascii}
		all, err := d.Write([]dialect.Call{{Name: "f", Arguments: `{"é":"a🙂\\\u00ea"}`}})
		if err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		for _, f := range all {
			got.WriteString(f.Text)
		}
		if !strings.Contains(got.String(), want) {
			t.Errorf("ascii %v: got %s, want %s", ascii, got.String(), want)
		}
	}
}

func TestTextValues(t *testing.T) {
	got, err := dialect.TextValues(`{"s":"a\"<b>","t":true,"z":null,"n":1.50,"o":{"k":["x",1]}}`)
	if want := `{"s": "a\"<b>", "t": "true", "z": "null", "n": "1.50", "o": "{\"k\": [\"x\", 1]}"}`; err != nil || got != want || !json.Valid([]byte(got)) {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	if _, err := dialect.TextValues(`[1]`); err == nil {
		t.Error("a list is taken")
	}
}

func TestIDOf(t *testing.T) {
	for _, test := range []struct {
		alphabet string
		n        int
		want     string
	}{
		{dialect.Nine, 1, "tc0000001"},
		{dialect.Nine, 9_999_999, "tc9999999"},
		{dialect.Nine, 10_000_000, ""},
		{dialect.AnyLength, 12, "tc-12"},
	} {
		if got := dialect.IDOf(test.alphabet, test.n); got != test.want {
			t.Errorf("%s, %d: got %q", test.alphabet, test.n, got)
		}
	}
}
