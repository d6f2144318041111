// Copied from github.com/ardanlabs/jinja v1.5.0 and changed; README.md names the changes.

package jinja

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

var (
	errBreak    = errors.New("break")
	errContinue = errors.New("continue")
)

// =============================================================================
// Scope
// =============================================================================

type scope struct {
	vars   map[string]Value
	parent *scope
	depth  int // scopes above it
}

func newScope(parent *scope) *scope {
	s := &scope{vars: make(map[string]Value, 4), parent: parent}
	if parent != nil {
		s.depth = parent.depth + 1
	}
	return s
}

func (s *scope) set(name string, val Value) {
	s.vars[name] = val
}

// =============================================================================
// Evaluator
// =============================================================================

type evaluator struct {
	scope    *scope
	builtins *scope
	output   strings.Builder
	m        *meter // shared by all evaluators of a rendering
}

// write appends to the output.
func (e *evaluator) write(text string) {
	e.m.write(&e.output, text)
}

func (e *evaluator) execNodes(nodes []node) error {
	for _, n := range nodes {
		if err := e.execNode(n); err != nil {
			return err
		}
	}
	return nil
}

func (e *evaluator) execNode(n node) error {
	e.m.enter()
	err := e.exec(n)
	e.m.frames--
	return err
}

func (e *evaluator) exec(n node) error {
	switch nd := n.(type) {
	case *textNode:
		e.write(nd.text)
		return nil

	case *outputNode:
		val, err := e.evalExpr(nd.expression)
		if err != nil {
			return err
		}
		e.write(e.m.text(val))
		return nil

	case *ifNode:
		return e.execIf(nd)

	case *forNode:
		return e.execFor(nd)

	case *setNode:
		return e.execSet(nd)

	case *setBlockNode:
		return e.execSetBlock(nd)

	case *macroNode:
		return e.execMacro(nd)

	case *callNode:
		return e.execCall(nd)

	case *filterBlockNode:
		return e.execFilterBlock(nd)

	case *breakNode:
		return errBreak

	case *continueNode:
		return errContinue

	default:
		return fmt.Errorf("unknown node type %T", n)
	}
}

func (e *evaluator) execIf(n *ifNode) error {
	for _, branch := range n.branches {
		if branch.condition == nil {
			// else branch
			return e.execNodes(branch.body)
		}
		cond, err := e.evalExpr(branch.condition)
		if err != nil {
			return err
		}
		if cond.IsTruthy() {
			return e.execNodes(branch.body)
		}
	}
	return nil
}

func (e *evaluator) execFor(n *forNode) error {
	iterVal, err := e.evalExpr(n.iter)
	if err != nil {
		return err
	}

	var items []Value
	switch {
	case iterVal.IsList():
		items = iterVal.AsList().Items
	case iterVal.IsDict():
		items = e.m.strings(iterVal.AsDict().Keys).AsList().Items
	case iterVal.IsString():
		items = e.m.letters(iterVal.AsString())
	default:
		// Empty iteration.
	}

	// Apply filter if present.
	if n.filterExpr != nil {
		filtered := e.m.copies(0)
		// An expression cannot retain a scope, so one is enough for all items.
		child := e.m.scope(e.scope)
		for _, item := range items {
			child.set(n.valVar, item)
			old := e.scope
			e.scope = child
			fv, err := e.evalExpr(n.filterExpr)
			e.scope = old
			if err != nil {
				return err
			}
			if fv.IsTruthy() {
				e.m.grow(valueBytes)
				filtered = append(filtered, item)
			}
		}
		items = filtered
	}

	if len(items) == 0 {
		if n.elseBody != nil {
			return e.execNodes(n.elseBody)
		}
		return nil
	}

	total := int64(len(items))

	// Pre-allocate the loop dict and child scope once, then reuse them
	// across iterations to avoid per-iteration allocations.
	loop := e.m.dict()
	ld := loop.AsDict()
	ld.Set("length", NewInt(total))

	child := e.m.scope(e.scope)
	child.set("loop", loop)

	// One function for the whole loop, as in Python.
	cycleIdx := 0
	ld.Data["cycle"] = e.m.closure("loop.cycle", func(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
		if len(args) == 0 {
			return Undefined(), nil
		}
		return args[cycleIdx%len(args)], nil
	})

	for i, item := range items {
		e.m.step(2)

		// Set loop variable(s).
		if n.keyVar != "" {
			// Destructuring: for key, val in items
			if item.IsList() && item.AsList().Len() >= 2 {
				child.set(n.keyVar, item.AsList().Get(0))
				child.set(n.valVar, item.AsList().Get(1))
			} else {
				child.set(n.keyVar, NewInt(int64(i)))
				child.set(n.valVar, item)
			}
		} else {
			child.set(n.valVar, item)
		}

		// Update loop object for this iteration.
		cycleIdx = i
		idx := int64(i)
		ld.Data["index"] = NewInt(idx + 1)
		ld.Data["index0"] = NewInt(idx)
		ld.Data["revindex"] = NewInt(total - idx)
		ld.Data["revindex0"] = NewInt(total - idx - 1)
		ld.Data["first"] = NewBool(i == 0)
		ld.Data["last"] = NewBool(i == len(items)-1)

		if i > 0 {
			ld.Data["previtem"] = items[i-1]
		} else {
			ld.Data["previtem"] = Undefined()
		}
		if i < len(items)-1 {
			ld.Data["nextitem"] = items[i+1]
		} else {
			ld.Data["nextitem"] = Undefined()
		}

		old := e.scope
		e.scope = child

		err := e.execNodes(n.body)
		e.scope = old

		if err != nil {
			if errors.Is(err, errBreak) {
				break
			}
			if errors.Is(err, errContinue) {
				continue
			}
			return err
		}
	}

	return nil
}

