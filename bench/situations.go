package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"time"

	"github.com/inferd-go/inferd/bench/load"
	"github.com/inferd-go/inferd/client"
)

// vocabulary has words that are one token in most tokenizers.
var vocabulary = strings.Fields(`the of and to in is that for it as was with be by on not he his but at are this have from
	or had an they which one you were all her she there would their we him been has when who will no more if out so up said
	what its about than into them can only other time new some could these two may first then do any like my now over such
	our man me even most made after also did many off before must well back through years much where your way down should
	because long each just state people those too mr how little good world make very year still see own work men day get
	here old life both between being under three never know same last another while us might great go come since against
	right came take used himself few house use during without again place around home small found part once general high`)

// prose returns a text of roughly n tokens, which depends only on seed and n.
func (s subject) prose(seed uint64, n int) string {
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	var b bytes.Buffer
	for words := 0; words < n && (!s.bytes || b.Len() < n); words++ {
		if words > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(vocabulary[r.IntN(len(vocabulary))])
	}
	if s.bytes {
		b.Truncate(min(b.Len(), n))
	}
	return b.String()
}

// between returns number i of n evenly spaced numbers: number 0 is from, and number n-1 is to.
func between(from, to, i, n int) int { return from + (to-from)*i/max(n-1, 1) }

// An answered has the parts of an answer that are compared.
type answered struct {
	first firstValue
	text  string
	in    int // tokens of the prompt
}

// ask sends a conversation to a daemon, and returns the greedy answer.
func (a *answers) ask(d *daemon, turns ...string) (answered, error) {
	zero := 0.0
	req := &client.Request{MaxTokens: answerTokens, Temperature: &zero, Logprobs: 1}
	if a.seeded {
		req.Seed = new(int64(7))
	}
	return a.generate(d, req, turns)
}

// generate appends the turns to req, sends it to a daemon, and returns the answer. The turns are
// those of the user and the assistant, alternately.
func (a *answers) generate(d *daemon, req *client.Request, turns []string) (answered, error) {
	for i, turn := range turns {
		req.Messages = append(req.Messages, client.Text([...]client.Role{client.User, client.Assistant}[i%2], turn))
	}
	c := client.Client{Dir: d.dir}
	conn, err := c.Dial(a.ctx, client.V2)
	if err != nil {
		return answered{}, err
	}
	defer conn.Close()
	got, err := client.Collect(conn.Generate(a.ctx, req))
	if err != nil {
		return answered{}, err
	}
	out := answered{text: got.Text, in: got.InputTokens}
	if len(got.Logprobs) > 0 {
		out.first = firstValue{got.Logprobs[0].ID, got.Logprobs[0].Logprob, true}
	}
	return out, nil
}

// fresh sends a conversation to a new engine, and returns the answer.
func (a *answers) fresh(s subject, turns ...string) (answered, error) {
	d, err := a.startEntry(s.file, "")
	if err != nil {
		return answered{}, err
	}
	defer d.stop()
	return a.ask(d, turns...)
}

// A trial compares the answers of one model in all situations.
type trial struct {
	*answers
	subject

	prompts        []string
	secondQuestion string     // second question of each conversation
	first          []answered // answers of fresh engines
	second         []answered // answers of fresh engines to the second question

	daemon   *daemon
	stranger *load.Caller
}

