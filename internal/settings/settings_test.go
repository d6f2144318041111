package settings_test

import (
	"flag"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/internal/settings"
)

// values has a field for each type that Setting.At may point to.
type values struct {
	name    string
	pooling settings.Word
	hosts   settings.Words
	on      bool
	slots   int
	layers  int
	wait    time.Duration
}

var rows = []settings.Setting[values]{
	{Flag: "name", Key: "name", Help: "a `name`", At: func(v *values) any { return &v.name }},
	{Flag: "pooling", Key: "pooling", At: func(v *values) any { return &v.pooling }},
	{Flag: "host", Key: "hosts", At: func(v *values) any { return &v.hosts }},
	{Flag: "on", Key: "on", At: func(v *values) any { return &v.on }},
	{Flag: "slots", Key: "slots", Least: 1, Most: 64, At: func(v *values) any { return &v.slots }},
	{Flag: "layers", Key: "layers", Least: -1, At: func(v *values) any { return &v.layers }},
	{Flag: "wait-secs", Key: "wait_secs", Most: 3600, Unit: time.Second, At: func(v *values) any { return &v.wait }},
	{Key: "only.in_file", At: func(v *values) any { return &v.on }},
}

// parsed returns defaults, changed by the flags of a command line.
func parsed(defaults values, args ...string) (values, error) {
	fs := flag.NewFlagSet("test", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	table := settings.Of(rows, &defaults)
	table.Define(fs)
	if err := fs.Parse(settings.JoinValues(fs, args)); err != nil {
		return defaults, err
	}
	return defaults, table.Check()
}

func TestFlags(t *testing.T) {
	defaults := values{name: "x", slots: 4, wait: 8 * time.Second}
	for name, test := range map[string]struct {
		args []string
		want values
		err  string
	}{
		"none":                  {nil, defaults, ""},
		"every type":            {[]string{"--name", "y", "--pooling", "2", "--on", "--slots=64", "--layers", "-1", "--wait-secs", "0"}, values{name: "y", pooling: "2", on: true, slots: 64, layers: -1}, ""},
		"words with a value":    {[]string{"--host", "a, b,,c"}, values{name: "x", hosts: settings.Words{"a", "b", "c"}, slots: 4, wait: defaults.wait}, ""},
		"words, repeated":       {[]string{"--host=a", "--host=b"}, values{name: "x", hosts: settings.Words{"a", "b"}, slots: 4, wait: defaults.wait}, ""},
		"words without a value": {[]string{"--host", "--on"}, values{name: "x", hosts: settings.Words{settings.Bare}, on: true, slots: 4, wait: defaults.wait}, ""},
		"a value like a flag":   {[]string{"--name", "-on"}, values{name: "-on", slots: 4, wait: defaults.wait}, ""},
		"0 means the default":   {[]string{"--slots", "0"}, values{name: "x", wait: defaults.wait}, ""},
		"too many":              {[]string{"--slots", "65"}, values{}, "--slots 65 is out of range: it must be at most 64"},
		"too few":               {[]string{"--layers", "-2"}, values{}, "--layers -2 is out of range: it must be at least -1"},
		"too long":              {[]string{"--wait-secs", "3601"}, values{}, "--wait-secs 3601 is out of range: it must be at most 3600"},
		"below zero":            {[]string{"--wait-secs", "-1"}, values{}, "it must be at least 0"},
		"a fraction":            {[]string{"--wait-secs", "1.5"}, values{}, "invalid value"},
		"a time that overflows": {[]string{"--wait-secs", "9223372037"}, values{}, "value out of range"},
		"no such flag":          {[]string{"--nome", "x"}, values{}, "not defined"},
		"not a boolean":         {[]string{"--on=perhaps"}, values{}, "invalid boolean"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parsed(defaults, test.args...)
			switch {
			case test.err != "":
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("error %v, want %q", err, test.err)
				}
			case err != nil || !reflect.DeepEqual(got, test.want):
				t.Errorf("got %+v, %v, want %+v", got, err, test.want)
			}
		})
	}
}