func (e *evaluator) execSet(n *setNode) error {
	val, err := e.evalExpr(n.value)
	if err != nil {
		return err
	}

	if n.namespace != "" {
		nsVal, ok := e.m.lookup(e.scope, n.namespace)
		if !ok || !nsVal.IsDict() {
			return fmt.Errorf("set: namespace %q not found or not a dict", n.namespace)
		}
		e.m.set(nsVal.AsDict(), n.target, val)
		return nil
	}

	e.m.bind(e.scope, n.target, val)
	return nil
}

func (e *evaluator) execSetBlock(n *setBlockNode) error {
	bodyEval := evaluator{
		scope:    e.scope,
		builtins: e.builtins,
		m:        e.m,
	}
	if err := bodyEval.execNodes(n.body); err != nil {
		return err
	}
	e.m.bind(e.scope, n.target, NewString(bodyEval.output.String()))
	return nil
}

func (e *evaluator) execMacro(n *macroNode) error {
	// Capture the macro body and params.
	params := n.params
	body := n.body
	parentScope := e.scope

	fn := e.m.closure(n.name, func(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
		m.call()
		defer func() { m.calls-- }()
		child := m.scope(parentScope)
		m.arguments(len(params))

		// Bind positional args.
		for i, param := range params {
			if i < len(args) {
				child.set(param.name, args[i])
			} else if v, ok := kwargs[param.name]; ok {
				child.set(param.name, v)
			} else if param.defaultVal != nil {
				defEval := evaluator{scope: child, builtins: e.builtins, m: m}
				defVal, err := defEval.evalExpr(param.defaultVal)
				if err != nil {
					return Undefined(), err
				}
				child.set(param.name, defVal)
			} else {
				child.set(param.name, Undefined())
			}
		}

		// Set caller if available.
		if caller, ok := kwargs["caller"]; ok {
			child.set("caller", caller)
		}

		macroEval := evaluator{
			scope:    child,
			builtins: e.builtins,
			m:        m,
		}

		if err := macroEval.execNodes(body); err != nil {
			return Undefined(), err
		}

		return NewString(macroEval.output.String()), nil
	})

	e.m.bind(e.scope, n.name, fn)
	return nil
}

