package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Without cargo the command prints one line and succeeds.
func TestReferenceWithoutCargo(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	var out strings.Builder
	if err := runReference(nil, &out); err != nil || strings.Count(out.String(), "\n") != 1 || !strings.Contains(out.String(), "cargo is missing") {
		t.Errorf("%q, %v", out.String(), err)
	}
}

// A rival can be measured: inferd accepts the command line of the reference.
func TestRival(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds and runs a daemon")
	}
	dir := t.TempDir()
	if text, err := exec.Command("go", "build", "-o", dir, "../cmd/inferd").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, text)
	}
	l, err := rival{"inferd", dir + "/inferd"}.measure(t.Context(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range rivalFigures {
		if v := f.value(l); v <= 0 && !strings.Contains(f.name, "wake-ups") {
			t.Errorf("%s: %v", f.name, v)
		}
	}
	if _, err := (rival{"none", os.DevNull}).measure(t.Context(), time.Millisecond); err == nil {
		t.Error("a program that does not start is measured")
	}
}
