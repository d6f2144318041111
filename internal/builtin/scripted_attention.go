package builtin

import (
	"math"
	"slices"
)

// This file contains the attention of a [Scripted] model: the products of its queries and keys
// yield the bits of the distance from an anchor.

const ropeBase = 10000

// sign returns a bit of the remainders of an index of the script, as 1 or -1.
func sign(index, bit int) float64 {
	if index%periods[bit/digitBits]>>(bit%digitBits)&1 == 1 {
		return 1
	}
	return -1
}

// pairs calls each for every pair of dimensions that rotates, with the index of the pair's period
// and its frequency in radians per token. The last pair of a head does not rotate.
func pairs(each func(pair, period int, frequency float64)) {
	pair := 0
	for i, period := range periods {
		for harmonic := 1; harmonic <= period/2; harmonic++ {
			each(pair, i, 2*math.Pi*float64(harmonic)/float64(period))
			pair++
		}
	}
}

// still is the first dimension of the pair that does not rotate.
const still = scriptWidth - 2

// factors returns the divisors that turn llama's frequencies into those of [pairs].
func factors() []float32 {
	all := slices.Repeat([]float32{1e12}, scriptWidth/2)
	pairs(func(pair, _ int, frequency float64) {
		all[pair] = float32(math.Pow(ropeBase, -2*float64(pair)/scriptWidth) / frequency)
	})
	return all
}

// query returns a dimension of the query of a head: a coefficient of the Fourier series of the
// head's bit.
func query(head, dimension int) (value float64) {
	if head == signBits {
		if dimension == still {
			value = sharpness
		}
		return value
	}
	period := periods[head/digitBits]
	if dimension == still {
		for remainder := range period {
			value += sharpness * sign(remainder, head) / float64(period)
		}
	}
	pairs(func(pair, own int, frequency float64) {
		if own != head/digitBits || dimension/2 != pair {
			return
		}
		for remainder := range period {
			sin, cos := math.Sincos(float64(remainder) * frequency)
			if dimension%2 == 1 {
				cos = -sin
			}
			value += 2 * sharpness * sign(remainder, head) * cos / float64(period)
		}
	})
	return value
}

// key returns a dimension of the key of an anchor. The key is rotated as if the anchor's position were
// lower by first, so that a distance equals an index of the script.
func key(dimension, first int) (value float64) {
	if dimension == still {
		return 1
	}
	pairs(func(pair, _ int, frequency float64) {
		switch dimension {
		case 2 * pair:
			value = math.Cos(-float64(first) * frequency)
		case 2*pair + 1:
			value = math.Sin(-float64(first) * frequency)
		}
	})
	return value
}