func (e *evaluator) execCall(n *callNode) error {
	// Create a caller callable that renders the body.
	callerArgs := n.callerArgs
	body := n.body
	parentScope := e.scope

	caller := e.m.closure("caller", func(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
		m.call()
		defer func() { m.calls-- }()
		child := m.scope(parentScope)
		m.arguments(len(callerArgs))
		for i, argName := range callerArgs {
			if i < len(args) {
				child.set(argName, args[i])
			}
		}

		callerEval := evaluator{
			scope:    child,
			builtins: e.builtins,
			m:        m,
		}
		if err := callerEval.execNodes(body); err != nil {
			return Undefined(), err
		}
		return NewString(callerEval.output.String()), nil
	})

	// Evaluate the call expression with caller in kwargs.
	callEx, ok := n.expr.(*callExpr)
	if ok {
		fn, err := e.evalExpr(callEx.fn)
		if err != nil {
			return err
		}
		if !fn.IsCallable() {
			return fmt.Errorf("call: expression is not callable")
		}

		e.m.arguments(len(callEx.args) + len(callEx.kwargs))
		var args []Value
		for _, a := range callEx.args {
			av, err := e.evalExpr(a)
			if err != nil {
				return err
			}
			args = append(args, av)
		}

		kwargs := map[string]Value{"caller": caller}
		for _, kw := range callEx.kwargs {
			v, err := e.evalExpr(kw.value)
			if err != nil {
				return err
			}
			kwargs[kw.name] = v
		}

		result, err := fn.AsCallable().Fn(e.m, args, kwargs)
		if err != nil {
			return err
		}
		e.write(e.m.text(result))
		return nil
	}

	// Fallback: evaluate expression and call with caller.
	fn, err := e.evalExpr(n.expr)
	if err != nil {
		return err
	}
	if !fn.IsCallable() {
		return fmt.Errorf("call: expression is not callable")
	}

	result, err := fn.AsCallable().Fn(e.m, nil, map[string]Value{"caller": caller})
	if err != nil {
		return err
	}
	e.write(e.m.text(result))
	return nil
}

func (e *evaluator) execFilterBlock(n *filterBlockNode) error {
	// Render body to string.
	bodyEval := evaluator{
		scope:    e.scope,
		builtins: e.builtins,
		m:        e.m,
	}
	if err := bodyEval.execNodes(n.body); err != nil {
		return err
	}
	bodyStr := bodyEval.output.String()

	// Apply the filter. The filter expression should be a name or filter chain.
	if fe, ok := n.filter.(*nameExpr); ok {
		filterVal, ok := lookupFilter(e.builtins, fe.name)
		if !ok {
			return fmt.Errorf("unknown filter %q", fe.name)
		}
		result, err := filterVal.AsCallable().Fn(e.m, []Value{NewString(bodyStr)}, nil)
		if err != nil {
			return err
		}
		e.write(e.m.text(result))
		return nil
	}

	// For more complex filter expressions, just output the body.
	e.write(bodyStr)
	return nil
}

// =============================================================================
// Expression evaluation
// =============================================================================

func (e *evaluator) evalExpr(ex expr) (Value, error) {
	switch n := ex.(type) {
	case *litExpr:
		return n.val, nil

	case *nameExpr:
		v, _ := e.m.lookup(e.scope, n.name)
		return v, nil
	}
	e.m.enter()
	v, err := e.eval(ex)
	e.m.frames--
	return v, err
}

func (e *evaluator) eval(ex expr) (Value, error) {
	switch n := ex.(type) {
	case *attrExpr:
		return e.evalAttr(n)

	case *itemExpr:
		return e.evalItem(n)

	case *sliceExpr:
		return e.evalSlice(n)

	case *unaryExpr:
		return e.evalUnary(n)

	case *binExpr:
		return e.evalBinary(n)

	case *condExpr:
		return e.evalCond(n)

	case *callExpr:
		return e.evalCallExpr(n)

	case *filterExpr:
		return e.evalFilter(n)

	case *testExpr:
		return e.evalTestExpr(n)

	case *listExpr:
		items := e.m.items(len(n.items))[:len(n.items)]
		for i, item := range n.items {
			v, err := e.evalExpr(item)
			if err != nil {
				return Undefined(), err
			}
			items[i] = v
		}
		return NewList(items), nil

	case *dictExpr:
		d := e.m.dict()
		dict := d.AsDict()
		e.m.step(len(n.pairs))
		for _, pair := range n.pairs {
			key, err := e.evalExpr(pair.key)
			if err != nil {
				return Undefined(), err
			}
			val, err := e.evalExpr(pair.value)
			if err != nil {
				return Undefined(), err
			}
			e.m.set(dict, e.m.text(key), val)
		}
		return d, nil

	default:
		return Undefined(), fmt.Errorf("unknown expression type %T", ex)
	}
}

func (e *evaluator) evalAttr(n *attrExpr) (Value, error) {
	obj, err := e.evalExpr(n.obj)
	if err != nil {
		return Undefined(), err
	}

	// Attributes of a dict: as in Python, a method hides a member of the same name.
	if obj.IsDict() {
		v, ok := obj.AsDict().Get(n.attr)
		if ok && obj.AsDict().namespace {
			return v, nil
		}
		method, err := e.dictMethod(obj, n.attr)
		if err != nil || !method.IsUndefined() {
			return method, err
		}
		return v, nil
	}

	// String methods.
	if obj.IsString() {
		return e.stringMethod(obj, n.attr)
	}

	// List methods.
	if obj.IsList() {
		return e.listMethod(obj, n.attr)
	}

	return Undefined(), nil
}

