package hubtest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// rangeOf parses "bytes=FROM-LAST". to is exclusive, and -1 if the range is open; both results are -1
// if there is no range.
func rangeOf(header string) (from, to int64) {
	text, ok := strings.CutPrefix(header, "bytes=")
	if !ok {
		return -1, -1
	}
	first, last, _ := strings.Cut(text, "-")
	from, err := strconv.ParseInt(first, 10, 64)
	if err != nil {
		return -1, -1
	}
	if to, err = strconv.ParseInt(last, 10, 64); err != nil {
		return from, -1
	}
	return from, to + 1
}

func (s *Server) answerJSON(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(value); err != nil {
		s.tb.Logf("answer: %v", err) // the client has hung up
	}
}

// answerHub serves the API, the redirects of files, and the registry.
func (s *Server) answerHub(w http.ResponseWriter, r *http.Request, _ *Request, _ *Fault) {
	path := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
	switch {
	case path[0] == "v2" && len(path) > 4:
		s.answerRegistry(w, r, strings.Join(path[1:len(path)-2], "/"), path[len(path)-2], path[len(path)-1])
		return
	case path[0] == "token" && s.RegistryToken != "":
		s.answerJSON(w, map[string]string{"token": s.RegistryToken})
		return
	}
	if s.Token != "" && r.Header.Get("Authorization") != "Bearer "+s.Token {
		w.Header().Set("X-Error-Code", "GatedRepo")
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case len(path) == 6 && path[0] == "api" && path[4] == "revision":
		if found, ok := s.repos[path[2]+"/"+path[3]]; ok && found.has(path[5]) {
			s.answerJSON(w, map[string]any{"sha": found.commit, "cardData": map[string]any{"license": found.license}})
			return
		}
	case len(path) == 6 && path[0] == "api" && path[4] == "tree":
		if found, ok := s.repos[path[2]+"/"+path[3]]; ok && found.has(path[5]) {
			s.answerTree(w, r, found)
			return
		}
	case len(path) >= 5 && path[2] == "resolve":
		if found, ok := s.repos[path[0]+"/"+path[1]]; ok && found.has(path[3]) {
			name := strings.SplitN(r.URL.Path, "/", 6)[5]
			if f, ok := found.files[name]; ok {
				w.Header().Set("X-Repo-Commit", found.commit)
				w.Header().Set("X-Linked-Etag", `"`+s.digest(f)+`"`)
				w.Header().Set("X-Linked-Size", strconv.FormatInt(f.size(), 10))
				s.redirectLocked(w, f, http.StatusFound)
				return
			}
		}
	}
	w.WriteHeader(http.StatusNotFound)
}

func (r *repo) has(rev string) bool { return rev == "main" || rev == r.commit }

// redirectLocked redirects the client to a new signed link for a file, which is valid until the
// next Expire.
func (s *Server) redirectLocked(w http.ResponseWriter, f *File, status int) {
	s.links++
	w.Header().Set("Location", fmt.Sprintf("%s/blob/%s?sig=%d&secret=hunter2", s.CDNURL(), s.digest(f), s.links))
	w.WriteHeader(status)
}

func (s *Server) answerTree(w http.ResponseWriter, r *http.Request, found *repo) {
	start, _ := strconv.Atoi(r.URL.Query().Get("cursor")) // 0 if there is no cursor
	end := len(found.order)
	if s.PageSize > 0 && end-start > s.PageSize {
		end = start + s.PageSize
		next := fmt.Sprintf("https://huggingface.co%s?recursive=true&cursor=%d", r.URL.EscapedPath(), end)
		w.Header().Set("Link", "<"+next+`>; rel="next"`)
	}
	list := []map[string]any{}
	for _, name := range found.order[start:end] {
		f := found.files[name]
		entry := map[string]any{"type": "file", "path": name, "size": f.size(), "oid": strings.Repeat("0", 40)}
		if !f.Small {
			entry["lfs"] = map[string]any{"oid": s.digest(f), "size": f.size(), "pointerSize": 134}
		}
		list = append(list, entry)
	}
	if start == 0 {
		list = append(list, map[string]any{"type": "directory", "path": "folder", "oid": strings.Repeat("1", 40)})
	}
	s.answerJSON(w, list)
}

