package refhttp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/inferd-go/inferd/client"
)

// Limits of audio.
const (
	maxClips      = 4
	maxSamples    = 16 << 20 // samples of a clip on all channels
	maxPCM        = 48 << 20 // bytes of a clip at the new rate
	maxSampleRate = 384_000
)

// audio adds a clip as an attachment, and returns its ID. at is the path of the clip in the
// request, for errors.
func (c *Chat) audio(data, at string) (id string, err error) {
	if c.media.clips == maxClips {
		return "", Invalid("%s: at most %d clips are allowed", at, maxClips)
	}
	raw, err := decodeBase64(data, at)
	if err != nil {
		return "", err
	}
	if _, err := readWAV(raw); err != nil { // the member format is ignored
		return "", Invalid("%s: %v", at, err)
	}
	id = fmt.Sprintf("aud-%d", c.media.clips)
	c.media.clips++
	return id, c.attach(client.Attachment{ID: id, Kind: client.Audio, Data: raw}, 0, at)
}

// decodeAudio replaces the WAV file of a clip by mono samples at the given rate, in hertz.
func (c *Chat) decodeAudio(a *client.Attachment, rate int) error {
	wav, err := readWAV(a.Data)
	if err != nil {
		return Invalid("%s: %v", a.ID, err)
	}
	samples := resampled(wav.frames(), wav.rate, rate)
	c.media.decoded += 4 * samples
	switch {
	case 4*samples > maxPCM:
		return Invalid("%s has more than %d bytes at %d Hz", a.ID, maxPCM, rate)
	case c.media.decoded > maxDecoded:
		return Invalid("%s: images and audio exceed %d bytes together", a.ID, maxDecoded)
	}
	out := make([]byte, 0, 4*samples)
	for _, x := range resample(wav.mono(), wav.rate, rate) {
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(x))
	}
	a.Data, a.SampleRate = out, rate
	return nil
}

// A wav is the content of a WAV file.
type wav struct {
	data     []byte
	channels int
	rate     int // frames per second
	bytes    int // bytes of a sample
	float    bool
}

// The formats of samples in a WAV file.
const (
	pcm        = 1
	ieeeFloat  = 3
	extensible = 0xfffe // the format is in the extension
)

var errNoWAV = errors.New("audio must be a WAV file; mp3 and other formats are not supported")

// readWAV finds the samples in a WAV file. A chunk that is longer than the file ends with the file:
// a recorder that streams writes the length before the samples, and cannot write the right one.
func readWAV(raw []byte) (*wav, error) {
	if len(raw) < 12 || string(raw[:4]) != "RIFF" || string(raw[8:12]) != "WAVE" {
		return nil, errNoWAV
	}
	var w *wav
	for rest := raw[12:]; len(rest) >= 8; {
		kind, size := string(rest[:4]), int(binary.LittleEndian.Uint32(rest[4:]))
		body := rest[8:min(8+size, len(rest))]
		rest = rest[min(8+size+size%2, len(rest)):]
		switch {
		case kind == "fmt ":
			var err error
			if w, err = readFormat(body); err != nil {
				return nil, err
			}
		case kind == "data" && w != nil:
			w.data = body[:len(body)/(w.bytes*w.channels)*w.bytes*w.channels]
			if len(w.data)/w.bytes > maxSamples {
				return nil, fmt.Errorf("the audio has more than %d samples", maxSamples)
			}
			if len(w.data) == 0 {
				return nil, errors.New("the audio has no samples")
			}
			return w, nil
		}
	}
	return nil, errors.New("the WAV file has no samples")
}

func readFormat(body []byte) (*wav, error) {
	if len(body) < 16 {
		return nil, errors.New("the WAV file has no format")
	}
	format, bits := binary.LittleEndian.Uint16(body), binary.LittleEndian.Uint16(body[14:])
	if format == extensible && len(body) >= 26 {
		format = binary.LittleEndian.Uint16(body[24:])
	}
	w := &wav{
		channels: int(binary.LittleEndian.Uint16(body[2:])), rate: int(binary.LittleEndian.Uint32(body[4:])),
		bytes: int(bits) / 8, float: format == ieeeFloat,
	}
	known := format == pcm && (bits == 8 || bits == 16 || bits == 24 || bits == 32) || format == ieeeFloat && bits == 32
	switch {
	case !known:
		return nil, fmt.Errorf("WAV of format %d with %d bits is not supported: PCM of 8, 16, 24 or 32 bits is, and 32-bit float", format, bits)
	case w.channels == 0:
		return nil, errors.New("the WAV file has no channels")
	case w.rate == 0 || w.rate > maxSampleRate:
		return nil, fmt.Errorf("the WAV file has %d samples a second, it must be 1 to %d", w.rate, maxSampleRate)
	}
	return w, nil
}

// frames returns the number of samples of each channel.
func (w *wav) frames() int { return len(w.data) / (w.bytes * w.channels) }

// mono returns the mean of the channels, from -1 to 1.
func (w *wav) mono() []float32 {
	out := make([]float32, w.frames())
	for i := range out {
		var sum float64
		for c := range w.channels {
			sum += w.sample(w.data[(i*w.channels+c)*w.bytes:])
		}
		out[i] = float32(sum / float64(w.channels))
	}
	return out
}

// sample returns the sample at the beginning of data. Samples of 8 bits are unsigned.
func (w *wav) sample(data []byte) float64 {
	switch {
	case w.float:
		x := float64(math.Float32frombits(binary.LittleEndian.Uint32(data)))
		if math.IsNaN(x) {
			return 0
		}
		return min(max(x, -1), 1)
	case w.bytes == 1:
		return (float64(data[0]) - 128) / 128
	}
	var bits uint32 // the sample is in the upper bytes
	for i := range w.bytes {
		bits |= uint32(data[i]) << (8 * (4 - w.bytes + i))
	}
	return float64(int32(bits)) / (1 << 31)
}

// resampled returns the number of samples that resample makes of n samples.
func resampled(n, from, to int) int {
	return int((int64(n)*int64(to) + int64(from) - 1) / int64(from))
}

// The filter of resample extends halfTaps samples of the slower rate to each side. Its table has
// tableSteps values for each sample.
const (
	halfTaps   = 16
	tableSteps = 512
)

// filter returns the right half of the filter: a sinc in a Hann window.
func filter() []float32 {
	table := make([]float32, halfTaps*tableSteps+2) // the last two are 0
	table[0] = 1
	for i := 1; i < halfTaps*tableSteps; i++ {
		x := float64(i) / tableSteps
		table[i] = float32(math.Sin(math.Pi*x) / (math.Pi * x) * (0.5 + 0.5*math.Cos(math.Pi*x/halfTaps)))
	}
	return table
}

// resample changes the rate of samples. from and to are rates in hertz. The filter removes
// frequencies that the slower rate cannot represent.
func resample(in []float32, from, to int) []float32 {
	if from == to {
		return in
	}
	table := filter()
	cut := min(1, float64(to)/float64(from))
	half := halfTaps / cut
	out := make([]float32, resampled(len(in), from, to))
	for i := range out {
		at := float64(i) * float64(from) / float64(to)
		first, last := max(int(math.Ceil(at-half)), 0), min(int(at+half), len(in)-1)
		var sum, weight float32
		for j := first; j <= last; j++ {
			x := math.Abs(float64(j)-at) * cut * tableSteps
			k := int(x)
			w := table[k] + (table[k+1]-table[k])*float32(x-float64(k))
			sum += w * in[j]
			weight += w
		}
		if weight != 0 {
			out[i] = min(max(sum/weight, -1), 1)
		}
	}
	return out
}