func (e *evaluator) evalItem(n *itemExpr) (Value, error) {
	obj, err := e.evalExpr(n.obj)
	if err != nil {
		return Undefined(), err
	}

	key, err := e.evalExpr(n.key)
	if err != nil {
		return Undefined(), err
	}

	if obj.IsList() {
		idx := int(e.m.toInt64(key))
		list := obj.AsList()
		if idx < 0 {
			idx += list.Len()
		}
		if idx < 0 || idx >= list.Len() {
			return Undefined(), nil
		}
		return list.Get(idx), nil
	}

	if obj.IsDict() {
		k := e.m.text(key)
		if v, ok := e.m.get(obj.AsDict(), k); ok {
			return v, nil
		}
		return Undefined(), nil
	}

	if obj.IsString() {
		idx := int(e.m.toInt64(key))
		s := obj.AsString()
		e.m.walk(len(s))
		length := utf8.RuneCountInString(s)
		if idx < 0 {
			idx += length
		}
		if idx < 0 || idx >= length {
			return Undefined(), nil
		}
		if length == len(s) && s[idx] < utf8.RuneSelf {
			return NewString(string(rune(s[idx]))), nil
		}
		for _, r := range s {
			if idx == 0 {
				return NewString(string(r)), nil
			}
			idx--
		}
	}

	return Undefined(), nil
}

func (e *evaluator) evalSlice(n *sliceExpr) (Value, error) {
	obj, err := e.evalExpr(n.obj)
	if err != nil {
		return Undefined(), err
	}

	if obj.IsList() {
		list := obj.AsList()
		start, step, count := resolveSlice(n, e, list.Len())

		items := e.m.copies(count)
		for k := range count {
			items = append(items, list.Items[start+k*step])
		}
		return NewList(items), nil
	}

	if obj.IsString() {
		s := obj.AsString()
		e.m.scan(len(s))

		// ASCII fast path. Most chat-template string slicing operates
		// on tag/role names or message content that is ASCII; for those
		// we can index by byte and skip the []rune conversion entirely.
		// This is the dominant cost in the kronk dense profile because
		// the system prompt can be tens of thousands of bytes.
		if isASCII(s) {
			start, step, count := resolveSlice(n, e, len(s))
			if step == 1 {
				return NewString(s[start : start+count]), nil
			}
			e.m.step(count >> 4)
			e.m.grow(2 * count)
			buf := make([]byte, count)
			for k := range buf {
				buf[k] = s[start+k*step]
			}
			return NewString(string(buf)), nil
		}

		runes := e.m.runes(s)
		start, step, count := resolveSlice(n, e, len(runes))
		if step == 1 {
			return e.m.fromRunes(runes[start : start+count]), nil
		}
		e.m.grow(times(count, 4))
		result := make([]rune, count)
		for k := range result {
			result[k] = runes[start+k*step]
		}
		return e.m.fromRunes(result), nil
	}

	return Undefined(), nil
}

// isASCII reports whether s contains only 7-bit ASCII bytes. Used to
// skip the []rune conversion in evalSlice's string branch when byte
// indexing produces the same result as code-point indexing.
func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// resolveSlice returns the items that a slice takes from a sequence: count items from index start
// on, step apart. As in Python, bounds beyond the sequence are cut to its ends.
func resolveSlice(n *sliceExpr, e *evaluator, length int) (start, step, count int) {
	bound := func(ex expr, without int) int {
		if ex == nil {
			return without
		}
		v, _ := e.evalExpr(ex)
		at := int(e.m.toInt64(v))
		if at < 0 {
			at += length
		}
		if step > 0 {
			return min(max(at, 0), length)
		}
		return min(max(at, -1), length-1)
	}

	step = 1
	if n.step != nil {
		v, _ := e.evalExpr(n.step)
		step = int(e.m.toInt64(v))
		if step == 0 {
			step = 1
		}
		// A step that is longer than the sequence takes at most one item. Limiting it keeps the
		// sums below in range.
		step = min(max(step, -length-1), length+1)
	}

	if step > 0 {
		start = bound(n.start, 0)
		stop := bound(n.stop, length)
		return start, step, (max(stop-start, 0) + step - 1) / step
	}
	start = bound(n.start, length-1)
	stop := bound(n.stop, -1)
	return start, step, (max(start-stop, 0) - step - 1) / -step
}

