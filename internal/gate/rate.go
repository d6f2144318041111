package gate

import (
	"math"
	"time"
)

// memory is the time constant of a rate: an amount that old counts for about a third.
const memory = 5 * time.Second

// A rate is an amount per second, as an average in which older amounts count exponentially
// less.
type rate struct {
	perSecond float64
	when      time.Time // the time for which perSecond holds
}

// at returns the rate at a time that is not before the last one.
func (r *rate) at(now time.Time) float64 {
	if r.perSecond == 0 {
		return 0
	}
	return r.perSecond * math.Exp(-now.Sub(r.when).Seconds()/memory.Seconds())
}

func (r *rate) add(now time.Time, n float64) {
	r.perSecond, r.when = r.at(now)+n/memory.Seconds(), now
}
