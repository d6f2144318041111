package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/activity"
)

// logLine returns a line of an activity log with the given hour and further members.
func logLine(hour int, members string) string {
	return fmt.Sprintf(`{"component":"activity","t":"2026-01-02T%02d:00:00.000000+00:00",%s}`, hour, members) + "\n"
}

var (
	accepted = logLine(1, `"level":"info","msg":"connection_accepted","peer_uid":4001,"peer_pid":77,"peer_exe":"/usr/bin/editor"`)
	finished = logLine(2, `"level":"info","msg":"request_done","req_id":"a\u001b[31m b","peer_uid":4001,"peer_pid":77,"peer_exe":"/usr/bin/editor","entry":"gen","model":"chain","prompt_tokens":5,"completion_tokens":7`)
	hungUp   = logLine(3, `"level":"info","msg":"v2_request_gone","peer_uid":4002,"peer_pid":88,"peer_exe":"/opt/shell","entry":"gen","model":"chain","stage":"decode"`)
	refused  = logLine(4, `"level":"warn","msg":"request_refused","peer_uid":4002,"peer_pid":99,"peer_exe":"/opt/shell","code":"queue_full"`)
)

// record appends text to a file in the log folder of the fake daemon.
func (f *fakeDaemon) record(name, text string) {
	f.t.Helper()
	dir := filepath.Join(f.dir, "logs")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		f.t.Fatal(err)
	}
	file, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		f.t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString(text); err != nil {
		f.t.Fatal(err)
	}
}

func TestLog(t *testing.T) {
	self, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	mine := logLine(5, `"level":"info","msg":"request_done","peer_uid":`+self.Uid)
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"all":              {nil, accepted + finished + hungUp + refused + mine},
		"since a time":     {[]string{"--since", "2026-01-02T04:00:00+01:00"}, hungUp + refused + mine},
		"since a while":    {[]string{"--since", "1h"}, ""},
		"of a uid":         {[]string{"--caller", "4001"}, accepted + finished},
		"of a pid":         {[]string{"--caller", "88"}, hungUp},
		"of a program":     {[]string{"--caller", "editor"}, accepted + finished},
		"of an executable": {[]string{"--caller", "/opt/shell"}, hungUp + refused},
		"of a user":        {[]string{"--caller", self.Username}, mine},
		"of no caller":     {[]string{"--caller", "she"}, ""},
		"errors":           {[]string{"--errors"}, hungUp + refused},
		"errors of a pid":  {[]string{"--errors", "--caller", "99"}, refused},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.record(activity.File+".1", accepted+finished)
			f.record(activity.File, hungUp+refused+mine)
			f.want(f.run(append([]string{"log"}, test.args...)...), result{0, test.want, ""})
		})
	}
}

// Lines torn by a crash are left out, and their number is reported once.
func TestLogTorn(t *testing.T) {
	f := newFake(t)
	f.record(activity.File+".1", accepted+"{\"t\":\n"+finished)
	f.record(activity.File, hungUp+refused[:40])
	const told = "inferdctl: torn lines left out: 2 (the daemon was killed while it wrote, or is writing)\n"
	f.want(f.run("log"), result{0, accepted + finished + hungUp, told})
	f.want(f.run("usage"), result{0, `{"from":"2026-01-02T02:00:00Z","to":"2026-01-02T03:00:00Z","usage":[` +
		`{"user":"4001","exe":"/usr/bin/editor","entry":"gen","model":"chain","requests":1,"input_tokens":5,"output_tokens":7,"errors":0,"gone":0},` +
		`{"user":"4002","exe":"/opt/shell","entry":"gen","model":"chain","requests":1,"input_tokens":0,"output_tokens":0,"errors":0,"gone":1}]}` + "\n", told})
}

// On a terminal, log prints each record as one line without control characters, and usage prints a
// table.
func TestReadable(t *testing.T) {
	f := newFake(t)
	f.record(activity.File, finished)
	r := &activity.Reader{Dir: filepath.Join(f.dir, "logs")}
	defer r.Close()
	rec, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	when := time.Date(2026, 1, 2, 2, 0, 0, 0, time.UTC).Local().Format("2006-01-02 15:04:05.000")
	want := when + ` info  request_done  req_id="a\x1b[31m b"  peer_uid=4001  peer_pid=77  peer_exe=/usr/bin/editor` +
		`  entry=gen  model=chain  prompt_tokens=5  completion_tokens=7`
	if got := readable(rec); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	var sum activity.Usage
	sum.Add(rec)
	var out bytes.Buffer
	if err := usageTable(&out, &sum); err != nil {
		t.Fatal(err)
	}
	if want := `USER  PROGRAM          ENTRY  MODEL  REQUESTS  TOKENS IN  OUT  ERRORS  GONE
4001  /usr/bin/editor  gen    chain  1         5          7    0       0
`; !strings.HasSuffix(out.String(), want) {
		t.Errorf("got\n%s", &out)
	}
}

// With -f the log is printed from its first line on, across rotations, until Ctrl-C.
func TestLogFollows(t *testing.T) {
	f := newFake(t)
	if err := os.Mkdir(filepath.Join(f.dir, "logs"), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	w := newLineWriter()
	var stderr bytes.Buffer
	var code int
	var running sync.WaitGroup
	running.Go(func() {
		code = run(ctx, []string{"log", "-f", "--log-dir", filepath.Join(f.dir, "logs")}, nil, w, &stderr)
	})
	f.record(activity.File, accepted)
	w.want(t, accepted)
	f.record(activity.File, finished[:50])
	f.record(activity.File, finished[50:])
	w.want(t, finished)
	path := filepath.Join(f.dir, "logs", activity.File)
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	f.record(activity.File, hungUp+refused[:9])
	w.want(t, hungUp)
	stop()
	running.Wait()
	if code != exitInterrupted || stderr.String() != "inferdctl: torn lines left out: 1 (the daemon was killed while it wrote, or is writing)\n" {
		t.Errorf("exit %d, %q", code, &stderr)
	}
}