func (e *evaluator) evalUnary(n *unaryExpr) (Value, error) {
	operand, err := e.evalExpr(n.operand)
	if err != nil {
		return Undefined(), err
	}

	switch n.op {
	case "not":
		return NewBool(!operand.IsTruthy()), nil
	case "-":
		if operand.IsInt() {
			return NewInt(-operand.AsInt()), nil
		}
		if operand.IsFloat() {
			return NewFloat(-operand.AsFloat()), nil
		}
		return NewInt(0), nil
	case "+":
		return operand, nil
	}

	return Undefined(), fmt.Errorf("unknown unary operator %q", n.op)
}

func (e *evaluator) evalBinary(n *binExpr) (Value, error) {
	// Short-circuit for and/or.
	if n.op == "and" {
		left, err := e.evalExpr(n.left)
		if err != nil {
			return Undefined(), err
		}
		if !left.IsTruthy() {
			return left, nil
		}
		return e.evalExpr(n.right)
	}

	if n.op == "or" {
		left, err := e.evalExpr(n.left)
		if err != nil {
			return Undefined(), err
		}
		if left.IsTruthy() {
			return left, nil
		}
		return e.evalExpr(n.right)
	}

	left, err := e.evalExpr(n.left)
	if err != nil {
		return Undefined(), err
	}

	right, err := e.evalExpr(n.right)
	if err != nil {
		return Undefined(), err
	}

	switch n.op {
	case "+":
		return e.m.addValues(left, right), nil
	case "-":
		return e.m.subValues(left, right), nil
	case "*":
		return e.m.mulValues(left, right), nil
	case "/":
		return e.m.divValues(left, right), nil
	case "//":
		return e.m.floorDivValues(left, right), nil
	case "%":
		return e.m.modValues(left, right), nil
	case "**":
		return e.m.powValues(left, right), nil
	case "~":
		return NewString(e.m.concat(e.m.text(left), e.m.text(right))), nil
	case "==":
		return NewBool(e.m.valuesEqual(left, right)), nil
	case "!=":
		return NewBool(!e.m.valuesEqual(left, right)), nil
	case "<":
		return NewBool(e.m.compareValues(left, right) < 0), nil
	case ">":
		return NewBool(e.m.compareValues(left, right) > 0), nil
	case "<=":
		return NewBool(e.m.compareValues(left, right) <= 0), nil
	case ">=":
		return NewBool(e.m.compareValues(left, right) >= 0), nil
	case "in":
		return NewBool(e.m.containsValue(right, left)), nil
	case "not in":
		return NewBool(!e.m.containsValue(right, left)), nil
	}

	return Undefined(), fmt.Errorf("unknown binary operator %q", n.op)
}

func (e *evaluator) evalCond(n *condExpr) (Value, error) {
	cond, err := e.evalExpr(n.condition)
	if err != nil {
		return Undefined(), err
	}

	if cond.IsTruthy() {
		return e.evalExpr(n.trueExpr)
	}

	if n.falseExpr != nil {
		return e.evalExpr(n.falseExpr)
	}

	return Undefined(), nil
}

func (e *evaluator) evalCallExpr(n *callExpr) (Value, error) {
	fn, err := e.evalExpr(n.fn)
	if err != nil {
		return Undefined(), err
	}

	if !fn.IsCallable() {
		var repr strings.Builder
		e.m.repr(&repr, fn, 1)
		return Undefined(), fmt.Errorf("%s is not callable: %s", shown(callableName(n.fn)), shown(repr.String()))
	}

	e.m.arguments(len(n.args) + len(n.kwargs))
	args := make([]Value, len(n.args))
	for i, a := range n.args {
		v, err := e.evalExpr(a)
		if err != nil {
			return Undefined(), err
		}
		args[i] = v
	}

	var kwargs map[string]Value
	if len(n.kwargs) > 0 {
		kwargs = make(map[string]Value, len(n.kwargs))
		for _, kw := range n.kwargs {
			v, err := e.evalExpr(kw.value)
			if err != nil {
				return Undefined(), err
			}
			kwargs[kw.name] = v
		}
	}

	return fn.AsCallable().Fn(e.m, args, kwargs)
}

