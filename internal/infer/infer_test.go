package infer_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/internal/infer"
)

// Settled uses the defaults of the surface only for absent members: a sampling parameter that is
// given as zero is not absent.
func TestSettled(t *testing.T) {
	every := infer.Sampling{
		Temperature: new(1.0), TopK: new(40), TopP: new(0.9), MinP: new(0.1), RepeatPenalty: new(1.1), PresencePenalty: new(1.0),
		FrequencyPenalty: new(2.0), Seed: new(uint32(7)), LogitBias: map[int]float64{1: 1},
	}
	zeros := infer.Sampling{
		Temperature: new(0.0), TopK: new(0), TopP: new(0.0), MinP: new(0.0), RepeatPenalty: new(0.0), PresencePenalty: new(0.0),
		FrequencyPenalty: new(0.0), Seed: new(uint32(0)), LogitBias: map[int]float64{},
	}
	for name, test := range map[string]struct{ said, want infer.Generate }{
		"nothing is said": {infer.Generate{}, infer.Generate{MaxTokens: 9, Sampling: every}},
		"zeros are said":  {infer.Generate{MaxTokens: 1, Sampling: zeros}, infer.Generate{MaxTokens: 1, Sampling: zeros}},
	} {
		said := test.said
		said.Defaults = infer.Defaults{MaxTokens: 9, Sampling: every}
		if diff := cmp.Diff(&test.want, said.Settled()); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
	}
}

// Each combination of user, key and salt has its own part of the retained KV. Without a user and a
// key, no KV is retained, and a relayed request does not use the KV of the relaying user.
func TestCachePart(t *testing.T) {
	seen := make(map[string]bool)
	for _, user := range []string{"", "1000"} {
		for _, key := range []string{"", "ci"} {
			for _, salt := range []string{"", "ci", "x"} {
				req := infer.Request{Peer: infer.Peer{User: user, Key: key, Program: "p"}, CacheSalt: salt, Client: "c"}
				if got, want := req.Peer.Owns(), user != "" || key != ""; got != want {
					t.Errorf("%q, %q: owns %v", user, key, got)
				}
				owner := user + " " + req.CachePart()
				if seen[owner] {
					t.Errorf("two owners are called %q", owner)
				}
				seen[owner] = true
			}
		}
	}
	for key, want := range map[string]bool{"": false, "ci": true} {
		if p := (infer.Peer{User: "1000", Key: key, Relayed: true}); p.Owns() != want || p.Owner() != "" || p.Caller().User != "1000" {
			t.Errorf("a relayed request with key %q: owns %v, owner %q", key, p.Owns(), p.Owner())
		}
	}
	if part := (&infer.Request{Peer: infer.Peer{User: "1000"}}).CachePart(); part != "" {
		t.Errorf("without a key and a salt: %q", part)
	}
}
