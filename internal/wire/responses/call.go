package responses

import (
	"strconv"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// call appends all events of a tool call, and adds the call to the output.
func (a *Answer) call(dst []byte, ev *infer.ToolCall) []byte {
	tool, known := a.Request.names[ev.Name]
	if !known {
		tool = name{name: ev.Name}
	}
	call := clientCall{tool: tool, id: ev.ID, input: ev.Input}
	delta, done, member := "response.function_call_arguments.delta", "response.function_call_arguments.done", `,"arguments":`
	a.next("fc_")
	if tool.custom {
		delta, done, member = "response.custom_tool_call_input.delta", "response.custom_tool_call_input.done", `,"input":`
		a.id[0], a.id[1] = 'c', 't'
		call.input = customText(ev.Input)
	}
	if call.id == "" { // clients assign results to calls by this ID
		call.id = "call_" + a.ID + "_" + strconv.Itoa(a.items)
	}
	dst = a.beginWholeItem(dst, "response.output_item.added")
	dst = end(a.appendCall(dst, &call, inProgress))
	dst = append(a.beginItemEvent(dst, delta), `,"delta":`...)
	dst = end(wire.AppendString(dst, call.input))
	dst = a.beginItemEvent(dst, done)
	if !tool.custom {
		dst = append(dst, `,"name":`...)
		dst = wire.AppendString(dst, tool.name)
	}
	dst = append(dst, member...)
	dst = end(wire.AppendString(dst, call.input))
	dst = a.beginWholeItem(dst, "response.output_item.done")
	dst = end(a.appendCall(dst, &call, completed))
	a.output = a.appendCall(web.Comma(a.output), &call, completed)
	return dst
}

// A clientCall is a tool call of the model in the form that the client gets.
type clientCall struct {
	tool  name
	id    string
	input []byte // the arguments, or the text for a custom tool
}

// appendCall appends a call as an item in the given state. In the state inProgress, its input is empty.
func (a *Answer) appendCall(dst []byte, call *clientCall, state string) []byte {
	if call.tool.custom {
		dst = append(dst, `{"type":"custom_tool_call","id":"`...)
	} else {
		dst = append(dst, `{"type":"function_call","id":"`...)
	}
	dst = append(dst, a.id...)
	dst = append(dst, `","status":"`...)
	dst = append(dst, state...)
	dst = append(dst, `","call_id":`...)
	dst = wire.AppendString(dst, call.id)
	dst = append(dst, `,"name":`...)
	dst = wire.AppendString(dst, call.tool.name)
	if call.tool.namespace != "" {
		dst = append(dst, `,"namespace":`...)
		dst = wire.AppendString(dst, call.tool.namespace)
	}
	if call.tool.custom {
		dst = append(dst, `,"input":`...)
	} else {
		dst = append(dst, `,"arguments":`...)
	}
	if state == inProgress {
		return append(dst, `""}`...)
	}
	return append(wire.AppendString(dst, call.input), '}')
}
