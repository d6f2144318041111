package constraint

import "slices"

// maxRefusals and maxOwnRefusals bound the cached refusals, of all owners and of one owner.
const (
	maxRefusals    = 256
	maxOwnRefusals = 32
)

// refusals are the errors of the sources that were refused last, the oldest first. They save the
// time of a compile when a client repeats its request.
type refusals []refusal

type refusal struct {
	key key
	err error
}

// find returns the cached error of a source, or nil.
func (r refusals) find(k key) error {
	if i := slices.IndexFunc(r, func(x refusal) bool { return x.key == k }); i >= 0 {
		return r[i].err
	}
	return nil
}

// add adds an error. It first drops the owner's oldest error if the owner has maxOwnRefusals, or
// otherwise the oldest of all owners if there are maxRefusals.
func (r *refusals) add(k key, err error) {
	own, oldest := 0, -1
	for i, x := range *r {
		if x.key.owner == k.owner {
			if own++; oldest < 0 {
				oldest = i
			}
		}
	}
	switch {
	case own >= maxOwnRefusals:
		*r = slices.Delete(*r, oldest, oldest+1)
	case len(*r) >= maxRefusals:
		*r = slices.Delete(*r, 0, 1)
	}
	*r = append(*r, refusal{k, err})
}

// refuse caches the error of a source.
func (c *Compiler) refuse(k key, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused.add(k, err)
}
