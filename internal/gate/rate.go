package gate

import (
	"math"
	"time"
)

// memory is the time constant of a rate: an amount of that age counts for about a third.
const memory = 5 * time.Second

// A rate is an amount per second: an average in which the weight of an amount decays exponentially
// with its age.
type rate struct {
	perSecond float64
	when      time.Time // the time for which perSecond holds
}

// at returns the rate at a time, which must not be before the last amount.
func (r *rate) at(now time.Time) float64 {
	if r.perSecond == 0 {
		return 0
	}
	return r.perSecond * math.Exp(-now.Sub(r.when).Seconds()/memory.Seconds())
}

func (r *rate) add(now time.Time, n float64) {
	r.perSecond, r.when = r.at(now)+n/memory.Seconds(), now
}
