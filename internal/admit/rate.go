package admit

import (
	"math"
	"time"
)

// memory is the time constant of a rate: what was that long ago counts for a third, nearly.
const memory = 5 * time.Second

// A rate is how much there has been a second of late: what is longer ago counts for
// exponentially less.
type rate struct {
	perSecond float64
	when      time.Time // perSecond was true
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
