package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/inferd-go/inferd/client"
	"github.com/inferd-go/inferd/internal/wire/refhttp"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// newID returns a new ID for an answer. The request to the daemon has it, too, so it is in the
// daemon's log.
func newID() string { return "chatcmpl-" + strconv.FormatInt(time.Now().UnixNano(), 16) }

// chat answers POST /v1/chat/completions.
func (b *bridge) chat(w http.ResponseWriter, r *http.Request) {
	body, release, err := b.read(w, r)
	if release != nil {
		defer release()
	}
	var c *refhttp.Chat
	if err == nil {
		c, err = refhttp.ReadChat(body)
	}
	if err == nil && c.HasMedia() {
		err = b.decode(r.Context(), c)
	}
	if err != nil {
		b.fail(w, refhttp.ErrorOf(err))
		return
	}
	a := &refhttp.Answer{ID: newID(), Model: b.model, Created: time.Now().Unix()}
	c.Request.ID, c.Request.Client, c.Request.Traceparent = a.ID, b.clientOf(r), web.Traceparent(r.Header)
	if c.Request.LocalOnly, err = localOnly(r); err != nil {
		b.fail(w, refhttp.ErrorOf(err))
		return
	}
	conn, err := b.client.Dial(r.Context(), client.LP)
	if err != nil {
		b.lost(w, r, err)
		return
	}
	defer conn.Close()
	events := conn.Generate(r.Context(), c.Request)
	if c.Refused != nil {
		events = func(yield func(client.Event, error) bool) { yield(client.Event{}, c.Refused) }
	}
	if c.Stream {
		b.stream(w, r, a, events) //nolint:contextcheck // the events have the context of the request
		return
	}
	for ev, err := range events {
		var whole []byte
		if err == nil {
			whole, err = a.Collect(&ev)
		}
		switch {
		case err != nil:
			b.lost(w, r, err)
			return
		case whole != nil:
			b.send(w, http.StatusOK, whole)
			return
		}
	}
}

// localOnly reports whether a header requires that the request stays on this machine. An invalid
// header is an error.
func localOnly(r *http.Request) (bool, error) {
	local, err := web.LocalOnly(r.Header)
	if err != nil {
		return false, refhttp.Invalid("%v", err)
	}
	return local, nil
}

// lost answers with an error, unless the client has gone.
func (b *bridge) lost(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return
	}
	b.fail(w, refhttp.ErrorOf(err))
}

// stream answers with a stream of events. Its status is sent before the first event of the daemon,
// so a later error is an event.
func (b *bridge) stream(w http.ResponseWriter, r *http.Request, a *refhttp.Answer, events func(func(client.Event, error) bool)) {
	h, control := w.Header(), http.NewResponseController(w)
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-cache")
	w.WriteHeader(http.StatusOK)
	if limitWrite(w) != nil || control.Flush() != nil {
		return
	}
	var buf []byte
	for ev, err := range events {
		if err != nil {
			if r.Context().Err() == nil {
				_ = limitWrite(w)
				_, _ = w.Write(a.Fail(nil, err)) //nolint:gosec // G705: nosniff, and never of the type of a page
			}
			return
		}
		if ev.Done != nil && ev.Done.ToolChoiceUnsatisfied {
			b.log.LogAttrs(r.Context(), slog.LevelWarn, "the answer has no tool call, which was required", slog.String("id", a.ID))
		}
		if buf = a.Stream(buf[:0], &ev); len(buf) == 0 {
			continue
		}
		if err := limitWrite(w); err != nil {
			return
		}
		if _, err := w.Write(buf); err != nil || control.Flush() != nil {
			return // the connection to the daemon is closed, which stops the request
		}
	}
}

// embeddings answers POST /v1/embeddings.
func (b *bridge) embeddings(w http.ResponseWriter, r *http.Request) {
	body, release, err := b.read(w, r)
	if release != nil {
		defer release()
	}
	var e *refhttp.Embeddings
	if err == nil {
		e, err = refhttp.ReadEmbeddings(body)
	}
	if err != nil {
		b.fail(w, refhttp.ErrorOf(err))
		return
	}
	if local, err := localOnly(r); err != nil {
		b.fail(w, refhttp.EmbedErrorOf(err))
		return
	} else if local {
		b.fail(w, refhttp.Invalid("embeddings do not support the header %s: their socket cannot pass it on", web.LocalOnlyHeader))
		return
	}
	e.Request.ID = newID()
	answer, err := b.client.Embed(r.Context(), e.Request)
	switch {
	case err == nil:
		b.send(w, http.StatusOK, e.Append(nil, answer, b.model))
	case r.Context().Err() == nil:
		b.fail(w, refhttp.EmbedErrorOf(err))
	}
}

// decode decodes images and audio, for one request at a time. Audio is converted to the sample rate
// that the daemon reports.
func (b *bridge) decode(ctx context.Context, c *refhttp.Chat) error {
	rate := 0
	if c.HasAudio() {
		var err error
		if rate, err = b.audioRate(ctx); err != nil {
			return err
		}
	}
	b.decoding.Lock()
	defer b.decoding.Unlock()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return c.Decode(rate)
}

// adminTimeout bounds the wait for the daemon's sample rate of audio.
const adminTimeout = 5 * time.Second

// audioRate gets the sample rate of audio from the admin socket of the daemon, without waiting for
// a daemon that starts.
func (b *bridge) audioRate(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, adminTimeout, fmt.Errorf("no answer from the admin socket within %s", adminTimeout))
	defer cancel()
	once := *b.client
	once.Wait = 0
	accepted := false
	for s, err := range once.Watch(ctx) {
		if err != nil {
			return 0, fmt.Errorf("ask for the rate of audio: %w", err)
		}
		if s.Lifecycle() { // all capabilities have been sent
			break
		}
		var can struct {
			Audio bool `json:"audio"`
			Rate  int  `json:"audio_sample_rate"`
		}
		if json.Unmarshal(s.Raw, &can) != nil || !can.Audio {
			continue
		}
		if can.Rate > 0 {
			return can.Rate, nil
		}
		accepted = true
	}
	if accepted {
		return 0, refhttp.Invalid("the daemon accepts audio, but does not report its sample rate: it is too old")
	}
	return 0, refhttp.Invalid("no model of the daemon accepts audio")
}