func callableName(ex expr) string {
	var parts []string // from the end
	for {
		switch n := ex.(type) {
		case *nameExpr:
			parts = append(parts, n.name)

		case *attrExpr:
			parts = append(parts, "."+n.attr)
			ex = n.obj
			continue

		case *itemExpr:
			parts = append(parts, "[item]")
			ex = n.obj
			continue

		default:
			parts = append(parts, ex.nodeType())
		}
		slices.Reverse(parts)
		return strings.Join(parts, "")
	}
}

func (e *evaluator) evalFilter(n *filterExpr) (Value, error) {
	input, err := e.evalExpr(n.expr)
	if err != nil {
		return Undefined(), err
	}

	// Look up filter in builtins.
	filterVal, ok := lookupFilter(e.builtins, n.name)
	if !ok {
		// Also check scope for user-defined filters.
		filterVal, ok = e.m.lookup(e.scope, n.name)
		if !ok {
			return Undefined(), fmt.Errorf("unknown filter %q", n.name)
		}
	}

	if !filterVal.IsCallable() {
		return Undefined(), fmt.Errorf("filter %q is not callable", n.name)
	}

	// Build args: input as first, then additional args.
	e.m.arguments(len(n.args) + len(n.kwargs))
	args := make([]Value, 1+len(n.args))
	args[0] = input
	for i, a := range n.args {
		v, err := e.evalExpr(a)
		if err != nil {
			return Undefined(), err
		}
		args[i+1] = v
	}

	var kwargs map[string]Value
	if len(n.kwargs) > 0 {
		kwargs = make(map[string]Value, len(n.kwargs))
		for _, kw := range n.kwargs {
			v, err := e.evalExpr(kw.value)
			if err != nil {
				return Undefined(), err
			}
			kwargs[kw.name] = v
		}
	}

	return filterVal.AsCallable().Fn(e.m, args, kwargs)
}

func (e *evaluator) evalTestExpr(n *testExpr) (Value, error) {
	val, err := e.evalExpr(n.expr)
	if err != nil {
		return Undefined(), err
	}

	var testArgs []Value
	for _, a := range n.args {
		v, err := e.evalExpr(a)
		if err != nil {
			return Undefined(), err
		}
		testArgs = append(testArgs, v)
	}

	result, err := e.m.evalTest(n.name, val, testArgs)
	if err != nil {
		return Undefined(), err
	}

	if n.negated {
		result = !result
	}

	return NewBool(result), nil
}

// =============================================================================
// String methods
// =============================================================================

