package web

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/draw"
	_ "image/jpeg" // a format of images
	_ "image/png"  // a format of images
	"math"
	"net/http"
	"strings"

	"github.com/inferd-go/inferd/internal/infer"
)

// Limits of media.
const (
	maxAttachments = 32
	maxMedia       = 128 << 20 // decoded bytes of all attachments of a request
)

// Attach adds an attachment to gen, and returns the part that refers to it. member and at are the
// name of the member and the path of the message, for errors.
func Attach(member, at string, a infer.Attachment, gen *infer.Generate) (infer.Part, error) {
	size := decodedSize(&a)
	for i := range gen.Attachments {
		size += decodedSize(&gen.Attachments[i])
	}
	switch {
	case len(gen.Attachments) == maxAttachments:
		return nil, Invalid(member, "%s: at most %d attachments are allowed", at, maxAttachments)
	case size > maxMedia:
		return nil, Refused(http.StatusRequestEntityTooLarge, "", "%s: attachments exceed %d bytes together", at, maxMedia)
	}
	a.ID = fmt.Sprintf("%s-%d", a.Kind, len(gen.Attachments))
	gen.Attachments = append(gen.Attachments, a)
	return &infer.MediaPart{Attachment: a.ID}, nil
}

// maxPixels bounds the pixels of an image. As RGB, the largest image has 48 MiB.
const maxPixels = 16 << 20

// ImageURL reads an image in a data URL, as [Image] does. Other URLs are refused.
func ImageURL(url string) (infer.Attachment, error) {
	head, data, ok := strings.Cut(url, ",")
	switch {
	case !strings.HasPrefix(head, "data:"):
		return infer.Attachment{}, errors.New("an image must be a data: URL: nothing is fetched")
	case !ok || !strings.HasSuffix(head, ";base64"):
		return infer.Attachment{}, errors.New("an image must have base64 data")
	}
	return Image(data)
}

// Image reads a PNG or JPEG image in base64. The image stays encoded until [Ask.Decode].
func Image(data string) (infer.Attachment, error) {
	raw, err := Base64(data)
	if err != nil {
		return infer.Attachment{}, fmt.Errorf("image: %w", err)
	}
	cfg, _, err := image.DecodeConfig(bytes.NewReader(raw))
	switch {
	case err != nil:
		return infer.Attachment{}, errors.New("an image must be PNG or JPEG")
	case cfg.Width <= 0 || cfg.Height <= 0 || cfg.Width > maxPixels/cfg.Height:
		return infer.Attachment{}, fmt.Errorf("the image has %d × %d pixels, at most %d are allowed", cfg.Width, cfg.Height, maxPixels)
	}
	return infer.Attachment{Kind: infer.Image, Width: cfg.Width, Height: cfg.Height, Data: raw}, nil
}

// decodedSize returns the number of bytes of an attachment after decoding; an image becomes RGB.
func decodedSize(a *infer.Attachment) int { return max(len(a.Data), 3*a.Width*a.Height) }

// decodeMemory is the number of bytes that decoding takes for each pixel: 8 for the decoded image,
// 4 for the image on a white background, 3 for RGB.
const decodeMemory = 15

// Images returns the number of bytes of memory that Decode will take; it is 0 if there are no
// images.
func (a *Ask) Images() (size int64) {
	for _, m := range a.Generate.Attachments {
		if m.Kind == infer.Image {
			size += int64(m.Width) * int64(m.Height) * decodeMemory
		}
	}
	return size
}

// Decode decodes the images to RGB. It must be called only once. It takes much memory and time even
// for a small body, so the caller must limit both.
func (a *Ask) Decode() error {
	for i := range a.Generate.Attachments {
		m := &a.Generate.Attachments[i]
		if m.Kind != infer.Image {
			continue
		}
		decoded, _, err := image.Decode(bytes.NewReader(m.Data))
		if err != nil {
			return Invalid(a.History, "image %d is damaged", i)
		}
		m.Data = RGB(decoded)
	}
	return nil
}

// RGB returns the pixels of an image, 3 bytes each. Transparent pixels are drawn on white.
func RGB(m image.Image) []byte {
	b := m.Bounds()
	flat := image.NewRGBA(image.Rect(0, 0, b.Dx(), b.Dy()))
	draw.Draw(flat, flat.Bounds(), image.White, image.Point{}, draw.Src)
	draw.Draw(flat, flat.Bounds(), m, b.Min, draw.Over)
	out := make([]byte, 0, 3*b.Dx()*b.Dy())
	for i := 0; i < len(flat.Pix); i += 4 {
		out = append(out, flat.Pix[i:i+3]...)
	}
	return out
}

// Base64 decodes standard base64. It ignores white space.
func Base64(text string) ([]byte, error) {
	if strings.ContainsAny(text, " \t\r\n") {
		text = strings.Join(strings.Fields(text), "")
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, errors.New("the data is not base64")
	}
	return raw, nil
}

// WAV decodes a WAV file of 16-bit samples, given in base64, and mixes its channels to mono. format must be "wav".
func WAV(data, format string) (infer.Attachment, error) {
	if format != "wav" {
		return infer.Attachment{}, fmt.Errorf("input_audio of format %.16q is not supported: wav is", format)
	}
	raw, err := Base64(data)
	if err != nil {
		return infer.Attachment{}, fmt.Errorf("input_audio: %w", err)
	}
	if len(raw) < 12 || string(raw[:4]) != "RIFF" || string(raw[8:12]) != "WAVE" {
		return infer.Attachment{}, errors.New("input_audio is not a WAV file")
	}
	channels, rate := 0, 0
	for rest := raw[12:]; len(rest) >= 8; {
		kind, size := string(rest[:4]), int(binary.LittleEndian.Uint32(rest[4:]))
		body := rest[8:min(8+size, len(rest))]
		rest = rest[min(8+size+size%2, len(rest)):]
		switch {
		case kind == "fmt " && len(body) >= 16:
			channels, rate = int(binary.LittleEndian.Uint16(body[2:])), int(binary.LittleEndian.Uint32(body[4:]))
			if pcm := binary.LittleEndian.Uint16(body); pcm != 1 || binary.LittleEndian.Uint16(body[14:]) != 16 {
				return infer.Attachment{}, errors.New("input_audio must have 16-bit PCM samples")
			}
		case kind == "data" && channels > 0 && rate > 0:
			return infer.Attachment{Kind: infer.Audio, SampleRate: rate, Data: mono(body, channels)}, nil
		}
	}
	return infer.Attachment{}, errors.New("input_audio has no samples")
}

// mono returns the mean of all channels, as little-endian float32 samples.
func mono(pcm []byte, channels int) []byte {
	frame := 2 * channels
	out := make([]byte, 0, len(pcm)/frame*4)
	for ; len(pcm) >= frame; pcm = pcm[frame:] {
		sum := 0
		for c := range channels {
			sum += int(int16(binary.LittleEndian.Uint16(pcm[2*c:])))
		}
		sample := float32(sum) / float32(channels) / (1 << 15)
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(sample))
	}
	return out
}
