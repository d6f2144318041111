package openai

import (
	"strconv"
	"time"

	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// A Model is a model as clients list it. A number is 0 if unknown.
type Model struct {
	ID      string
	Created time.Time // time at which the daemon began to serve
	NCtx    int       // size of the context in tokens
	Params  uint64    // number of weights
	Size    uint64    // bytes of the weights
}

// Append appends the model as JSON. Clients of Anthropic's interface use the same URL, so the
// members of that interface are included.
func (m *Model) Append(dst []byte) []byte {
	dst = append(dst, `{"id":`...)
	dst = wire.AppendString(dst, m.ID)
	dst = append(dst, `,"object":"model","created":`...)
	dst = strconv.AppendInt(dst, m.Created.Unix(), 10)
	dst = append(dst, `,"owned_by":"inferd","type":"model","display_name":`...)
	dst = wire.AppendString(dst, m.ID)
	dst = append(dst, `,"created_at":"`...)
	dst = m.Created.UTC().AppendFormat(dst, time.RFC3339)
	dst = append(dst, `","lifecycle":"active"`...)
	if m.NCtx > 0 {
		dst = append(dst, `,"max_model_len":`...)
		dst = strconv.AppendInt(dst, int64(m.NCtx), 10)
	}
	dst = append(dst, `,"meta":{`...)
	begin := len(dst)
	for _, fact := range []struct {
		name  string
		value uint64
	}{{"n_ctx", uint64(max(m.NCtx, 0))}, {"n_params", m.Params}, {"size", m.Size}} {
		if fact.value == 0 {
			continue
		}
		if len(dst) > begin {
			dst = append(dst, ',')
		}
		dst = append(dst, `"`+fact.name+`":`...)
		dst = strconv.AppendUint(dst, fact.value, 10)
	}
	return append(dst, "}}"...)
}

// AppendModels appends a list of models as the body of an answer.
func AppendModels(dst []byte, models []Model) []byte {
	dst = append(dst, `{"object":"list","data":[`...)
	for i := range models {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = models[i].Append(dst)
	}
	dst = append(dst, `],"has_more":false,"first_id":`...)
	first, last := "", ""
	if n := len(models); n > 0 {
		first, last = models[0].ID, models[n-1].ID
	}
	dst = web.AppendNullable(dst, first)
	dst = append(dst, `,"last_id":`...)
	return append(web.AppendNullable(dst, last), '}')
}