// texts compares the answers of each model in all situations.
func (a *answers) texts(models []subject) error {
	for _, s := range models {
		t := &trial{answers: a, subject: s, secondQuestion: s.prose(1, 12)}
		for i := range a.prompts {
			t.prompts = append(t.prompts, s.prose(uint64(100+i), between(10, 20, i, a.prompts)))
		}
		for i := range a.prompts {
			t.prompts = append(t.prompts, s.prose(uint64(200+i), between(100, 300, i, a.prompts)))
		}
		if err := errors.Join(t.reference(), t.run()); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// controlPrompts is the number of prompts that a second fresh engine also answers.
const controlPrompts = 8

// reference collects the answers of fresh engines to each prompt and to the second question. It
// also compares some of the answers, about controlPrompts of them, with those of a second fresh engine,
// and prints the result.
func (t *trial) reference() error {
	var c comparison
	var in []int
	for i, p := range t.prompts {
		one, err := t.fresh(t.subject, p)
		if err != nil {
			return err
		}
		two, err := t.fresh(t.subject, p, one.text, t.secondQuestion)
		if err != nil {
			return err
		}
		t.first, t.second = append(t.first, one), append(t.second, two)
		in = append(in, one.in)
		if i%max(len(t.prompts)/controlPrompts, 1) == 0 {
			again, err := t.fresh(t.subject, p)
			if err != nil {
				return err
			}
			c.add(one, again)
		}
	}
	half := len(in) / 2
	t.line(t.name, "fresh again", &c)
	fmt.Fprintf(t.out, "%-15s %-10s prompts of %d to %d and %d to %d tokens\n", t.cpu, t.name, in[0], in[half-1], in[half], in[len(in)-1])
	return nil
}

// A situation is the state in which an engine gets the prompts: before, beside and warm bring it
// about. turn returns the turns to send, and a fresh engine's answer to them.
type situation struct {
	name   string
	before func(*trial) error                          // called once before the prompts; may be nil
	beside func(*trial, context.Context) (wait func()) // runs until ctx ends; may be nil
	warm   func(t *trial, i int) error                 // called before each prompt; may be nil
	turn   func(t *trial, i int) (turns []string, fresh answered)
}

var situations = []situation{
	{name: "after a history", before: (*trial).history, turn: (*trial).question},
	{name: "loaded from memory", before: (*trial).rest, turn: (*trial).question},
	{name: "asked again at once", warm: (*trial).warmUp, turn: (*trial).question},
	{name: "second turn", warm: (*trial).warmUp, turn: (*trial).followUp},
	{name: "second turn, loaded from memory", before: (*trial).rest, turn: (*trial).followUp},
	{name: "beside three writers", beside: (*trial).writers, turn: (*trial).question},
	{name: "beside a stranger's prompts of 400 tokens", beside: (*trial).reader, turn: (*trial).question},
	{name: "at rest again", before: (*trial).rest, turn: (*trial).question},
}

// run sends the prompts to one engine in each situation, and prints how many answers equal those of
// fresh engines.
func (t *trial) run() (err error) {
	if t.daemon, err = t.startEntry(t.file, ""); err != nil {
		return err
	}
	defer t.daemon.stop()
	if t.stranger, err = t.answers.stranger(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.stranger.Close()) }()
	for _, s := range situations {
		if err := t.compare(s); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

func (t *trial) compare(s situation) error {
	if s.before != nil {
		if err := s.before(t); err != nil {
			return err
		}
	}
	if s.beside != nil {
		ctx, end := context.WithCancel(t.ctx)
		wait := s.beside(t, ctx)
		defer wait()
		defer end()
	}
	var c comparison
	for i := range t.prompts {
		if s.warm != nil {
			if err := s.warm(t, i); err != nil {
				return err
			}
		}
		before, err := t.cached()
		if err != nil {
			return err
		}
		turns, fresh := s.turn(t, i)
		now, err := t.ask(t.daemon, turns...)
		if err != nil {
			return err
		}
		after, err := t.cached()
		if err != nil {
			return err
		}
		c.add(fresh, now)
		c.cached += after - before
	}
	t.line(t.name, s.name, &c)
	return nil
}

func (t *trial) question(i int) ([]string, answered) { return t.prompts[i : i+1], t.first[i] }

// followUp returns the turns up to the second question, with a fresh engine's answer to the first,
// and a fresh engine's answer to the second.
func (t *trial) followUp(i int) ([]string, answered) {
	return []string{t.prompts[i], t.first[i].text, t.secondQuestion}, t.second[i]
}

func (t *trial) warmUp(i int) error {
	_, err := t.ask(t.daemon, t.prompts[i])
	return err
}

// cached returns how many prompt tokens the engine has found in its cache so far.
func (t *trial) cached() (int64, error) {
	stats, err := t.engine()
	if err != nil {
		return 0, err
	}
	return stats.CachedTokens, nil
}

func (t *trial) engine() (*client.EngineStats, error) {
	c := client.Client{Dir: t.daemon.dir}
	stats, err := c.Stats(t.ctx)
	switch {
	case err != nil:
		return nil, err
	case len(stats.Backends) != 1 || stats.Backends[0].Engine == nil:
		return nil, errors.New("the engine does not answer")
	}
	return stats.Backends[0].Engine, nil
}

// shot returns a request for the stranger to send: a new prompt of in tokens, and an answer of at most
// out tokens.
func (t *trial) shot(in, out int) load.Shot {
	return load.Shot{
		Target:  load.Target{Dialect: load.V2, Path: filepath.Join(t.daemon.dir, v2Leaf)},
		Request: load.Request{Turns: []string{t.prose(rand.Uint64(), in)}, MaxTokens: out, Temperature: 1},
	}
}

// history sends 12 requests of the other user, at most 4 at a time.
func (t *trial) history() error {
	var failed settled
	left := make(chan load.Shot, 12)
	for i := range cap(left) {
		left <- t.shot(between(20, 500, i, cap(left)), 150)
	}
	close(left)
	done := make(chan struct{})
	for range 4 {
		go func() {
			defer func() { done <- struct{}{} }()
			for s := range left {
				o := t.stranger.Ask(t.ctx, s, nil)
				failed.add(o.Err())
			}
		}()
	}
	for range 4 {
		<-done
	}
	return failed.err()
}

// rest waits until the engine has offloaded all retained KV.
func (t *trial) rest() error {
	for deadline := time.Now().Add(restLimit); time.Now().Before(deadline); sleepFor(t.ctx, 50*time.Millisecond) {
		stats, err := t.engine()
		if err != nil || stats.KVKept == 0 && stats.KVUsed == 0 {
			return err
		}
	}
	return fmt.Errorf("the engine has not moved its retained KV within %s", restLimit)
}

// writers keeps three answers to the other user running until ctx ends.
func (t *trial) writers(ctx context.Context) (wait func()) {
	return t.strangers(ctx, 3, func() load.Shot { return t.shot(30, 400) })
}

// reader sends prompts of 400 tokens of the other user, one after the other, until ctx ends.
func (t *trial) reader(ctx context.Context) (wait func()) {
	return t.strangers(ctx, 1, func() load.Shot { return t.shot(400, 2) })
}

// strangers sends requests of the other user on n connections until ctx ends. It returns after half
// a second, when they run.
func (t *trial) strangers(ctx context.Context, n int, shot func() load.Shot) (wait func()) {
	wait = again(ctx, t.stranger, n, shot, func(*load.Outcome) {})
	sleepFor(ctx, 500*time.Millisecond)
	return wait
}

// seeds samples many texts with one seed on an otherwise idle engine, and compares them with the
// first, for which the engine is fresh. Before every third text the KV of the prompt is offloaded.
func (a *answers) seeds(models []subject) error {
	for _, s := range models {
		d, err := a.startEntry(s.file, "")
		if err != nil {
			return err
		}
		c, err := a.draw(d, s)
		d.stop()
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		a.line(s.name, "the same seed, idle", c)
	}
	return nil
}

func (a *answers) draw(d *daemon, s subject) (*comparison, error) {
	t := &trial{answers: a, subject: s, daemon: d}
	seed, c := int64(7), &comparison{}
	var first answered
	for i := range a.draws {
		if i%3 == 2 {
			if err := t.rest(); err != nil {
				return nil, err
			}
		}
		req := &client.Request{MaxTokens: 32, Seed: &seed, Logprobs: 1}
		now, err := a.generate(d, req, []string{s.prose(300, 40)})
		if err != nil {
			return nil, err
		}
		if i == 0 {
			first = now
		}
		c.add(first, now)
	}
	var err error
	c.cached, err = t.cached()
	return c, err
}
