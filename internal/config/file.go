package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/backend/mock"
	"github.com/inferd-go/inferd/internal/trust"
)

// file is the config file. A pointer tells what is missing from what is zero; rest
// holds the keys that nobody knows.
type file struct {
	Model      *fileModel     `json:"model"`
	Backends   *[]fileBackend `json:"backends"`
	NCtx       *int           `json:"n_ctx"`
	NGPULayers *int           `json:"n_gpu_layers"`
	Engine     *fileEngine    `json:"engine"`
	Admission  *fileAdmission `json:"admission"`
	Surfaces   *fileSurfaces  `json:"surfaces"`
	Listen     *fileListen    `json:"listen"`
	Shared     []fileShared   `json:"shared_prefixes"`

	// Of the reference; nothing in this release asks for them.
	AutoPull     jsontext.Value `json:"auto_pull"`
	ModelsHome   jsontext.Value `json:"models_home"`
	AdminAddr    jsontext.Value `json:"admin_addr"`
	AutoSelect   jsontext.Value `json:"model_autoselect"`
	AutoSelectGB jsontext.Value `json:"model_autoselect_min_vram_gib"`

	Rest map[string]jsontext.Value `json:",embed"`
}

type fileEngine struct {
	LibDir string                    `json:"lib_dir"`
	Rest   map[string]jsontext.Value `json:",embed"`
}

type fileAdmission struct {
	ActivePermits *int                      `json:"active_permits"`
	QueueDepth    *int                      `json:"queue_depth"`
	QueueTotal    *int                      `json:"queue_total"`
	Rest          map[string]jsontext.Value `json:",embed"`
}

type fileSurfaces struct {
	V1     *bool                     `json:"v1"`
	V2     *bool                     `json:"v2"`
	LP     *bool                     `json:"lp"`
	Embed  *bool                     `json:"embed"`
	Rerank *bool                     `json:"rerank"`
	Rest   map[string]jsontext.Value `json:",embed"`
}

type fileListen struct {
	TCP       string                    `json:"tcp"`
	TCPV2     string                    `json:"tcp_v2"`
	TCPEmbed  string                    `json:"tcp_embed"`
	APIKeyEnv string                    `json:"api_key_env"`
	Rest      map[string]jsontext.Value `json:",embed"`
}

type fileShared struct {
	Model string                    `json:"model"`
	Text  string                    `json:"text"`
	Rest  map[string]jsontext.Value `json:",embed"`
}

type fileBackend struct {
	Kind       string     `json:"kind"`
	Name       string     `json:"name"`
	Aliases    []string   `json:"aliases"`
	Model      *fileModel `json:"model"`
	NCtx       *int       `json:"n_ctx"`
	NSlots     *int       `json:"n_slots"`
	Threads    *int       `json:"threads"`
	NGPULayers *int       `json:"n_gpu_layers"`

	// Of a kind that this release does not serve.
	APIKeyEnv string `json:"api_key_env"`

	// What an engine is for; of a mock, what it says that it can.
	Embed  *bool `json:"embed"`
	Rerank *bool `json:"rerank"`

	// Of an engine.
	Pooling      poolingWord    `json:"embed_pooling"`
	EmbedNCtx    *int           `json:"embed_n_ctx"`
	RerankNCtx   *int           `json:"rerank_n_ctx"`
	MaxStallMS   *int           `json:"max_stall_ms"`
	ChatTemplate jsontext.Value `json:"chat_template"`
	MMProj       jsontext.Value `json:"mmproj"`
	MMProjTokens jsontext.Value `json:"mmproj_image_max_tokens"`

	// Of a mock.
	Tokens         *[]string `json:"tokens"`
	TokenDelayMS   int       `json:"token_delay_ms"`
	PreStreamError string    `json:"pre_stream_error"`
	DropAfter      int       `json:"mid_stream_drop_after"`
	EmitToolUse    string    `json:"emit_tool_use"`
	ReadyAfterMS   int       `json:"ready_after_ms"`
	NotReadyAfter  int       `json:"not_ready_after"`
	FailFirst      int       `json:"fail_first"`
	Dimensions     int       `json:"embed_dimensions"`
	V2             *bool     `json:"v2"`
	Vision         bool      `json:"vision"`
	Audio          bool      `json:"audio"`
	Tools          bool      `json:"tools"`
	Unsupported    []string  `json:"unsupported"`

	Rest map[string]jsontext.Value `json:",embed"`
}

