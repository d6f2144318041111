package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/inferd-go/inferd/bench/load"
	"github.com/inferd-go/inferd/internal/builtin"
)

const (
	unreadSlots  = 4   // the default of the daemon
	unreadQueue  = 128 // requests of one caller
	unreadTokens = 8000
	unreadEvery  = 500 * time.Millisecond
	unreadLimit  = 5 * time.Second // for the first token of a short request
	unreadSettle = time.Minute     // limit of settle
	bystander    = 1000            // number of a user outside the crowd
)

// A crowd is a number of users with connections that never read.
type crowd struct {
	users, each int
}

func (c crowd) String() string {
	if c.users == 1 {
		return fmt.Sprintf("%d never-readers of one user", c.each)
	}
	return fmt.Sprintf("%d users of %d never-readers", c.users, c.each)
}

// unread measures the TTFT of short requests beside clients that request long answers and never
// read. The model is builtin:tiny on every machine: its answers fill the daemon's socket buffers
// within a second, and then the daemon cannot write.
func (p *peers) unread() error {
	crowds := []crowd{{1, 4}, {1, 40}}
	if p.root {
		crowds = append(crowds, crowd{4, 1}, crowd{40, 1}, crowd{250, 1})
		if p.crowd {
			crowds = append(crowds, crowd{4, 1000})
		}
	}
	model, err := builtin.Ensure(p.bin, "tiny")
	if err != nil {
		return err
	}
	fmt.Fprintf(p.out, "   model builtin:tiny, %d slots, answers of %d tokens, v1\n", unreadSlots, unreadTokens)
	for _, c := range crowds {
		for i, b := range p.builds {
			r, err := p.besideUnread(b, model, c)
			switch {
			case err == nil:
				p.reportUnread(b, c, r)
			case i > 0 && p.ctx.Err() == nil: // an older build may fail here
				p.report(fmt.Sprintf("%s, %s", b.name, c), "", "NOT MEASURED: %v", err)
			default:
				return fmt.Errorf("%s, %s: %w", b.name, c, err)
			}
		}
	}
	if !p.root {
		p.report("4, 40 and 250 users of one never-reader", "", "not measured: only root can be several users")
	}
	return nil
}

// An unreadResult has the outcomes of short requests by two users, on an idle server and beside a
// crowd.
type unreadResult struct {
	idle, beside [2]*shorts // of the bystander, and of a user and program in the crowd
	asked        int        // number of requests of the crowd

	settled          time.Duration // until no request of the crowd ran or waited
	running, waiting int           // requests of the crowd after that; not 0 if the time limit was reached
}

func (p *peers) besideUnread(b build, model string, c crowd) (r *unreadResult, err error) {
	s, err := p.startBuild(b, inferdOptions{model: model, slots: unreadSlots, queueDepth: unreadQueue})
	if err != nil {
		return nil, err
	}
	defer p.stop(s)
	r = new(unreadResult)
	if r.idle, err = p.twoUsers(s); err != nil {
		return nil, err
	}
	stop, err := p.startUnread(s, c)
	if err != nil {
		return nil, err
	}
	if err := r.settle(p, s); err != nil {
		_, err2 := stop()
		return nil, errors.Join(err, err2)
	}
	r.beside, err = p.twoUsers(s)
	asked, err2 := stop()
	r.asked = asked
	return r, errors.Join(err, err2, p.ctx.Err())
}

// settle waits until every request of the crowd is blocked in a write. Before that, the socket
// buffers take the answers, hundreds of tokens each. The daemon then cannot distinguish the crowd
// from clients that read, so other users get only their share. settle gives up after unreadSettle.
func (r *unreadResult) settle(p *peers, s *testServer) error {
	begin := time.Now()
	for {
		sleepFor(p.ctx, 100*time.Millisecond)
		stats, err := s.daemon.stats()
		if err != nil {
			return err
		}
		r.settled, r.running, r.waiting = time.Since(begin), stats.Running, stats.Waiting
		switch {
		case p.ctx.Err() != nil:
			return context.Cause(p.ctx)
		case r.running+r.waiting == 0 && r.settled >= 3*time.Second, r.settled >= unreadSettle:
			return nil
		}
	}
}

// twoUsers sends short requests of the bystander, and of the first user and program in the crowd.
func (p *peers) twoUsers(s *testServer) (all [2]*shorts, err error) {
	var group sync.WaitGroup
	errs := make([]error, len(all))
	n := p.size(60, 10) * int(time.Second/unreadEvery)
	for i, user := range []int{bystander, 0} {
		client, err := p.caller(user, 0)
		if err != nil {
			return all, err
		}
		group.Go(func() {
			sleepFor(p.ctx, time.Duration(i)*unreadEvery/2)
			all[i], errs[i] = p.shortOnes(s, client, n, unreadEvery, unreadLimit)
		})
	}
	group.Wait()
	return all, errors.Join(errs...)
}