// A flag of words takes the next argument as its value only if that is not a flag.
func TestJoinValues(t *testing.T) {
	fs := flag.NewFlagSet("test", flag.ContinueOnError)
	var v values
	settings.Of(rows, &v).Define(fs)
	for args, want := range map[string]string{
		"--host a --on":     "--host=a --on",
		"-host a b":         "-host=a b",
		"--host --on":       "--host --on",
		"--host":            "--host",
		"--name --host x":   "--name --host x", // the value of name
		"--on --host x":     "--on --host=x",
		"--other x --host":  "--other x --host",
		"-- --host x":       "-- --host x",
		"--host=a b":        "--host=a b",
		"word --host -- -x": "word --host -- -x",
	} {
		if got := strings.Join(settings.JoinValues(fs, strings.Fields(args)), " "); got != want {
			t.Errorf("%q becomes %q, want %q", args, got, want)
		}
	}
}

// file writes a config file with that text and opens it.
func file(t *testing.T, text string) (*settings.Document, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return settings.Open(path)
}

func TestRead(t *testing.T) {
	doc, err := file(t, `{"name":"é","pooling":2,"hosts":["a","b"],"on":true,"slots":3,"layers":-1,"wait_secs":90,"in_file":null}`)
	if err != nil {
		t.Fatal(err)
	}
	var v values
	table := settings.Of(rows, &v)
	table.Read(doc.Root)
	want := values{name: "é", pooling: "2", hosts: settings.Words{"a", "b"}, on: true, slots: 3, layers: -1, wait: 90 * time.Second}
	if !reflect.DeepEqual(v, want) || doc.Err() != nil || doc.Unknown() != nil {
		t.Errorf("got %+v, %v, %q", v, doc.Err(), doc.Unknown())
	}
	// Members returns the values that were read, as the file has them.
	members := map[string]any{"name": "é", "pooling": "2", "hosts": []string{"a", "b"}, "on": true, "slots": 3, "layers": -1, "wait_secs": 90, "only.in_file": true}
	if diff := cmp.Diff(members, table.Members()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]any{"on": false, "layers": 0, "wait_secs": 0, "only.in_file": false}, settings.Of(rows, &values{}).Members()); diff != "" {
		t.Errorf("of the defaults: %s", diff)
	}
	var spelt []string
	for _, r := range table.Rows() {
		spelt = append(spelt, r.Flag+"="+r.Value)
	}
	if got, want := strings.Join(spelt, " "), "name=é pooling= host=a,b on=true slots=3 layers=-1 wait-secs=90 =true"; got != want {
		t.Errorf("rows %q, want %q", got, want)
	}
}

