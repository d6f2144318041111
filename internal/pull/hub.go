package pull

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"strings"

	"github.com/inferd-go/inferd/internal/modelname"
	"github.com/inferd-go/inferd/internal/printable"
	"github.com/inferd-go/inferd/internal/store"
)

// A hubInfo describes a revision of a repository, as the API returns it.
type hubInfo struct {
	SHA  string `json:"sha"`
	Card struct {
		License any `json:"license"` // a string, or a list of strings
	} `json:"cardData"`
}

// A hubEntry is a file or folder in a listing.
type hubEntry struct {
	Type string `json:"type"`
	Path string `json:"path"`
	Size int64  `json:"size"`
	LFS  *struct {
		OID  string `json:"oid"`
		Size int64  `json:"size"`
	} `json:"lfs"`
}

var commit = regexp.MustCompile(`^[0-9a-f]{7,64}$`)

func (s *session) resolveHub(ctx context.Context, ref modelname.Ref) (*plan, error) {
	repo, rev := ref.Owner+"/"+ref.Repo, ref.Rev
	if rev == "" {
		rev = "main"
	}
	what := "hf:" + repo
	api := s.hub.JoinPath("api", "models", ref.Owner, ref.Repo)
	var info hubInfo
	revision := target{url: api.JoinPath("revision", url.PathEscape(rev)), cred: s.hubCred}
	if _, err := s.api(ctx, what, revision, nil, &info); err != nil {
		return nil, err
	}
	if !commit.MatchString(info.SHA) {
		return nil, fmt.Errorf("%s: the hub names no commit for revision %s", what, rev)
	}
	listed, err := s.listing(ctx, what, api.JoinPath("tree", info.SHA))
	if err != nil {
		return nil, err
	}
	choice, err := modelname.Choose(listed, ref)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	model := &plan{
		asked: ref.String(), license: licenseOf(info.Card.License),
		source: store.Source{Registry: s.hub.Host, Repo: repo, Revision: info.SHA, Filename: choice.Parts[0].Path},
	}
	if model.name, err = store.NameOf(path.Base(choice.Parts[0].Path)); err != nil {
		model.name = "" // Pull returns an error unless Options.As names the model
	}
	for _, part := range choice.Parts {
		src := source{url: under(s.hub, "/"+repo+"/resolve/"+info.SHA+"/"+part.Path, ""), cred: s.hubCred}
		model.files = append(model.files, file{path.Base(part.Path), part.Size, part.SHA256, []source{src}})
	}
	if choice.Projector != nil {
		model.projector = what + "/" + choice.Projector.Path
	}
	return model, nil
}

// listing returns all files of a repository at a commit.
func (s *session) listing(ctx context.Context, what string, u *url.URL) (listed []modelname.Listed, err error) {
	u.RawQuery = "recursive=true"
	public := false
	for page := 0; u != nil; page++ {
		if page >= maxPages {
			return nil, fmt.Errorf("%s: its listing has more than %d pages", what, maxPages)
		}
		var entries []hubEntry
		got, err := s.api(ctx, what, target{u, s.hubCred, public}, nil, &entries)
		if err != nil {
			return nil, err
		}
		public = got.fromPublic
		for _, e := range entries {
			if e.Type != "file" {
				continue
			}
			f := modelname.Listed{Path: e.Path, Size: e.Size}
			if e.LFS != nil {
				f.SHA256, f.Size = strings.TrimPrefix(e.LFS.OID, "sha256:"), e.LFS.Size
				if !modelname.IsSHA256(f.SHA256) {
					return nil, fmt.Errorf("%s: the digest of %s in its listing is not a SHA-256", what, printable.Text(e.Path))
				}
			}
			if bad := strings.Contains("/"+e.Path+"/", "/../") || strings.ContainsAny(e.Path, "\\\x00"); bad || f.Size < 0 {
				return nil, fmt.Errorf("%s: its listing has a file with a bad path or size: %s", what, printable.Text(e.Path))
			}
			listed = append(listed, f)
		}
		if u, err = s.nextPage(got.Header.Get("Link"), u); err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
	}
	return listed, nil
}

var nextLink = regexp.MustCompile(`<([^>]*)>\s*;\s*rel="?next"?`)

// nextPage returns the address of the next page of a listing, rewritten to the endpoint. It returns
// nil after the last page.
func (s *session) nextPage(link string, from *url.URL) (*url.URL, error) {
	m := nextLink.FindStringSubmatch(link)
	if m == nil {
		return nil, nil // no next page is no failure
	}
	next, err := from.Parse(m[1])
	if err != nil {
		return nil, errors.New("the address of the next page of its listing is not valid")
	}
	moved, err := s.sourceOf(next.String())
	if err != nil {
		return nil, err
	}
	if originOf(moved.url) != originOf(s.hub) {
		return nil, fmt.Errorf("the next page of its listing is at another origin, %s", display(next))
	}
	return moved.url, nil
}

func licenseOf(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []any:
		if len(v) > 0 {
			return licenseOf(v[0])
		}
	}
	return ""
}