// startUnread starts the crowd's process, which runs the program of the first user. stop ends the
// process, and returns the number of requests that it has sent.
func (p *peers) startUnread(s *testServer, c crowd) (stop func() (int, error), err error) {
	if _, err := p.caller(0, 0); err != nil { // makes the file of the program
		return nil, err
	}
	order := load.Unread{
		Target:  load.Target{Dialect: load.V1, Path: filepath.Join(s.daemon.dir, v1Leaf)},
		Request: prompt(32, unreadTokens), First: -1, Users: c.users, Each: c.each,
	}
	if p.root {
		order.First = p.uid
	}
	cmd := exec.CommandContext(p.ctx, p.program(0, 0), "never-read")
	cmd.Dir, cmd.Stderr, cmd.Env = "/", p.errors, []string{"GOMAXPROCS=1"}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	dec := json.NewDecoder(out)
	var state load.UnreadState
	stop = func() (int, error) {
		_ = in.Close()
		err := dec.Decode(&state)
		_, _ = io.Copy(io.Discard, out)
		return state.Asked, errors.Join(err, cmd.Wait())
	}
	if err := errors.Join(json.NewEncoder(in).Encode(order), dec.Decode(&state)); err != nil {
		_, err2 := stop()
		return nil, fmt.Errorf("never-readers: %w", errors.Join(err, err2))
	}
	return stop, nil
}

// reportUnread prints the TTFTs of both users.
func (p *peers) reportUnread(b build, c crowd, r *unreadResult) {
	idle := percentile(r.idle[0].ttft, 99)
	step := median(r.idle[0].gaps)
	goals := [2]string{"p99 <= " + ms(3*idle/2+step), "p99 <= 1.5 s"}
	if c.each > unreadQueue {
		goals[1] = "queue_full" // the queue of the caller is full
	}
	for i, name := range []string{fmt.Sprintf("%s, %s: TTFT, another user", b.name, c), "  TTFT, the same user and program"} {
		if b != p.builds[0] {
			goals[i] = ""
		}
		p.report(name, goals[i], "%s", r.beside[i])
		p.report("    idle", "", "%s", r.idle[i])
	}
	p.report("  requests of the never-readers", "", "%d (settled after %.1f s; then %d running, %d waiting)", r.asked, r.settled.Seconds(), r.running, r.waiting)
}

// shorts has the outcomes of short requests that are sent at fixed times.
type shorts struct {
	ttft   []time.Duration // of a request without a first token: the time limit
	gaps   []time.Duration // gaps between tokens
	missed int             // number of requests without a first token
	why    string          // why one of these had none
}

func (s *shorts) String() string {
	text := fmt.Sprintf("p50 %s, p99 %s", ms(median(s.ttft)), ms(percentile(s.ttft, 99)))
	if s.missed > 0 {
		text += fmt.Sprintf(" (%d of %d: %s)", s.missed, len(s.ttft), s.why)
	}
	return text
}

// add adds the outcome of a request. limit is the longest wait for its first token.
func (s *shorts) add(o *load.Outcome, limit time.Duration) {
	if o.First == 0 {
		s.missed++
		s.ttft = append(s.ttft, limit)
		switch {
		case o.Gone:
			s.why = "no token in " + limit.String()
		case o.Err() != nil:
			s.why = o.Err().Error()
		default:
			s.why = "an empty answer"
		}
		return
	}
	s.ttft = append(s.ttft, o.TTFT())
	for i := 1; i < len(o.Arrivals); i++ {
		s.gaps = append(s.gaps, o.Arrivals[i].Sub(o.Arrivals[i-1]))
	}
}

// shortOnes sends n short requests at a fixed interval, without waiting for answers. Each may take
// limit until its first token; if limit is 0, each must be answered.
func (p *peers) shortOnes(s *testServer, client load.Doer, n int, every, limit time.Duration) (*shorts, error) {
	var (
		all    sync.WaitGroup
		failed settled
		mu     sync.Mutex // guards result
		result shorts
	)
	begin := load.Now().After(100 * time.Millisecond)
	for i := range n {
		due := begin.After(time.Duration(i) * every)
		all.Go(func() {
			o := client.Ask(p.ctx, load.Shot{Target: s.target, Request: prompt(32, 8), Due: due, LeaveWithin: limit, Trace: true}, nil)
			if limit == 0 {
				failed.add(o.Err())
			}
			mu.Lock()
			defer mu.Unlock()
			result.add(&o, limit)
		})
	}
	all.Wait()
	return &result, failed.err()
}