type fileModel struct {
	Builtin   string `json:"builtin"`
	Path      string `json:"path"`
	SHA256    string `json:"sha256"`
	Name      string `json:"name"`
	SourceURL string `json:"source_url"`

	SizeBytes jsontext.Value            `json:"size_bytes"`
	License   jsontext.Value            `json:"license"`
	Rest      map[string]jsontext.Value `json:",embed"`
}

// maxFile is how many bytes a config file may have.
const maxFile = 1 << 20

// readFile returns the content of a regular file that is not too large. A named pipe or a
// device is refused before anything is read: it might never end. So is a file that another user
// can change or replace.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|nonBlocking, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	// The file names programs, libraries and models.
	if err := trust.File(f); err != nil {
		return nil, err
	}
	if err := trust.Path(path); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > maxFile:
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	return data, nil
}

// read returns the config file, or nil if there is none. Its errors name the file and
// the line.
func read(path string) (*file, []string, error) {
	data, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err // names the file
	}
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		if unknown := unknownKind(data); unknown != nil { // the better reason why its members do not fit
			return nil, nil, fmt.Errorf("%s: %w", path, unknown)
		}
		return nil, nil, describe(path, data, err)
	}
	return &f, f.unknown(path, data), nil
}

// unknownKind names the first entry of a kind that is not known. Members of one name have
// other types in other kinds, so an error of the decoder would blame those.
func unknownKind(data []byte) error {
	var f struct {
		Backends []struct {
			Kind string `json:"kind"`
		} `json:"backends"`
	}
	if fits := json.Unmarshal(data, &f) == nil; !fits {
		return nil // kinds are not to blame
	}
	for i, b := range f.Backends {
		if err := checkKind(b.Kind); err != nil {
			return fmt.Errorf("backends[%d].%w", i, err)
		}
	}
	return nil
}

// checkKind refuses the kind of an entry that is not known.
func checkKind(kind string) error {
	switch kind {
	case llamacppKind, mock.Kind:
		return nil
	case "":
		return errors.New("kind is missing")
	case "openai-compat", "bedrock-invoke":
		return fmt.Errorf("kind %q is not served by this release yet: llamacpp or mock", kind)
	default:
		return fmt.Errorf("kind %.64q is not known: llamacpp or mock", kind)
	}
}

// poolingWord is the value of embed_pooling as it stands in the file: a word, or a number of
// the reference.
type poolingWord string

// UnmarshalJSONFrom takes both.
func (p *poolingWord) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	value, err := d.ReadValue()
	if err != nil {
		return err
	}
	switch value.Kind() {
	case jsontext.KindNull:
	case jsontext.KindNumber:
		*p = poolingWord(value)
	case jsontext.KindString:
		return json.Unmarshal(value, (*string)(p))
	default:
		return errors.New("it must be a word or a number")
	}
	return nil
}

// kinds are what JSON values are called.
var kinds = map[jsontext.Kind]string{
	jsontext.KindNull: "null", jsontext.KindFalse: "a boolean", jsontext.KindTrue: "a boolean", jsontext.KindString: "a string",
	jsontext.KindNumber: "a number", jsontext.KindBeginObject: "an object", jsontext.KindBeginArray: "an array",
}

