package admin_test

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/status"
	"github.com/inferd-go/inferd/internal/wire/admin"
)

// goldens are exact frames. Frames about the lifecycle that the reference daemon sends, too, have
// no backend here, because that daemon sends none.
var goldens = map[string]struct {
	ev   status.Event
	want string
}{
	"starting": {
		status.Starting{},
		`{"id":"admin","status":"starting","type":"status"}`,
	},
	"looks for the model": {
		status.Loading{Phase: status.CheckingLocal{Path: "/home/u/.local/share/models/blobs/sha256/30/30d1/data"}},
		`{"id":"admin","path":"/home/u/.local/share/models/blobs/sha256/30/30d1/data","phase":"checking_local","status":"loading_model","type":"status"}`,
	},
	"a mock has a pseudo-path": {
		status.Loading{Phase: status.CheckingLocal{Path: "(mock)"}},
		`{"id":"admin","path":"(mock)","phase":"checking_local","status":"loading_model","type":"status"}`,
	},
	"downloads": {
		status.Loading{Phase: status.Download{Done: 33554432, Total: 5126304928, URL: "https://models.example/x.gguf?a=1&b=<2>"}},
		`{"downloaded_bytes":33554432,"id":"admin","phase":"download","source_url":"https://models.example/x.gguf?a=1&b=<2>","status":"loading_model","total_bytes":5126304928,"type":"status"}`,
	},
	"downloads a part of a split model, resumed": {
		status.Loading{Backend: "gen", Phase: status.Download{Done: 10, Total: 100, URL: "https://h/x.gguf", Name: "x", Resumed: 5, Part: 2, Parts: 3}},
		`{"backend":"gen","downloaded_bytes":10,"id":"admin","name":"x","part":2,"parts":3,"phase":"download","resumed_bytes":5,"source_url":"https://h/x.gguf","status":"loading_model","total_bytes":100,"type":"status"}`,
	},
	"a download of unknown size": {
		status.Loading{Phase: status.Download{URL: "https://models.example/x.gguf"}},
		`{"downloaded_bytes":0,"id":"admin","phase":"download","source_url":"https://models.example/x.gguf","status":"loading_model","total_bytes":null,"type":"status"}`,
	},
	"verifies": {
		status.Loading{Phase: status.Verify{Path: "/m/data"}},
		`{"id":"admin","path":"/m/data","phase":"verify","status":"loading_model","type":"status"}`,
	},
	"puts a wrong file aside": {
		status.Loading{Phase: status.Quarantine{Path: "/m/data", Expected: "30d1", Actual: "beef", MovedTo: "/m/q/beef"}},
		`{"actual_sha256":"beef","expected_sha256":"30d1","id":"admin","path":"/m/data","phase":"quarantine","quarantine_path":"/m/q/beef","status":"loading_model","type":"status"}`,
	},
	"maps the weights": {
		status.Loading{Phase: status.Mmap{Path: "/m/data"}},
		`{"id":"admin","path":"/m/data","phase":"mmap","status":"loading_model","type":"status"}`,
	},
	"makes the cache": {
		status.Loading{Phase: status.KVCache{NCtx: 8192}},
		`{"id":"admin","n_ctx":8192,"phase":"kv_cache","status":"loading_model","type":"status"}`,
	},
	"ready":    {status.Ready{}, `{"id":"admin","status":"ready","type":"status"}`},
	"draining": {status.Draining{}, `{"id":"admin","status":"draining","type":"status"}`},

	"capabilities without anything unknown": {
		status.Capabilities{Backend: "mock", Abilities: infer.Abilities{Generate: true, Thinking: true, Embed: true}, Accelerator: "cpu"},
		`{"accelerator":"cpu","audio":false,"backend":"mock","embed":true,"gpu_layers":0,"id":"admin","status":"capabilities","thinking":true,"tools":false,"type":"status","v2":true,"vision":false,"wire_version":1}`,
	},
	"capabilities of a model without a chat template": {
		status.Capabilities{Backend: "gen", Abilities: infer.Abilities{Generate: true}, Accelerator: "cpu", NoTemplate: true},
		`{"accelerator":"cpu","audio":false,"backend":"gen","chat_template":"none","embed":false,"gpu_layers":0,"id":"admin","status":"capabilities","thinking":false,"tools":false,"type":"status","v2":true,"vision":false,"wire_version":1}`,
	},
	"capabilities with everything": {
		status.Capabilities{
			Backend: "gen", Abilities: infer.Abilities{Generate: true, Vision: true, Audio: true, Tools: true, ToolsDialect: "hermes", Thinking: true, Embed: true, Rerank: true, Infill: true},
			Accelerator: "cuda", GPULayers: 99, DeviceName: "Some GPU", VRAMBytes: 17179869184, AudioRate: 16000,
		},
		`{"accelerator":"cuda","audio":true,"audio_sample_rate":16000,"backend":"gen","device_name":"Some GPU","embed":true,"fim":true,"gpu_layers":99,"id":"admin","rerank":true,"status":"capabilities","thinking":true,"tools":true,"tools_dialect":"hermes","type":"status","v2":true,"vision":true,"vram_total_bytes":17179869184,"wire_version":1}`,
	},

	"capabilities of an exact entry": {
		status.Capabilities{Backend: "gen", Abilities: infer.Abilities{Generate: true}, Accelerator: "cpu", WantsExact: true, Exact: true},
		`{"accelerator":"cpu","audio":false,"backend":"gen","embed":false,"exact":true,"gpu_layers":0,"id":"admin","status":"capabilities","thinking":false,"tools":false,"type":"status","v2":true,"vision":false,"wire_version":1}`,
	},
	"capabilities of an entry that cannot be exact": {
		status.Capabilities{Backend: "gen", Abilities: infer.Abilities{Generate: true}, Accelerator: "cuda", WantsExact: true, Inexact: "a GPU computes"},
		`{"accelerator":"cuda","audio":false,"backend":"gen","embed":false,"exact":false,"gpu_layers":0,"id":"admin","inexact":"a GPU computes","status":"capabilities","thinking":false,"tools":false,"type":"status","v2":true,"vision":false,"wire_version":1}`,
	},
	"capabilities with facts of the model": {
		status.Capabilities{
			Backend: "gen", Abilities: infer.Abilities{Generate: true}, Accelerator: "cpu", Model: "Chain", NCtx: 512,
			Params: 1 << 40, Size: 1 << 41, Architecture: "llama", Quantization: "Q4_K_M",
		},
		`{"accelerator":"cpu","architecture":"llama","audio":false,"backend":"gen","embed":false,"gpu_layers":0,"id":"admin","model":"Chain","n_ctx":512,"n_params":1099511627776,"quantization":"Q4_K_M","size_bytes":2199023255552,"status":"capabilities","thinking":false,"tools":false,"type":"status","v2":true,"vision":false,"wire_version":1}`,
	},

	"added: an entry that fails": {
		status.BackendState{Backend: "gen", State: "half_open"},
		`{"backend":"gen","id":"admin","state":"half_open","status":"backend_state","type":"status"}`,
	},

	"added: an engine that is silent": {
		status.Liveness{Backend: "gen", Silent: true, Reason: "its process is stopped"},
		`{"backend":"gen","id":"admin","reason":"its process is stopped","state":"silent","status":"backend_state","type":"status"}`,
	},
	"added: an engine that responds again": {
		status.Liveness{Backend: "gen"},
		`{"backend":"gen","id":"admin","state":"responding","status":"backend_state","type":"status"}`,
	},
	"added: an engine that lacks a resource": {
		status.Restarting{Backend: "gen", Phase: status.Waiting{Reason: "too many open files"}},
		`{"backend":"gen","id":"admin","phase":"waiting","reason":"too many open files","status":"restarting","type":"status"}`,
	},
	"added: whose model is loaded, and how far": {
		status.Loading{Backend: "gen", Phase: status.Mmap{Path: "/m/data", Progress: 0.25}},
		`{"backend":"gen","id":"admin","path":"/m/data","phase":"mmap","progress":0.25,"status":"loading_model","type":"status"}`,
	},
	"added: an engine is being replaced": {
		status.Restarting{Backend: "gen", Phase: status.EngineExited{Reason: "killed by SIGKILL"}},
		`{"backend":"gen","id":"admin","phase":"engine_exited","reason":"killed by SIGKILL","status":"restarting","type":"status"}`,
	},
	"added: an engine was given up": {
		status.Restarting{Backend: "gen", Phase: status.GaveUp{Reason: `it said "no"`}},
		`{"backend":"gen","id":"admin","phase":"gave_up","reason":"it said \"no\"","status":"restarting","type":"status"}`,
	},
	"restarting without a phase": {
		status.Restarting{Backend: "gen"},
		`{"backend":"gen","id":"admin","status":"restarting","type":"status"}`,
	},
	"a path that is not UTF-8": {
		status.Loading{Phase: status.Verify{Path: "/m/\xff\n"}},
		`{"id":"admin","path":"/m/` + "\uFFFD" + `\n","phase":"verify","status":"loading_model","type":"status"}`,
	},
	"progress past the end is the end": {
		status.Loading{Phase: status.Mmap{Path: "p", Progress: math.Inf(1)}},
		`{"id":"admin","path":"p","phase":"mmap","progress":1,"status":"loading_model","type":"status"}`,
	},
	"progress that is no number is left out": {
		status.Loading{Phase: status.Mmap{Path: "p", Progress: math.NaN()}},
		`{"id":"admin","path":"p","phase":"mmap","status":"loading_model","type":"status"}`,
	},
}