// A mistake is reported with its line and position. Of several mistakes, only the first that is found
// is reported.
func TestMistakes(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"a number for a name":        {`{"name":7}`, `:1: name must be a string, not a number`},
		"a word for a boolean":       {"{\n\"on\":\"yes\"}", `:2: on must be true or false, not a string`},
		"a list for a word":          {`{"pooling":[]}`, `:1: pooling must be a string or a number, not an array`},
		"a name for a list":          {`{"hosts":"a"}`, `:1: hosts must be an array, not a string`},
		"a number in a list":         {"{\"hosts\":[\"a\",\n7]}", `:2: hosts[1] must be a string, not a number`},
		"a fraction":                 {`{"slots":1.5}`, `:1: slots must be a whole number, not 1.5`},
		"an exponent":                {`{"slots":1e1}`, `:1: slots must be a whole number, not 1e1`},
		"too many":                   {"\n\n{\"slots\":65}", `:3: slots must be at most 64`},
		"too few":                    {`{"slots":0}`, `:1: slots must be at least 1`},
		"a number beyond 64 bits":    {`{"layers":99999999999999999999}`, `:1: layers must be at most 1073741824`},
		"a number below 64 bits":     {`{"layers":-99999999999999999999}`, `:1: layers must be at least -1`},
		"an object for a number":     {`{"wait_secs":{}}`, `:1: wait_secs must be a number, not an object`},
		"the first of two":           {"{\"slots\":0,\n\"name\":7}", `:2: name must be a string`}, // in the order of the rows
		"empty":                      {" \n", `is empty: it must hold a JSON object`},
		"a list":                     {`[]`, `:1: the file must hold a JSON object, this is an array`},
		"cut":                        {"{\"name\":\n\"x\"", `config.json`},
		"a member twice":             {"{\"name\":\"x\",\n\"name\":\"y\"}", `:2: `},
		"a comment":                  {"{ // x\n}", `config.json:1`},
		"a comma at the end":         {"{\"name\":\"x\",\n}", `:2`},
		"text that is not UTF-8":     {"{\"name\":\"\xff\"}", `config.json:1`},
		"half of a surrogate":        {`{"name":"\ud800"}`, `config.json:1`},
		"more than a mebibyte":       {`{"name":"` + strings.Repeat("x", 1<<20) + `"}`, `has more than 1048576 bytes`},
		"something after the object": {"{}\n{}", `config.json:2`},
	} {
		t.Run(name, func(t *testing.T) {
			doc, err := file(t, test.text)
			if err == nil {
				settings.Of(rows, &values{}).Read(doc.Root)
				err = doc.Err()
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

// A member with a mistake does not change the default.
func TestMistakeLeavesTheDefault(t *testing.T) {
	doc, err := file(t, `{"name":7,"slots":65,"on":1,"wait_secs":-1,"pooling":true,"hosts":{}}`)
	if err != nil {
		t.Fatal(err)
	}
	defaults := values{name: "x", slots: 4, on: true, wait: time.Second, pooling: "mean"}
	v := defaults
	settings.Of(rows, &v).Read(doc.Root)
	if v.hosts = nil; !reflect.DeepEqual(v, defaults) {
		t.Errorf("got %+v, want %+v", v, defaults)
	}
}

// Members that were not taken are found at any depth, in order, with their lines.
func TestUnknownMembers(t *testing.T) {
	doc, err := file(t, `{
		"a": 1, "inner": {"b": 2, "deep": {"c": 3}},
		"list": [{"d": 4}, null,
			{"e": 5}],
		"none": null, "foreign": {"f": 6}, "known": "x"}`)
	if err != nil {
		t.Fatal(err)
	}
	inner := doc.Root.Child("inner")
	inner.Child("deep")
	var known string
	doc.Root.Text("known", &known)
	all := doc.Root.Children("list")
	if len(all) != 3 || all[2].Key("e") != "list[2].e" || all[1].Has("d") || known != "x" {
		t.Fatalf("%d elements, %q", len(all), known)
	}
	doc.Root.Child("foreign").Ignore()
	var got []string
	for _, warning := range doc.Unknown() {
		got = append(got, warning[strings.Index(warning, "config.json:")+len("config.json:"):])
	}
	want := []string{"2: unknown key a", "2: unknown key inner.b", "2: unknown key inner.deep.c", "3: unknown key list[0].d", "4: unknown key list[2].e"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestChildren(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"an object":          {`{"list":{}}`, `list must be an array, not an object`},
		"a word in the list": {`{"list":[{},"x"]}`, `list[1] must be an object, not a string`},
		"no object":          {`{"inner":[]}`, `inner must be an object, not an array`},
	} {
		doc, err := file(t, test.text)
		if err != nil {
			t.Fatal(err)
		}
		doc.Root.Children("list")
		doc.Root.Child("inner")
		if err := doc.Err(); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

// PeekText, HasText and Has do not take the member. The first error of a document is kept, with the
// position of an element.
func TestPeek(t *testing.T) {
	doc, err := file(t, `{"word":"a\u00e9","number":1,"none":null}`)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"word": "aé", "number": "", "none": "", "absent": ""} {
		if got := doc.Root.PeekText(name); got != want || doc.Root.HasText(name) != (want != "") {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if !doc.Root.Has("number") || doc.Root.Has("none") || doc.Root.Has("absent") {
		t.Error("a null is there, or a number is not")
	}
	var word string
	if doc.Root.Text("word", &word); word != "aé" || doc.Root.Has("word") || doc.Root.Take("word") != nil {
		t.Errorf("taken: %q", word)
	}
	doc.Root.FailElementf("word", 3, "is wrong")
	doc.Root.Failf("", ": and more")
	if err := doc.Err(); err == nil || !strings.HasSuffix(err.Error(), ":1: word[3] is wrong") {
		t.Errorf("%v", err)
	}
}

// A missing file is not an error; a folder is.
func TestOpen(t *testing.T) {
	dir := t.TempDir()
	if doc, err := settings.Open(filepath.Join(dir, "none")); doc != nil || err != nil {
		t.Errorf("a missing file: %v, %v", doc, err)
	}
	if _, err := settings.Open(dir); err == nil {
		t.Error("a folder is opened")
	}
}