// describe says where in the file the error lies.
func describe(path string, data []byte, err error) error {
	if strings.TrimSpace(string(data)) == "" {
		return fmt.Errorf("%s is empty: it must hold a JSON object", path)
	}
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		if e.JSONPointer != "" {
			return fmt.Errorf("%s:%d: %s: %w", path, line(data, e.ByteOffset), key(e.JSONPointer), e.Err)
		}
		return fmt.Errorf("%s:%d: %w", path, line(data, e.ByteOffset), e.Err)
	}
	if e, ok := errors.AsType[*json.SemanticError](err); ok {
		place := key(e.JSONPointer)
		if place == "" {
			return fmt.Errorf("%s:%d: the file must hold a JSON object, this is %s", path, line(data, e.ByteOffset), kinds[e.JSONKind])
		}
		what := kinds[e.JSONKind] + " does not fit here"
		if e.Err != nil {
			what = e.Err.Error()
		}
		return fmt.Errorf("%s:%d: %s: %s", path, line(data, e.ByteOffset), place, what)
	}
	return fmt.Errorf("%s: %w", path, err)
}

// line returns the number, from 1, of the line that holds the offset, or the next
// thing behind it.
func line(data []byte, offset int64) int {
	rest := data[min(int(offset), len(data)):]
	skip := len(rest) - len(strings.TrimLeft(string(rest), " \t\r\n,:"))
	return 1 + strings.Count(string(data[:int(offset)+skip]), "\n")
}

// key spells a pointer as people write it: backends[0].model.
func key(p jsontext.Pointer) string {
	var b strings.Builder
	for token := range p.Tokens() {
		if _, err := strconv.Atoi(token); err == nil {
			b.WriteString("[" + token + "]")
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(token)
	}
	return b.String()
}

// keyVariables are the names of variables that hold keys, of which nothing else is known.
func (f *file) keyVariables() (names []string) {
	if f == nil {
		return nil
	}
	if f.Listen != nil {
		names = append(names, f.Listen.APIKeyEnv)
	}
	if f.Backends != nil {
		for _, b := range *f.Backends {
			names = append(names, b.APIKeyEnv)
		}
	}
	return names
}

// unknown returns a warning for every key that has no meaning.
func (f *file) unknown(path string, data []byte) []string {
	strange := make(map[jsontext.Pointer]bool)
	note := func(parent jsontext.Pointer, rest map[string]jsontext.Value) {
		for name, value := range rest {
			if value.Kind() != jsontext.KindNull { // as good as absent
				strange[parent.AppendToken(name)] = true
			}
		}
	}
	model := func(parent jsontext.Pointer, m *fileModel) {
		if m != nil {
			note(parent.AppendToken("model"), m.Rest)
		}
	}
	note("", f.Rest)
	model("", f.Model)
	if f.Engine != nil {
		note("/engine", f.Engine.Rest)
	}
	if f.Admission != nil {
		note("/admission", f.Admission.Rest)
	}
	if f.Surfaces != nil {
		note("/surfaces", f.Surfaces.Rest)
	}
	if f.Listen != nil {
		note("/listen", f.Listen.Rest)
	}
	for i, p := range f.Shared {
		note(jsontext.Pointer("/shared_prefixes").AppendToken(strconv.Itoa(i)), p.Rest)
	}
	if f.Backends != nil {
		for i, b := range *f.Backends {
			at := jsontext.Pointer("/backends").AppendToken(strconv.Itoa(i))
			note(at, b.Rest)
			model(at, b.Model)
		}
	}
	if len(strange) == 0 {
		return nil
	}

	// A second walk finds the lines.
	var warnings []string
	dec := jsontext.NewDecoder(strings.NewReader(string(data)))
	for {
		if _, err := dec.ReadToken(); err != nil {
			return warnings // the end: it has parsed before
		}
		if p := dec.StackPointer(); strange[p] {
			delete(strange, p)
			warnings = append(warnings, fmt.Sprintf("%s:%d: unknown key %s", path, line(data, dec.InputOffset()-1), key(p)))
		}
	}
}
