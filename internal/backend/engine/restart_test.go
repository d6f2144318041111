package engine

import (
	"slices"
	"testing"
	"time"
)

func TestRestartPolicy(t *testing.T) {
	type at struct {
		after time.Duration // since the death before
		ready bool
	}
	repeat := func(n int, a at) (all []at) {
		for range n {
			all = append(all, a)
		}
		return all
	}
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	for name, test := range map[string]struct {
		deaths []at
		want   []time.Duration // pauses; -1 means give up
	}{
		"a ready engine is replaced at once": {
			[]at{{0, true}}, []time.Duration{0},
		},
		"up to ten times a minute, then with a pause that doubles": {
			repeat(13, at{time.Second, true}),
			[]time.Duration{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, ms(100), ms(200), ms(400)},
		},
		"the pause is at most 30 s": {
			repeat(21, at{time.Second, true}),
			append(slices.Repeat([]time.Duration{0}, 10),
				ms(100), ms(200), ms(400), ms(800), ms(1600), ms(3200), ms(6400), ms(12800), ms(25600), ms(30000), ms(30000)),
		},
		"old deaths are forgotten": {
			append(repeat(10, at{time.Second, true}), at{time.Minute, true}),
			slices.Repeat([]time.Duration{0}, 11),
		},
		"three deaths in a row during load: given up": {
			repeat(3, at{0, false}), []time.Duration{0, 0, -1},
		},
		"a successful load resets the count of deaths": {
			[]at{{0, false}, {0, false}, {0, true}, {0, false}, {0, false}, {0, false}},
			[]time.Duration{0, 0, 0, 0, 0, -1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var r restartPolicy
			now := time.Unix(0, 0)
			var got []time.Duration
			for _, d := range test.deaths {
				now = now.Add(d.after)
				pause, giveUp := r.next(now, d.ready)
				if giveUp {
					pause = -1
				}
				got = append(got, pause)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got  %v\nwant %v", got, test.want)
			}
		})
	}
}
