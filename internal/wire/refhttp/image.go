package refhttp

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	_ "image/jpeg" // a format of images
	_ "image/png"  // a format of images
	"strings"

	"github.com/inferd-go/inferd/client"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// Limits of media.
const (
	maxImages     = 8
	maxSide       = 4096      // pixels
	maxEncoded    = 8 << 20   // bytes of an encoded image or clip
	maxPixelBytes = 64 << 20  // bytes of an image while it is decoded
	maxDecoded    = 128 << 20 // bytes of all decoded images and clips of a request
)

// media counts the attachments of a request, and the memory that they take when they are decoded. Until
// then, each attachment has its encoded data.
type media struct {
	images, clips int
	decoded       int // bytes of the decoded images and clips
}

// image adds the image of a data URL as an attachment, and returns its ID. at is the path of the
// image in the request, for errors.
func (c *Chat) image(url, at string) (id string, err error) {
	head, data, ok := strings.Cut(url, ",")
	switch {
	case !strings.HasPrefix(head, "data:"):
		return "", Invalid("%s: an image must be a data: URL: nothing is fetched", at)
	case !ok || !strings.Contains(head, "base64"):
		return "", Invalid("%s: an image must have base64 data", at)
	case c.media.images == maxImages:
		return "", Invalid("%s: at most %d images are allowed", at, maxImages)
	}
	raw, err := decodeBase64(data, at)
	if err != nil {
		return "", err
	}
	cfg, _, err := image.DecodeConfig(bytes.NewReader(raw))
	switch {
	case err != nil:
		return "", Invalid("%s: an image must be PNG or JPEG", at)
	case cfg.Width <= 0 || cfg.Height <= 0 || cfg.Width > maxSide || cfg.Height > maxSide:
		return "", Invalid("%s: the image has %d × %d pixels, at most %d × %d are allowed", at, cfg.Width, cfg.Height, maxSide, maxSide)
	case cfg.Width*cfg.Height*bytesPerPixel(cfg.ColorModel) > maxPixelBytes:
		return "", Invalid("%s: the image takes more than %d bytes", at, maxPixelBytes)
	}
	id = fmt.Sprintf("img-%d", c.media.images)
	c.media.images++
	a := client.Attachment{ID: id, Kind: client.Image, Width: cfg.Width, Height: cfg.Height, Data: raw}
	return id, c.attach(a, 3*cfg.Width*cfg.Height, at)
}

// bytesPerPixel returns an upper bound of the bytes that the decoder of an image with the color model m
// needs for each pixel.
func bytesPerPixel(m color.Model) int {
	switch m {
	case color.RGBA64Model, color.NRGBA64Model:
		return 8
	case color.Gray16Model:
		return 2
	}
	return 4
}

// attach adds an attachment that will take size bytes when it is decoded. It returns an error if
// all attachments together exceed maxDecoded.
func (c *Chat) attach(a client.Attachment, size int, at string) error {
	if c.media.decoded += size; c.media.decoded > maxDecoded {
		return Invalid("%s: images and audio exceed %d bytes together", at, maxDecoded)
	}
	c.Request.Attachments = append(c.Request.Attachments, a)
	return nil
}

// decodeBase64 decodes the data of an image or a clip.
func decodeBase64(text, at string) ([]byte, error) {
	raw, err := web.Base64(text)
	switch {
	case err != nil:
		return nil, Invalid("%s: %v", at, err)
	case len(raw) > maxEncoded:
		return nil, Invalid("%s: it has %d bytes, at most %d are allowed", at, len(raw), maxEncoded)
	}
	return raw, nil
}

// HasMedia reports whether the request has images or audio for [Chat.Decode].
func (c *Chat) HasMedia() bool { return c.media.images+c.media.clips > 0 }

// HasAudio reports whether [Chat.Decode] needs a sample rate.
func (c *Chat) HasAudio() bool { return c.media.clips > 0 }

// Decode decodes images to RGB, and audio to mono samples at a rate in hertz. It must be called
// only once. It takes much memory even for a small body: up to 128 MiB that stay, and up to 64 MiB
// for a decoder.
func (c *Chat) Decode(rate int) error {
	for i := range c.Request.Attachments {
		a := &c.Request.Attachments[i]
		if a.Kind == client.Audio {
			if err := c.decodeAudio(a, rate); err != nil {
				return err
			}
			continue
		}
		decoded, _, err := image.Decode(bytes.NewReader(a.Data))
		if err != nil {
			return Invalid("%s is damaged", a.ID)
		}
		if b := decoded.Bounds(); b.Dx() != a.Width || b.Dy() != a.Height {
			return Invalid("%s is damaged", a.ID)
		}
		a.Data = web.RGB(decoded)
	}
	return nil
}
