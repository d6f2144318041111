package infer

import "strings"

// A Message is one message of a conversation.
type Message struct {
	Role    Role
	Content []Part // at least one
}

// TextMessage returns a message with one text part.
func TextMessage(role Role, text string) Message {
	return Message{Role: role, Content: []Part{&TextPart{Text: text}}}
}

// Text returns the text parts of the message, joined.
func (m Message) Text() string {
	if len(m.Content) == 1 {
		if t, ok := m.Content[0].(*TextPart); ok {
			return t.Text
		}
	}
	var b strings.Builder
	for _, part := range m.Content {
		if t, ok := part.(*TextPart); ok {
			b.WriteString(t.Text)
		}
	}
	return b.String()
}

// Role is the author of a message. The set is closed.
type Role string

// Roles.
const (
	System    Role = "system"
	User      Role = "user"
	Assistant Role = "assistant"
)

// Part is a piece of a message. The set is closed.
//
//sumtype:decl
type Part interface{ part() }

// TextPart is text; it may be empty.
type TextPart struct{ Text string }

// ThinkingPart is earlier thinking of the model. Only a message of the assistant has it. Whether it
// is part of the prompt depends on the model's template.
type ThinkingPart struct{ Text string }

// MediaPart is the position of an attachment.
type MediaPart struct{ Attachment string } // the id of one of Generate.Attachments

// CallPart is a call of a tool that the model made earlier.
type CallPart struct {
	ID, Name string
	Input    []byte // any JSON value
}

// ResultPart is the result of a call of a tool.
type ResultPart struct {
	ID      string // of the call
	Content []Part
	Failed  bool // the content describes a failure of the tool
}

func (*TextPart) part()     {}
func (*ThinkingPart) part() {}
func (*MediaPart) part()    {}
func (*CallPart) part()     {}
func (*ResultPart) part()   {}

// An Attachment is an image, audio or video in decoded form.
type Attachment struct {
	ID            string // not empty
	Kind          Media
	Width, Height int    // of an image, in pixels
	SampleRate    int    // of audio, in samples a second
	Data          []byte // image: RGB, 8 bits each; audio: mono little-endian float32 samples
}

// Media is a kind of attachment. The set is closed.
type Media string

// Kinds of attachments.
const (
	Image Media = "image"
	Audio Media = "audio"
	Video Media = "video"
)