func (e *evaluator) stringMethod(obj Value, method string) (Value, error) {
	s := obj.AsString()

	switch method {
	case "strip":
		return e.makeStringFunc("strip", func(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
			if len(args) > 0 {
				return m.trimmed(s, strings.TrimFunc(s, m.inSet(m.text(args[0])))), nil
			}
			return m.trimmed(s, strings.TrimSpace(s)), nil
		}), nil

	case "lstrip":
		return e.makeStringFunc("lstrip", func(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
			if len(args) > 0 {
				return m.trimmed(s, strings.TrimLeftFunc(s, m.inSet(m.text(args[0])))), nil
			}
			return m.trimmed(s, strings.TrimLeftFunc(s, func(r rune) bool {
				return r == ' ' || r == '\t' || r == '\n' || r == '\r'
			})), nil
		}), nil

	case "rstrip":
		return e.makeStringFunc("rstrip", func(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
			if len(args) > 0 {
				return m.trimmed(s, strings.TrimRightFunc(s, m.inSet(m.text(args[0])))), nil
			}
			return m.trimmed(s, strings.TrimRightFunc(s, func(r rune) bool {
				return r == ' ' || r == '\t' || r == '\n' || r == '\r'
			})), nil
		}), nil

	case "split":
		return e.makeStringFunc("split", func(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
			if len(args) == 0 {
				return m.strings(m.fields(s)), nil
			}
			sep := m.text(args[0])
			return m.strings(m.split(s, sep)), nil
		}), nil

	case "startswith":
		return e.makeStringFunc("startswith", func(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
			if len(args) == 0 {
				return NewBool(false), nil
			}
			prefix := m.text(args[0])
			m.scan(len(prefix))
			return NewBool(strings.HasPrefix(s, prefix)), nil
		}), nil

	case "endswith":
		return e.makeStringFunc("endswith", func(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
			if len(args) == 0 {
				return NewBool(false), nil
			}
			suffix := m.text(args[0])
			m.scan(len(suffix))
			return NewBool(strings.HasSuffix(s, suffix)), nil
		}), nil

	case "replace":
		return e.makeStringFunc("replace", func(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
			if len(args) < 2 {
				return NewString(s), nil
			}
			old := m.text(args[0])
			newStr := m.text(args[1])
			count := -1
			if len(args) > 2 {
				count = int(m.toInt64(args[2]))
			}
			return NewString(m.replace(s, old, newStr, count)), nil
		}), nil

	case "upper":
		return e.makeStringFunc("upper", func(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
			return NewString(m.upper(s)), nil
		}), nil

	case "lower":
		return e.makeStringFunc("lower", func(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
			return NewString(m.lower(s)), nil
		}), nil

	case "title":
		return e.makeStringFunc("title", func(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
			// Simple title case: capitalize first letter of each word.
			runes := m.runes(s)
			m.step(len(runes) >> 2)
			inWord := false
			for i, r := range runes {
				if r == ' ' || r == '\t' || r == '\n' {
					inWord = false
				} else if !inWord {
					runes[i] = []rune(strings.ToUpper(string(r)))[0]
					inWord = true
				}
			}
			return m.fromRunes(runes), nil
		}), nil

	case "capitalize":
		return e.makeStringFunc("capitalize", func(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
			if len(s) == 0 {
				return NewString(""), nil
			}
			runes := m.runes(s)
			runes[0] = []rune(strings.ToUpper(string(runes[0])))[0]
			return m.fromRunes(runes), nil
		}), nil

	case "count":
		return e.makeStringFunc("count", func(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
			if len(args) == 0 {
				return NewInt(0), nil
			}
			text := m.text(args[0])
			m.search(s, text)
			return NewInt(int64(strings.Count(s, text))), nil
		}), nil

	case "find":
		return e.makeStringFunc("find", func(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
			if len(args) == 0 {
				return NewInt(-1), nil
			}
			text := m.text(args[0])
			m.search(s, text)
			return NewInt(int64(strings.Index(s, text))), nil
		}), nil

	case "format":
		return e.makeStringFunc("format", func(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
			result := s
			for i, arg := range args {
				placeholder := fmt.Sprintf("{%d}", i)
				result = m.replace(result, placeholder, m.text(arg), -1)
				result = m.replace(result, "{}", m.text(arg), 1)
			}
			return NewString(result), nil
		}), nil
	}

	return Undefined(), nil
}

func (e *evaluator) makeStringFunc(name string, fn builtin) Value {
	return e.m.closure("str."+name, fn)
}

// =============================================================================
// List methods
// =============================================================================

func (e *evaluator) listMethod(obj Value, method string) (Value, error) {
	list := obj.AsList()

	switch method {
	case "append":
		return e.m.closure("list.append", func(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
			if len(args) > 0 {
				m.append(list, args[0])
			}
			return None(), nil
		}), nil

	case "pop":
		return e.m.closure("list.pop", func(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
			if list.Len() == 0 {
				return Undefined(), fmt.Errorf("pop from empty list")
			}
			idx := list.Len() - 1
			if len(args) > 0 {
				idx = int(m.toInt64(args[0]))
				if idx < 0 {
					idx += list.Len()
				}
			}
			if idx < 0 || idx >= list.Len() {
				return Undefined(), fmt.Errorf("pop index out of range")
			}
			m.step((list.Len() - idx) >> 4)
			val := list.Items[idx]
			list.Items = append(list.Items[:idx], list.Items[idx+1:]...)
			return val, nil
		}), nil

	case "insert":
		return e.m.closure("list.insert", func(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
			if len(args) < 2 {
				return None(), nil
			}
			idx := min(max(int(m.toInt64(args[0])), 0), list.Len())
			m.step((list.Len() - idx) >> 4)
			m.append(list, Undefined())
			copy(list.Items[idx+1:], list.Items[idx:])
			list.Items[idx] = args[1]
			return None(), nil
		}), nil
	}

	return Undefined(), nil
}

// =============================================================================
// Dict methods
// =============================================================================

