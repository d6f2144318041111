package responses

import (
	"strconv"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// call appends all events of a tool call, and adds the call to the output.
func (a *Answer) call(dst []byte, ev *infer.ToolCall) []byte {
	to, known := a.Request.names[ev.Name]
	if !known {
		to = name{name: ev.Name}
	}
	of := made{to: to, id: ev.ID, input: ev.Input}
	delta, done, member := "response.function_call_arguments.delta", "response.function_call_arguments.done", `,"arguments":`
	a.next("fc_")
	if to.custom {
		delta, done, member = "response.custom_tool_call_input.delta", "response.custom_tool_call_input.done", `,"input":`
		a.id[0], a.id[1] = 'c', 't'
		of.input = customText(ev.Input)
	}
	if of.id == "" { // clients assign results to calls by this ID
		of.id = "call_" + a.ID + "_" + strconv.Itoa(a.items)
	}
	dst = a.aboutItem(dst, "response.output_item.added")
	dst = end(a.made(dst, &of, inProgress))
	dst = append(a.about(dst, delta), `,"delta":`...)
	dst = end(wire.AppendString(dst, of.input))
	dst = a.about(dst, done)
	if !to.custom {
		dst = append(dst, `,"name":`...)
		dst = wire.AppendString(dst, to.name)
	}
	dst = append(dst, member...)
	dst = end(wire.AppendString(dst, of.input))
	dst = a.aboutItem(dst, "response.output_item.done")
	dst = end(a.made(dst, &of, completed))
	a.output = a.made(web.Comma(a.output), &of, completed)
	return dst
}

// A made is a tool call of the model in the form that the client gets.
type made struct {
	to    name
	id    string
	input []byte // the arguments, or the text for a custom tool
}

// made appends a call as an item in the given state. In the state inProgress, its input is empty.
func (a *Answer) made(dst []byte, of *made, state string) []byte {
	if of.to.custom {
		dst = append(dst, `{"type":"custom_tool_call","id":"`...)
	} else {
		dst = append(dst, `{"type":"function_call","id":"`...)
	}
	dst = append(dst, a.id...)
	dst = append(dst, `","status":"`...)
	dst = append(dst, state...)
	dst = append(dst, `","call_id":`...)
	dst = wire.AppendString(dst, of.id)
	dst = append(dst, `,"name":`...)
	dst = wire.AppendString(dst, of.to.name)
	if of.to.namespace != "" {
		dst = append(dst, `,"namespace":`...)
		dst = wire.AppendString(dst, of.to.namespace)
	}
	if of.to.custom {
		dst = append(dst, `,"input":`...)
	} else {
		dst = append(dst, `,"arguments":`...)
	}
	if state == inProgress {
		return append(dst, `""}`...)
	}
	return append(wire.AppendString(dst, of.input), '}')
}
