package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestConfigVerb(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("INFERD_CONFIG", "")
	file := filepath.Join(home, ".inferd", "config.json")

	if got := ctl(t.Context(), "config", "check"); got.Code != 2 || !strings.Contains(got.Stderr, "no model is configured") {
		t.Errorf("without a file: %+v", got)
	}
	if got := ctl(t.Context(), "config", "init"); got.Code != 0 || got.Out != file+"\n" {
		t.Errorf("init: %+v", got)
	}
	written, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(written), "gemma-4-e4b") || !strings.Contains(string(written), "embeddinggemma-300m") {
		t.Errorf("%s, %v", written, err)
	}
	if got := ctl(t.Context(), "config", "check"); got.Code != 0 || got.Out != file+": ok, 2 entries\n" || !strings.Contains(got.Stderr, "warning: backends[0].mmproj has no effect") {
		t.Errorf("check: %+v", got)
	}
	if got := ctl(t.Context(), "config", "init"); got.Code != 2 || !strings.Contains(got.Stderr, "is there already, and was not changed") {
		t.Errorf("init again: %+v", got)
	}
	if again, err := os.ReadFile(file); err != nil || string(again) != string(written) {
		t.Errorf("the config file was changed: %s, %v", again, err)
	}
	if got := ctl(t.Context(), "config", "show"); got.Code != 0 || !strings.Contains(got.Out, `"queue_depth": 10`) || !strings.Contains(got.Out, `"source_url": "https://huggingface.co/`) {
		t.Errorf("show: %+v", got)
	}

	other := filepath.Join(home, "other.json")
	if got := ctl(t.Context(), "--config", other, "config", "init"); got.Code != 0 {
		t.Errorf("init of another file: %+v", got)
	}
	if err := os.WriteFile(other, []byte(`{"backends":[{"kind":"mock","name":"m"}],"colour":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := ctl(t.Context(), "config", "check", "--config", other); got.Code != 0 || !strings.Contains(got.Stderr, "other.json:1: unknown key colour") {
		t.Errorf("an unknown key: %+v", got)
	}
	if err := os.WriteFile(other, []byte("{\n\"verify\":\"x\",\"model\":\"a\"}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := ctl(t.Context(), "config", "check", "--config", other); got.Code != 2 || !strings.Contains(got.Stderr, `other.json:2: verify "x" is not known`) {
		t.Errorf("a bad word: %+v", got)
	}
	for _, args := range [][]string{{"config"}, {"config", "edit"}, {"config", "check", "x"}} {
		if got := ctl(t.Context(), args...); got.Code != 2 || !strings.Contains(got.Stderr, "config") {
			t.Errorf("%q: %+v", args, got)
		}
	}
}

// doctor looks up models by name in the store. A missing model is a failure only if the daemon does
// not pull it.
func TestDoctorNamedModel(t *testing.T) {
	hub, _ := hubFor(t)
	addRepo(hub, gguf(1000, 3))
	file := filepath.Join(t.TempDir(), "config.json")
	for _, pull := range []string{"true", "false"} {
		if err := os.WriteFile(file, []byte(`{"auto_pull":`+pull+`,"backends":[{"kind":"llamacpp","name":"g","model":"hf:O/R"}]}`), 0o600); err != nil {
			t.Fatal(err)
		}
		want := "[ ok ] model[g]: hf:O/R is not in the model store yet: the daemon pulls it"
		if pull == "false" {
			want = "[FAIL] model[g]: hf:O/R is not in the model store, and auto_pull is false: run inferdctl pull hf:O/R"
		}
		if got := ctl(t.Context(), "--config", file, "doctor"); !strings.Contains(got.Out, want) {
			t.Errorf("%+v, want %s", got, want)
		}
	}
	if got := ctl(t.Context(), "--config", file, "pull"); got.Code != 0 {
		t.Fatalf("%+v", got)
	}
	if got := ctl(t.Context(), "--config", file, "doctor"); !strings.Contains(got.Out, "[ ok ] model[g]: m-q4_k_m in ") {
		t.Errorf("%+v", got)
	}
}
