package dialect_test

import (
	"strings"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialecttest"
)

// written returns the text of calls; if marked is set, each text of a client is between guillemets.
func written(t *testing.T, d *dialect.Dialect, marked bool, calls ...dialect.Call) string {
	t.Helper()
	all, err := d.Write(calls)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range all {
		if marked && f.Client {
			b.WriteString("«" + f.Text + "»")
		} else {
			b.WriteString(f.Text)
		}
	}
	return b.String()
}

func TestWrite(t *testing.T) {
	const input = `{"s":"a \"b\"\n<c>","n":-1.50,"t":true,"z":null,"o":{"k":["x",{"y":false}]}}`
	calls := []dialect.Call{{ID: "id0000001", Name: "f", Arguments: input}, {ID: "id0000002", Name: "g"}}
	for name, want := range map[string]string{
		"hermes":            "<tool_call>\n{\"name\": \"f\", \"arguments\": " + input + "}\n</tool_call>\n<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>",
		"mistral-nemo":      `[TOOL_CALLS][{"name": "f", "arguments": ` + input + `, "id": "id0000001"}, {"name": "g", "arguments": {}, "id": "id0000002"}]`,
		"mistral-small-3.2": `[TOOL_CALLS]f[CALL_ID]id0000001[ARGS]` + input + `[TOOL_CALLS]g[CALL_ID]id0000002[ARGS]{}`,
		"qwen3-coder": "<tool_call>\n<function=f>\n<parameter=s>\na \"b\"\n<c>\n</parameter>\n<parameter=n>\n-1.50\n</parameter>\n<parameter=t>\ntrue\n</parameter>\n" +
			"<parameter=z>\nnull\n</parameter>\n<parameter=o>\n{\"k\":[\"x\",{\"y\":false}]}\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=g>\n</function>\n</tool_call>",
		"lfm2":    `<|tool_call_start|>[f(s="a \"b\"\n<c>", n=-1.50, t=True, z=None, o={"k": ["x", {"y": False}]}), g()]<|tool_call_end|>`,
		"gemma4":  "<|tool_call>call:f{s:<|\"|>a \"b\"\n<c><|\"|>,n:-1.50,t:true,z:null,o:{k:[<|\"|>x<|\"|>,{y:false}]}}<tool_call|><|tool_call>call:g{}<tool_call|>",
		"generic": `{"tool_calls": [{"name": "f", "arguments": ` + dialect.Spaced(input) + `}, {"name": "g", "arguments": {}}]}`,
	} {
		if got := written(t, dialecttest.Fixtures()[name], false, calls...); got != want {
			t.Errorf("%s:\ngot  %q\nwant %q", name, got, want)
		}
	}
}

// All texts of a client are marked as such, because they may spell markers.
func TestWriteClients(t *testing.T) {
	call := dialect.Call{Name: "N", Arguments: `{"K":"V","L":{"M":["W",1]}}`}
	for name, want := range map[string]string{
		"hermes":      "<tool_call>\n{\"name\": \"«N»\", \"arguments\": «{\"K\":\"V\",\"L\":{\"M\":[\"W\",1]}}»}\n</tool_call>",
		"qwen3-coder": "<tool_call>\n<function=«N»>\n<parameter=«K»>\n«V»\n</parameter>\n<parameter=«L»>\n«{\"M\":[\"W\",1]}»\n</parameter>\n</function>\n</tool_call>",
		"gemma4":      "<|tool_call>call:«N»{«K»:<|\"|>«V»<|\"|>,«L»:{«M»:[<|\"|>«W»<|\"|>,«1»]}}<tool_call|>",
		"lfm2":        `<|tool_call_start|>[«N»(«K»="«V»", «L»={"«M»": ["«W»", «1»]})]<|tool_call_end|>`,
	} {
		if got := written(t, dialecttest.Fixtures()[name], true, call); got != want {
			t.Errorf("%s:\ngot  %q\nwant %q", name, got, want)
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	deep := `{"a":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + "}"
	for name, test := range map[string]struct{ dialect, arguments, want string }{
		"no object":   {"gemma4", `[1]`, "not a JSON object"},
		"no JSON":     {"qwen3-coder", `{"a":}`, "invalid"},
		"a cut":       {"lfm2", `{"a":1`, "EOF"},
		"deep values": {"gemma4", deep, "deeper than 128 levels"},
		"deep Python": {"lfm2", deep, "deeper than 128 levels"},
	} {
		_, err := dialecttest.Fixtures()[test.dialect].Write([]dialect.Call{{Name: "f", Arguments: test.arguments}})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// Strings of Python between single quotation marks escape single quotation marks.
func TestWriteSingleQuotes(t *testing.T) {
	d := *dialecttest.Fixtures()["lfm2"]
	d.Calls.Param.Quote = "'"
	got := written(t, &d, false, dialect.Call{Name: "f", Arguments: `{"s":"it's \"so\"\n","o":{"k":"don't"}}`})
	if want := `<|tool_call_start|>[f(s='it\'s "so"\n', o={"k": "don't"})]<|tool_call_end|>`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A template that refuses every probe, or writes no calls, has the dialect generic.
func TestReadNothing(t *testing.T) {
	refuse := func(*dialect.Probe) (string, error) { return "", strings.NewReader("").UnreadByte() }
	d, traits := dialect.Read(refuse, "<think></think> enable_thinking List of tools: ")
	if d.Name != "generic" || traits != (dialect.Traits{}) {
		t.Errorf("got %+v, %+v", d, traits)
	}
	echo := func(p *dialect.Probe) (string, error) { // writes every text, and no call
		var b strings.Builder
		for _, m := range p.Messages {
			b.WriteString(m.Role + ": " + m.Text + "\n")
		}
		return b.String(), nil
	}
	d, traits = dialect.Read(echo, "")
	want := dialect.Traits{System: true, Systems: true, LateSystem: true, Repeats: true, Answers: true, Results: true}
	if d.Name != "generic" || d.Thinking.Has() || traits != want {
		t.Errorf("got %+v, %+v", d, traits)
	}
}