func TestEncode(t *testing.T) {
	for name, test := range goldens {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, string(admin.Encode(test.ev))); diff != "" {
				t.Errorf("frame (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCapabilitiesRoundTrip(t *testing.T) {
	for name, test := range goldens {
		want, ok := test.ev.(status.Capabilities)
		if !ok {
			continue
		}
		t.Run(name, func(t *testing.T) {
			got, version, err := admin.DecodeCapabilities([]byte(test.want))
			if err != nil || version != 1 {
				t.Errorf("version %d, %v", version, err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
	if _, _, err := admin.DecodeCapabilities([]byte(`{"v2":1}`)); err == nil {
		t.Error("a number was taken for a bool")
	}
}

func TestDecode(t *testing.T) {
	for name, test := range map[string]struct {
		line string
		want admin.Frame
	}{
		"a lifecycle frame": {
			`{"id":"admin","status":"ready","type":"status"}`,
			admin.Frame{Status: admin.Ready},
		},
		"a phase": {
			`{"backend":"gen","id":"admin","phase":"gave_up","reason":"why","status":"restarting","type":"status"}`,
			admin.Frame{Status: admin.Restarting, Phase: "gave_up", Backend: "gen", Reason: "why"},
		},
		"facts of a model": {
			`{"architecture":"llama","backend":"gen","model":"Chain","n_ctx":512,"n_params":7,"quantization":"Q4_K_M","size_bytes":8,"status":"capabilities"}`,
			admin.Frame{
				Status: admin.Capabilities, Backend: "gen",
				Facts: admin.Facts{Model: "Chain", Architecture: "llama", Quantization: "Q4_K_M", NCtx: 512, Params: 7, Size: 8},
			},
		},
		"a phase with a member of that name": {
			`{"backend":"gen","n_ctx":512,"phase":"kv_cache","status":"loading_model"}`,
			admin.Frame{Status: admin.Loading, Phase: "kv_cache", Backend: "gen"},
		},
		"unknown members and values": {
			` {"status":"dreaming", "phase":"rem","of":{"sheep":[1,2.50]}}` + "\r",
			admin.Frame{Status: "dreaming", Phase: "rem"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			line := []byte(test.line)
			got, err := admin.Decode(line)
			if err != nil {
				t.Fatal(err)
			}
			clear(line) // a reader reuses its buffer
			test.want.Line = []byte(test.line)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("frame (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	for name, line := range map[string]string{
		"nothing":            "",
		"broken JSON":        `{"status":"ready"`,
		"an array":           `["ready"]`,
		"no status":          `{"id":"admin","type":"status"}`,
		"a wrong type":       `{"status":5}`,
		"two at once":        `{"status":"ready"}{"status":"ready"}`,
		"a wrong fact":       `{"status":"capabilities","n_ctx":"512"}`,
		"a duplicate member": `{"status":"ready","status":"draining"}`,
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := admin.Decode([]byte(line)); err == nil {
				t.Errorf("Decode = %+v, want an error", got)
			}
		})
	}
}

// Frame.Lifecycle is true for the states of the daemon and for no other frame: "inferdctl status"
// exits at the first of them.
func TestLifecycle(t *testing.T) {
	for name, test := range goldens {
		apart := false
		switch test.ev.(type) {
		case status.Capabilities, status.BackendState, status.Liveness:
			apart = true
		case status.Starting, status.Loading, status.Ready, status.Restarting, status.Draining:
		}
		frame, err := admin.Decode([]byte(test.want))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, want := frame.Lifecycle(), !apart; got != want {
			t.Errorf("%s: Lifecycle = %v, want %v", name, got, want)
		}
	}
	if (admin.Frame{Status: "dreaming"}).Lifecycle() {
		t.Error("an unknown status counts as lifecycle")
	}
}

func FuzzDecode(f *testing.F) {
	for _, test := range goldens {
		f.Add([]byte(test.want))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		frame, err := admin.Decode(line)
		if err != nil {
			return
		}
		if frame.Status == "" || !cmp.Equal(frame.Line, line) {
			t.Errorf("Decode(%q) = %+v", line, frame)
		}
	})
}