// answerRegistry serves manifests and blobs of images.
func (s *Server) answerRegistry(w http.ResponseWriter, r *http.Request, name, kind, what string) {
	if s.RegistryToken != "" && r.Header.Get("Authorization") != "Bearer "+s.RegistryToken {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="registry",scope="repository:%s:pull"`, s.URL()+"/token", name))
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch kind {
	case "manifests":
		layers, ok := s.images[strings.TrimPrefix(name, "library/")+":"+what]
		if !ok {
			break
		}
		var list []map[string]any
		for _, l := range layers {
			list = append(list, map[string]any{"mediaType": l.kind, "digest": "sha256:" + s.digest(l.file), "size": l.file.size()})
		}
		s.answerJSON(w, map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json", "layers": list})
		return
	case "blobs":
		if f, ok := s.blobs[strings.TrimPrefix(what, "sha256:")]; ok {
			s.redirectLocked(w, f, http.StatusTemporaryRedirect)
			return
		}
	}
	w.WriteHeader(http.StatusNotFound)
}

// answerCDN serves the content of files, with ranges.
func (s *Server) answerCDN(w http.ResponseWriter, r *http.Request, req *Request, fault *Fault) {
	kind, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	s.mu.Lock()
	f, expired := s.blobs[name], s.expired
	if kind == "files" {
		f = s.blobs["files/"+name]
	}
	s.mu.Unlock()
	if f == nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if kind == "blob" {
		if sig, err := strconv.Atoi(r.URL.Query().Get("sig")); err != nil || sig <= expired {
			w.WriteHeader(http.StatusForbidden)
			return
		}
	}
	s.answerContent(w, r, req, f, fault)
}

// ETag returns the CDN's ETag for content. As with the real CDN, it is not the digest.
func ETag(content []byte) string { return etagOf(Sum(content)) }

func etagOf(digest string) string { return `"` + Sum([]byte(digest))[:32] + `"` }

func (s *Server) answerContent(w http.ResponseWriter, r *http.Request, req *Request, f *File, fault *Fault) {
	content := f.Content
	if fault.Content != nil {
		content = fault.Content
	}
	etag := etagOf(s.sum(content))
	if fault.ETag != "" {
		etag = strings.TrimPrefix(fault.ETag, "-")
	}
	if etag != "" {
		w.Header().Set("ETag", etag)
	}
	w.Header().Set("Accept-Ranges", "bytes")
	from, to := req.From, req.To
	if cond := r.Header.Get("If-Range"); fault.IgnoreRange || cond != "" && cond != etag {
		from, to = -1, -1
	}
	total := int64(len(content))
	body, status := content, http.StatusOK
	if from >= 0 {
		if from >= total {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", total))
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return
		}
		if to < 0 || to > total {
			to = total
		}
		announced := total
		if fault.Total != 0 {
			announced = fault.Total
		}
		if !fault.Unranged {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from+fault.Shift, to-1+fault.Shift, announced))
		}
		body, status = content[from:to], http.StatusPartialContent
	}
	if fault.Extra > 0 {
		body = append(append([]byte(nil), body...), make([]byte, fault.Extra)...)
	}
	if !fault.NoLength {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		s.send(r.Context(), w, req, body, fault)
	}
}

// send writes a body in pieces, at the speed that Slow allows. If fault has Empty, CutAfter or
// StallAfter, it ends the body early.
func (s *Server) send(ctx context.Context, w http.ResponseWriter, req *Request, body []byte, fault *Fault) {
	limit := int64(len(body))
	switch {
	case fault.Empty:
		limit = 0
	case fault.CutAfter > 0:
		limit = min(limit, fault.CutAfter)
	case fault.StallAfter > 0:
		limit = min(limit, fault.StallAfter)
	}
	control := http.NewResponseController(w)
	if limit == 0 && control.Flush() != nil {
		return // the client has hung up
	}
	const most = 64 << 10 // bytes of a piece
	for sent := int64(0); sent < limit; {
		if s.Sending != nil {
			s.Sending(s.Sent())
		}
		piece := body[sent:min(sent+most, limit)]
		s.count(req, len(piece)) // before the write, so that Sent includes all bytes that a client has
		n, err := w.Write(piece) //nolint:gosec // content of a test
		s.count(req, n-len(piece))
		sent += int64(n)
		if err == nil && (s.Slow > 0 || sent == limit) {
			err = control.Flush()
		}
		if err != nil {
			return // the client has hung up
		}
		if s.Slow > 0 {
			time.Sleep(s.Slow * time.Duration(n) / (1 << 20))
		}
	}
	switch {
	case limit == int64(len(body)) && !fault.Empty:
	case fault.StallAfter > 0:
		<-ctx.Done()
	default:
		panic(http.ErrAbortHandler) // closes the connection without the rest of the body
	}
}

// count adds n to the bytes that were sent in answer to a request.
func (s *Server) count(req *Request, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	req.Sent += int64(n)
}