func (e *evaluator) dictMethod(obj Value, method string) (Value, error) {
	d := obj.AsDict()

	switch method {
	case "items":
		return e.m.closure("dict.items", func(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
			return m.pairs(d, d.Keys), nil
		}), nil

	case "keys":
		return e.m.closure("dict.keys", func(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
			return m.strings(d.Keys), nil
		}), nil

	case "values":
		return e.m.closure("dict.values", func(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
			items := m.copies(d.Len())
			for _, key := range d.Keys {
				items = append(items, d.Data[key])
			}
			return NewList(items), nil
		}), nil

	case "get":
		return e.m.closure("dict.get", func(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
			if len(args) == 0 {
				return Undefined(), nil
			}
			key := m.text(args[0])
			if v, ok := m.get(d, key); ok {
				return v, nil
			}
			if len(args) > 1 {
				return args[1], nil
			}
			return None(), nil
		}), nil

	case "pop":
		return e.m.closure("dict.pop", func(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
			if len(args) == 0 {
				return Undefined(), nil
			}
			key := m.text(args[0])
			v, ok := m.get(d, key)
			if ok {
				m.step(times(len(d.Keys), 1+len(key)>>6) >> 3)
				m.grow(times(len(d.Keys), 16))
				delete(d.Data, key)
				newKeys := make([]string, 0, len(d.Keys)-1)
				for _, k := range d.Keys {
					if k != key {
						newKeys = append(newKeys, k)
					}
				}
				d.Keys = newKeys
				return v, nil
			}
			if len(args) > 1 {
				return args[1], nil
			}
			return Undefined(), nil
		}), nil

	case "update":
		return e.m.closure("dict.update", func(m *meter, args []Value, kwargs map[string]Value) (Value, error) {
			if len(args) > 0 && args[0].IsDict() {
				other := args[0].AsDict()
				for _, key := range other.Keys {
					m.step(2)
					m.set(d, key, other.Data[key])
				}
			}
			return None(), nil
		}), nil
	}

	return Undefined(), nil
}

// =============================================================================
// Arithmetic helpers
// =============================================================================

func (m *meter) addValues(a, b Value) Value {
	if a.IsString() || b.IsString() {
		return NewString(m.concat(m.added(a), m.added(b)))
	}
	if a.IsList() && b.IsList() {
		items := m.copies(a.AsList().Len() + b.AsList().Len())
		items = append(items, a.AsList().Items...)
		items = append(items, b.AsList().Items...)
		return NewList(items)
	}
	if a.IsFloat() || b.IsFloat() {
		return NewFloat(m.toFloat64(a) + m.toFloat64(b))
	}
	return NewInt(m.toInt64(a) + m.toInt64(b))
}

// added returns the text of an operand of +. Python refuses None as an operand; here it counts as
// an empty text.
func (m *meter) added(v Value) string {
	if v.IsNone() {
		return ""
	}
	return m.text(v)
}

func (m *meter) subValues(a, b Value) Value {
	if a.IsFloat() || b.IsFloat() {
		return NewFloat(m.toFloat64(a) - m.toFloat64(b))
	}
	return NewInt(m.toInt64(a) - m.toInt64(b))
}

func (m *meter) mulValues(a, b Value) Value {
	if a.IsString() && b.IsInt() {
		return NewString(m.repeat(a.AsString(), b.AsInt()))
	}
	if a.IsFloat() || b.IsFloat() {
		return NewFloat(m.toFloat64(a) * m.toFloat64(b))
	}
	return NewInt(m.toInt64(a) * m.toInt64(b))
}

func (m *meter) divValues(a, b Value) Value {
	bf := m.toFloat64(b)
	if bf == 0 {
		return NewFloat(0)
	}
	return NewFloat(m.toFloat64(a) / bf)
}

func (m *meter) floorDivValues(a, b Value) Value {
	bi := m.toInt64(b)
	if bi == 0 {
		return NewInt(0)
	}
	return NewInt(m.toInt64(a) / bi)
}

func (m *meter) modValues(a, b Value) Value {
	bi := m.toInt64(b)
	if bi == 0 {
		return NewInt(0)
	}
	return NewInt(m.toInt64(a) % bi)
}

func (m *meter) powValues(a, b Value) Value {
	return NewFloat(math.Pow(m.toFloat64(a), m.toFloat64(b)))
}

func (m *meter) valuesEqual(a, b Value) bool {
	// Cross-type numeric comparison.
	if a.IsNumber() && b.IsNumber() {
		return m.toFloat64(a) == m.toFloat64(b)
	}
	// None == None.
	if a.IsNone() && b.IsNone() {
		return true
	}
	return m.equals(a, b, 1)
}
