package activity

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/internal/exchange"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

var update = flag.Bool("update", false, "write the golden file")

// The lines for all kinds of records, each with all of its members, equal the golden file. Other
// programs read the lines, so names and forms must not change.
func TestLinesOfRecords(t *testing.T) {
	const us = time.Microsecond
	unix := infer.Peer{Transport: infer.Unix, User: "1000", Group: "100", PID: 42, Exe: "/usr/bin/x", Program: "8:1"}
	windows := infer.Peer{Transport: infer.Pipe, User: "S-1-5-21", PID: 43, Exe: `C:\x.exe`}
	tcp := infer.Peer{Transport: infer.TCP}
	admission := infer.Admitted{Queued: 1500 * us, Entry: "gen", Backend: "llamacpp", Model: "chain"}
	times := infer.Timings{Queue: 1500 * us, Prefill: 2 * time.Millisecond, Decode: 3250 * us}
	records := []any{
		// a connection
		&exchange.Connection{Peer: unix, Dialect: wire.V1},
		// a connection over TCP
		&exchange.Connection{Peer: tcp, Dialect: wire.V2, Addr: "127.0.0.1:9"},
		// v1, done
		&exchange.Record{
			Peer: unix, Dialect: wire.V1, Outcome: exchange.Done, ID: "token=swordfish " + strings.Repeat("é", 100), Task: exchange.Generate,
			Admitted: true, Admission: admission, Started: true, Timings: times,
			Answered: true, Usage: infer.Done{Reason: infer.Length, In: 12, Cached: 3, Out: 34, Unsatisfied: true}, Attachments: 1, Tools: 2,
		},
		// v2, done
		&exchange.Record{
			Peer: windows, Dialect: wire.V2, Outcome: exchange.Done, ID: "a", TraceID: "0af7651916cd43dd8448eb211c80319c", Task: exchange.Generate,
			Admitted: true, Admission: admission, Started: true, Timings: times,
			Answered: true, Usage: infer.Done{Reason: infer.CalledTool, In: 12, Cached: 3, Out: 34, Unsatisfied: true}, Attachments: 1, Tools: 2,
		},
		// embed, done
		&exchange.Record{
			Peer: unix, Dialect: wire.Embed, Outcome: exchange.Done, Task: exchange.Embed,
			Admitted: true, Admission: admission, Started: true, Timings: times,
			Answered: true, Usage: infer.Done{Reason: infer.EndOfTurn, In: 12}, Inputs: 2, Dimensions: 8,
		},
		// rerank, done
		&exchange.Record{
			Peer: tcp, Dialect: wire.Rerank, Outcome: exchange.Done, ID: "a", Task: exchange.Rerank,
			Admitted: true, Admission: infer.Admitted{Entry: "gen", Backend: "mock"}, Started: true, Timings: times,
			Answered: true, Usage: infer.Done{Reason: infer.EndOfTurn, In: 12}, Documents: 3, Results: 2,
		},
		// v2, gone from the queue
		&exchange.Record{Dialect: wire.V2, Outcome: exchange.Gone, Stage: exchange.Queue, ID: "a", Task: exchange.Generate, Timings: infer.Timings{Queue: 1500 * us}},
		// v1, gone without reading its answer
		&exchange.Record{
			Peer: unix, Dialect: wire.V1, Outcome: exchange.Gone, Stage: exchange.Unread, ID: "a", Task: exchange.Generate,
			Admitted: true, Admission: admission, Started: true, Timings: times,
			Answered: true, Usage: infer.Done{Reason: infer.EndOfTurn, In: 12, Out: 34},
		},
		// v2, refused
		&exchange.Record{Peer: unix, Dialect: wire.V2, Outcome: exchange.Refused, Code: infer.Busy, ID: "a", Task: exchange.Generate},
		// embed, failed in the middle
		&exchange.Record{
			Dialect: wire.Embed, Outcome: exchange.Failed, Code: infer.Malformed, ID: "a", Task: exchange.Embed,
			Admitted: true, Admission: admission, Started: true, Timings: times,
		},
		// OpenAI's interface, done; and a request that only counts tokens
		&exchange.Record{
			Peer: infer.Peer{Transport: infer.TCP, User: "1000", Program: "ci", Key: "ci"}, Dialect: wire.OpenAI, Outcome: exchange.Done, ID: "req_1", Task: exchange.Generate,
			Admitted: true, Admission: admission, Started: true, Timings: times, Answered: true, Usage: infer.Done{Reason: infer.EndOfTurn, In: 12, Out: 34},
		},
		&exchange.Record{
			Peer: unix, Dialect: wire.V2, Outcome: exchange.Done, ID: "a", Task: exchange.Count,
			Admitted: true, Admission: admission, Timings: times, Answered: true, Usage: infer.Done{Reason: infer.EndOfTurn, In: 12},
		},
		// a connection over HTTP
		&exchange.Connection{Peer: tcp, Dialect: wire.HTTP, Addr: "127.0.0.1:9"},
		// a message that is not a request
		&exchange.Record{Peer: unix, Dialect: wire.V1, Outcome: exchange.Unreadable, Code: infer.TooLarge},
	}
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		l := opened(t, dir, Limit)
		defer l.Close() // in the bubble
		for _, r := range records {
			switch r := r.(type) {
			case *exchange.Connection:
				l.Connection(r)
			case *exchange.Record:
				l.Request(r)
			}
		}
		l.Flush()
		got := strings.Join(lines(t, dir), "")
		golden := filepath.Join("testdata", "records.ndjson")
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}
