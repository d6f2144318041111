package chat_test

import (
	"fmt"
	"math"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/chat"
	"github.com/inferd-go/inferd/internal/infer"
)

// Bounds for compiling and rendering one hostile template. The bound on memory is for the whole process.
const (
	maxTime = 2 * time.Second // of CPU
	maxPeak = 512 << 20
)

// A hostile template must be rendered or refused.
type hostile struct {
	source string
	want   string // in the error; empty: it may be rendered
}

const (
	stepBound   = "more than 5000000 steps"
	byteBound   = "more than 67108864 bytes"
	workBound   = "more than " // stepBound or byteBound
	depthBound  = "deeper than 200"
	sourceBound = "longer than"
)

// double makes ns.s a string of 2^n letters. A large n exceeds byteBound.
func double(n string) string {
	return `{% set ns = namespace(s='x') %}{% for i in range(` + n + `) %}{% set ns.s = ns.s + ns.s %}{% endfor %}`
}

// numbers makes l a list of 100,000 numbers.
const numbers = `{% set l = range(100000) | list %}`

// tree makes ns.t a list of two lists of two lists …, 2^n in all; lists of one depth are identical.
func tree(n string) string {
	return `{% set ns = namespace(t=[1, 'x']) %}{% for i in range(` + n + `) %}{% set ns.t = [ns.t, ns.t] %}{% endfor %}`
}

// deep makes ns.t a list in a list in a list …
const deep = `{% set ns = namespace(t=[]) %}{% for i in range(100000) %}{% set ns.t = [ns.t] %}{% endfor %}`

// self makes l and m lists, d and e dicts, and n and o namespaces that contain themselves.
const self = `{% set l = [1] %}{% set _ = l.append(l) %}{% set m = [1] %}{% set _ = m.append(m) %}` +
	`{% set d = {'a': 1} %}{% set _ = d.update({'d': d}) %}{% set e = {'a': 1} %}{% set _ = e.update({'d': e}) %}` +
	`{% set n = namespace(a=1) %}{% set n.n = n %}{% set o = namespace(a=1) %}{% set o.n = o %}`

func nested(n int, open, inside, closing string) string {
	return strings.Repeat(open, n) + inside + strings.Repeat(closing, n)
}

var hostiles = map[string]hostile{
	// size
	"a string that doubles a hundred times":       {double("100"), byteBound},
	"a string that doubles by tildes":             {`{% set ns = namespace(s='x') %}{% for i in range(100) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}`, byteBound},
	"a list that doubles":                         {`{% set ns = namespace(s=[1]) %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}`, byteBound},
	"a letter times ten to the twelfth":           {`{{ 'x' * 1000000000000 }}`, byteBound},
	"a letter times the largest number":           {`{{ 'xx' * 9223372036854775807 }}`, byteBound},
	"a letter times a negative number":            {`{{ 'x' * -1 }}`, ""},
	"a letter times a power of ten, twice":        {`{{ 'x' * 30000000 }}{{ 'x' * 30000000 }}`, byteBound},
	"a long string repeated in a loop":            {`{% for i in range(100000) %}{% set s = 'x' * 1000000 %}{% endfor %}`, byteBound},
	"a join with a long separator":                {double("20") + `{{ range(100000) | join(ns.s) }}`, byteBound},
	"a join of long strings":                      {double("20") + `{{ ([ns.s] + [ns.s] + [ns.s] + [ns.s]) | join | join(ns.s) | length }}{% for i in range(1000) %}{% set x = [ns.s, ns.s] | join(ns.s) %}{% endfor %}`, byteBound},
	"a replacement of letters by long strings":    {double("20") + `{{ ns.s | replace('x', ns.s) }}`, byteBound},
	"a replacement of nothing by long strings":    {double("20") + `{{ ns.s.replace('', ns.s) }}`, byteBound},
	"a replacement that doubles":                  {`{% set ns = namespace(s='x') %}{% for i in range(100) %}{% set ns.s = ns.s | replace('x', 'xx') %}{% endfor %}`, stepBound},
	"an indent of many lines by much":             {`{% set s = 'a\n' * 100000 %}{{ s | indent(100000) }}`, byteBound},
	"an indent by the largest number":             {`{{ 'a\nb' | indent(9223372036854775807) }}`, byteBound},
	"an indent by less than nothing":              {`{{ 'a\nb' | indent(-5) }}`, ""},
	"a JSON text of a shared value":               {tree("60") + `{{ ns.t | tojson }}`, stepBound},
	"a JSON text of a shared value, indented":     {tree("60") + `{{ ns.t | tojson(indent=2) }}`, ""},
	"a JSON text of a deep value":                 {deep + `{{ ns.t | tojson }}`, depthBound},
	"a JSON text of a deep value, indented":       {deep + `{{ ns.t | tojson(indent=2) }}`, depthBound},
	"a JSON text indented by the largest number":  {`{{ [1, [2]] | tojson(indent=9223372036854775807) }}`, byteBound},
	"a JSON text indented by less than nothing":   {`{{ [1, [2]] | tojson(indent=-1) }}`, ""},
	"a JSON text of characters to escape":         {`{% set s = '"' * 10000000 %}{{ [s] | tojson(indent=1) }}`, byteBound},
	"a JSON text of tags, which stay as they are": {`{% set s = '<' * 10000000 %}{{ [s] | tojson(indent=1) }}`, ""},
	"a printed shared value":                      {tree("60") + `{{ ns.t }}`, stepBound},
	"a printed deep value":                        {deep + `{{ ns.t }}`, depthBound},
	"a shared value as a key":                     {tree("60") + `{{ {ns.t: 1} }}`, stepBound},
	"a shared value as a separator":               {tree("60") + `{{ [1, 2] | join(ns.t) }}`, stepBound},
	"a shared value compared with another":        {tree("60") + `{% set a = ns.t %}` + tree("60") + `{{ a == ns.t }}`, stepBound},
	"a deep value compared with another":          {deep + `{% set a = ns.t %}` + deep + `{{ a == ns.t }}`, depthBound},
	"a shared value looked for in a list":         {tree("60") + `{% set a = ns.t %}` + tree("60") + `{{ a in [ns.t] }}`, stepBound},
	"a format that grows":                         {`{% set ns = namespace(s='{0}{0}') %}{% for i in range(100) %}{% set ns.s = ns.s.format(ns.s) %}{% endfor %}`, ""},
	"a format of many places and a long string":   {double("20") + `{% set f = '{0}' * 100000 %}{{ f.format(ns.s) }}`, byteBound},
	"an escape of an escape":                      {`{% set ns = namespace(s='&') %}{% for i in range(100000) %}{% set ns.s = ns.s | escape ~ ns.s %}{% endfor %}`, byteBound},
	"a date of many parts":                        {`{% for i in range(1000000) %}{{ strftime_now('%A %B ' * 10000) }}{% endfor %}`, ""},
	"text that a set block doubles":               {`{% set s %}x{% endset %}{% for i in range(3) %}{% for j in range(100) %}{% set ns = namespace(s='x' * 1000000) %}{% set s %}{{ ns.s }}{{ ns.s }}{% endset %}{% endfor %}{% endfor %}`, byteBound},
	"text that a filter block makes upper case":   {`{% for i in range(1000) %}{% filter upper %}{{ 'x' * 1000000 }}{% endfilter %}{% endfor %}`, byteBound},
	"a JSON text that is read into a large value": {`{% set s = '[' ~ ('{"a":0},' * 2000000) ~ '0]' %}{{ s | from_json | length }}`, stepBound},
	"a JSON text of ten thousand brackets":        {`{% set s = ('[' * 9999) ~ (']' * 9999) %}{{ s | from_json }}`, depthBound},
	"a JSON text of a million brackets":           {`{% set s = ('[' * 1000000) ~ (']' * 1000000) %}{{ s | from_json }}`, ""},
	"a message printed a million times":           {`{% for i in range(1000000) %}{{ messages[0]['content'] * 100 }}{% endfor %}`, ""},
	"a dict that grows":                           {`{% set d = {} %}{% for i in range(1000000) %}{% set _ = d.update({i: 'x' ~ i}) %}{% endfor %}`, ""},
	"a list that grows":                           {`{% set l = [] %}{% for i in range(1000000) %}{% set _ = l.append(l.append) %}{% endfor %}`, ""},
	"a list of the methods of a loop":             {`{% set l = [] %}{% for i in range(1000000) %}{% set _ = l.append(loop.cycle) %}{% endfor %}`, ""},
	"a list of lists of a list":                   {numbers + `{% set m = [] %}{% for i in range(1000) %}{% set _ = m.append(l[1:]) %}{% endfor %}`, byteBound},
	"a list inserted into at the front":           {numbers + `{% for i in l %}{% set _ = l.insert(0, i) %}{% endfor %}`, stepBound},
	"a list taken from at the front":              {numbers + `{% for i in l %}{% set _ = l.pop(0) %}{% endfor %}`, stepBound},
	"a dict taken from":                           {`{% set d = {} %}{% for i in range(20000) %}{% set _ = d.update({i: i}) %}{% endfor %}{% for i in range(20000) %}{% set _ = d.pop(i) %}{% endfor %}`, ""},
	"items of a large dict in a loop":             {`{% set d = {} %}{% for i in range(10000) %}{% set _ = d.update({i: i}) %}{% endfor %}{% for i in range(10000) %}{% set _ = d.items() %}{% set _ = d.keys() %}{% set _ = d.values() %}{% endfor %}`, byteBound},
	"a string split into letters":                 {double("24") + `{{ ns.s.split('') | length }}`, stepBound},
	"a string split at letters, often":            {double("20") + `{% for i in range(1000) %}{% set _ = ns.s.split('x') %}{% endfor %}`, byteBound},
	"a string of words split, often":              {`{% set s = 'x ' * 1000000 %}{% for i in range(1000) %}{% set _ = s.split() %}{% set _ = s | wordcount %}{% endfor %}`, byteBound},
	"a string turned into a list, often":          {double("20") + `{% for i in range(1000) %}{% set _ = ns.s | list %}{% endfor %}`, byteBound},
	"a string reversed, often":                    {double("20") + `{% for i in range(1000) %}{% set _ = ns.s | reverse %}{% set _ = ns.s[::-1] %}{% endfor %}`, byteBound},
	"a string in title case, often":               {`{% set s = 'é x' * 300000 %}{% for i in range(1000) %}{% set _ = s.title() %}{% set _ = s | title %}{% set _ = s | capitalize %}{% endfor %}`, byteBound},
	"the first letter of a long string, often":    {`{% set s = 'é' * 10000000 %}{% for i in range(100000) %}{% set _ = s[9999999] %}{% endfor %}`, stepBound},
	"the length of a long string, often":          {`{% set s = 'é' * 10000000 %}{% for i in range(100000) %}{% set _ = s | length %}{% endfor %}`, stepBound},
	"a long string searched, often":               {`{% set s = 'ab' * 10000000 %}{% for i in range(100000) %}{% set _ = s.find('ba' * 100 ~ 'c') %}{% set _ = s.count('bb') %}{% set _ = 'bb' in s %}{% endfor %}`, ""},
	"a long string trimmed of many letters":       {`{% set s = 'é' * 2000000 %}{% set c = 'ü' * 2000000 ~ 'é' %}{{ s.strip(c) | length }}{{ (s | trim(c)) | length }}`, ""},
	"long strings compared, often":                {`{% set s = 'a' * 5000000 ~ 'b' %}{% set t = 'a' * 5000000 ~ 'c' %}{% for i in range(1000000) %}{% set _ = s < t %}{% set _ = s == t %}{% set _ = s is eq(t) %}{% endfor %}`, stepBound},
	"a long string in upper case, often":          {double("20") + `{% for i in range(100000) %}{% set _ = ns.s is upper %}{% endfor %}`, ""},
	"numbers of a million digits compared":        {`{% set s = '1' * 1000000 %}{% for i in range(100000) %}{% set _ = s < 1 %}{% set _ = s | float %}{% set _ = s | int %}{% endfor %}`, stepBound},
	"a long key looked for, often":                {double("20") + `{% set d = {ns.s: 1} %}{% for i in range(1000000) %}{% set _ = d[ns.s] %}{% set _ = d.get(ns.s) %}{% set _ = ns.s in d %}{% endfor %}`, stepBound},
	"a long key set, often":                       {double("20") + `{% for i in range(1000000) %}{% set _ = {ns.s: 1} %}{% endfor %}`, ""},
	"a sum of lists, often":                       {numbers + `{% for i in range(100000) %}{% set _ = l | sum %}{% set _ = l | max %}{% set _ = l | min %}{% endfor %}`, stepBound},

	// loops
	"loops in loops":                      {`{% for a in range(1000) %}{%- for b in range(1000) -%}{% for c in range(1000) %}{% endfor %}{% endfor %}{% endfor %}`, workBound},
	"a long range":                        {`{% for a in range(1000000000000) %}{% endfor %}`, byteBound},
	"a long way down":                     {`{% for a in range(0, -1000000000000, -1) %}{% endfor %}`, byteBound},
	"a range to the largest number":       {`{% for a in range(9223372036854775800, 9223372036854775807, 5) %}{{ a }}{% endfor %}`, ""},
	"a range by the largest number":       {`{% for a in range(0, 9223372036854775807, 9223372036854775807) %}{{ a }}{% endfor %}`, ""},
	"a range to the smallest number":      {`{% for a in range(-9223372036854775800, -9223372036854775807, -5) %}{{ a }}{% endfor %}`, ""},
	"a range over all numbers":            {`{% for a in range(-9223372036854775807, 9223372036854775807) %}{{ a }}{% endfor %}`, byteBound},
	"a loop over a long string":           {double("22") + `{% for c in ns.s %}{{ c }}{% endfor %}`, byteBound},
	"a loop over a list that grows in it": {`{% set l = [1] %}{% for i in l %}{% set _ = l.append(1) %}{% endfor %}`, ""},
	"loops with a condition":              {numbers + `{% for i in range(1000) %}{% for j in l if j < 0 %}{% endfor %}{% endfor %}`, stepBound},
	"loops without a body":                {strings.Repeat(`{% for i in range(100) %}`, 12) + strings.Repeat(`{% endfor %}`, 12), workBound},
	"loops of macros":                     {`{% macro f(x) %}{{ x }}{% endmacro %}{% for a in range(100000) %}{% for b in range(1000) %}{{ f(1) }}{% endfor %}{% endfor %}`, ""},
	"loops of many conditions":            {`{% for a in range(100000) %}` + strings.Repeat(`{% if a == -1 %}x{% elif a is none %}y{% endif %}`, 1000) + `{% endfor %}`, stepBound},
	"loops of floating point numbers":     {`{% for a in range(1000000) %}{% set x = 1.5 ** 2.5 * 7 // 3 % 5 - 2 / 3 %}{% endfor %}`, workBound},
	"loops of namespaces":                 {`{% for a in range(1000000) %}{% set ns = namespace(a=1, b=2) %}{% set d = dict(c=3) %}{% endfor %}`, ""},
	"loops of closures":                   {`{% for a in range(1000000) %}{% set j = joiner(',') %}{% set c = cycler(1, 2) %}{{ c.next() }}{% endfor %}`, ""},
	"filters over a list in a loop":       {numbers + `{% for a in range(1000) %}{% set _ = l | select('odd') | reject('even') | map(attribute='a') | list | length %}{% endfor %}`, ""},
	"filters of attributes in a loop":     {`{% set l = [{'a': 'x'}] %}{% for i in range(12) %}{% set l2 = l %}{% for x in l2 %}{% set _ = l.append(x) %}{% endfor %}{% endfor %}{% for a in range(10000) %}{% set _ = l | selectattr('a', 'equalto', 'y') | rejectattr('a', 'defined') | length %}{% endfor %}`, ""},
	"strings as numbers in a loop":        {`{% for a in range(1000000) %}{% set x = 'abc' < '1.5' %}{% set y = '12' | int %}{% set z = '1e5' | float %}{% endfor %}`, stepBound},
	"a loop that breaks out of nothing":   {`{% macro f() %}{% break %}{% endmacro %}{% for i in range(10) %}{{ f() }}{% endfor %}{% continue %}`, ""},

	// recursion
	"a macro that calls itself":        {`{% macro f(x) -%} {{ f(x) }} {%- endmacro %}{{ f(1) }}`, depthBound},
	"two macros that call each other":  {`{%macro f()%}{{ g() }}{%endmacro%}{% macro g() %}{{ f() }}{% endmacro %}{{ f() }}`, depthBound},
	"a macro that calls itself twice":  {`{% macro f(n) %}{% if n > 0 %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(100) }}`, ""},
	"a macro that doubles its text":    {`{% macro f(n) %}{% if n > 0 %}{{ f(n - 1) }}{{ f(n - 1) }}{% else %}xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx{% endif %}{% endmacro %}{{ f(100) }}`, ""},
	"a macro with itself as a default": {`{% macro f(x=f()) %}{{ x }}{% endmacro %}{{ f() }}`, depthBound},
	"a caller that calls its macro":    {`{% macro m() %}{{ caller() }}{% endmacro %}{% macro n() %}{% call m() %}{{ n() }}{% endcall %}{% endmacro %}{{ n() }}`, depthBound},
	"a caller that is given on":        {`{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}{% call m() %}x{% endcall %}`, depthBound},
	"a macro as a filter of itself":    {`{% macro f(x) %}{{ x | f }}{% endmacro %}{{ 1 | f }}`, depthBound},
	"a macro that gets itself":         {`{% macro f(g) %}{{ g(g) }}{% endmacro %}{{ f(f) }}`, depthBound},
	"macros in macros in macros":       {`{% set ns = namespace() %}{% macro f() %}{% macro g() %}{{ ns.f() }}{% endmacro %}{% set ns.f = g %}{{ g() }}{% endmacro %}{% set ns.f = f %}{{ f() }}`, depthBound},
	"a scope in a scope, a hundred thousand deep": {
		`{% set ns = namespace() %}{% macro mk() %}{% set ns.f = h %}{% endmacro %}{% macro h() %}{% macro h() %}{% endmacro %}{% set ns.g = h %}{% endmacro %}` +
			`{% macro step(p) %}{% macro q(p) %}{% macro r(p) %}{{ p }}{% endmacro %}{% set ns.r = r %}{% endmacro %}{{ q(p) }}{% endmacro %}{% set ns.r = step %}{% for i in range(100000) %}{{ ns.r(i) }}{% endfor %}`, "",
	},
	"a macro that hands out a macro that does the same": {`{% set ns = namespace(src=none) %}{% macro a() %}{% macro b() %}{% macro c() %}{{ zzz }}{% endmacro %}{% set ns.f = c %}{% endmacro %}{% set ns.f = b %}{% endmacro %}{% set ns.f = a %}{% for i in range(300000) %}{{ ns.f() }}{% if i % 3 == 2 %}{% set ns.f = a %}{% endif %}{% endfor %}`, ""},
	"a template that includes itself":                   {`{% include 'self' %}`, "include"},
	"a template that extends itself":                    {`{% extends 'self' %}`, "extends"},
	"a template that imports itself":                    {`{% import 'self' as s %}`, "import"},
	"a recursive loop":                                  {`{% for x in messages recursive %}{{ loop(messages) }}{% endfor %}`, ""},

	// values that contain themselves
	"a list that contains itself, printed":             {self + `{{ l }}`, depthBound},
	"a dict that contains itself, printed":             {self + `{{ d }}`, depthBound},
	"a namespace that contains itself, printed":        {self + `{{ n }}`, depthBound},
	"a list that contains itself, as JSON":             {self + `{{ l | tojson }}`, depthBound},
	"a dict that contains itself, as JSON":             {self + `{{ d | tojson }}`, depthBound},
	"a list that contains itself, as indented JSON":    {self + `{{ l | tojson(indent=2) }}`, depthBound},
	"a dict that contains itself, as indented JSON":    {self + `{{ d | tojson(indent=2) }}`, depthBound},
	"two lists that contain themselves, compared":      {self + `{{ l == m }}`, depthBound},
	"two dicts that contain themselves, compared":      {self + `{{ d == e }}`, depthBound},
	"two namespaces that contain themselves, compared": {self + `{{ n != o }}`, depthBound},
	"a list that contains itself, in another":          {self + `{{ l in [m] }}`, depthBound},
	"a list that contains itself, tested":              {self + `{{ l is sameas(m) }}`, depthBound},
	"a list that contains itself, joined":              {self + `{{ l | join(',') }}`, depthBound},
	"a list that contains itself, as a string":         {self + `{{ l | string }}{{ l ~ 'x' }}`, depthBound},
	"lists that contain themselves, sorted":            {self + `{{ [l, m, l] | sort | length }}`, ""},
	"lists that contain themselves, unique":            {self + `{{ [l, m] | unique }}`, depthBound},
	"a list that contains itself, called":              {self + `{{ l() }}`, ""},
	"a list that contains itself, as an exception":     {self + `{{ raise_exception(l) }}`, depthBound},
	"two lists that contain each other":                {`{% set a = [] %}{% set b = [a] %}{% set _ = a.append(b) %}{{ a }}`, depthBound},
	"a list with its own items added":                  {`{% set l = [1] %}{% for i in range(100) %}{% for x in l %}{% set _ = l.append(l) %}{% endfor %}{% endfor %}{{ l | length }}`, ""},

	// names that a template can rebind
	"a range of its own":                           {`{% macro range(n) %}{% endmacro %}{% set ns = namespace(s='x') %}{% for i in messages %}{{ range(1) }}{% endfor %}` + double("100"), ""},
	"range as a string":                            {`{% set range = 'x' %}{{ range * 1000000000000 }}`, byteBound},
	"guards of an older version as variables":      {`{% set inferd_step = namespace %}{% set inferd_enter = namespace %}{% set inferd_leave = namespace %}{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}`, depthBound},
	"guards of an older version in a loop":         {`{% set inferd_step = namespace %}{% set r = range(3000) %}{% for a in r %}{% for b in r %}{% for c in r %}{% endfor %}{% endfor %}{% endfor %}`, workBound},
	"guards of an older version as loop variables": {`{% for inferd_step in [namespace] %}{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}{% endfor %}`, workBound},
	"filters as variables":                         {`{% set __filter_trim = namespace %}{% set trim = namespace %}{{ 'x' | trim * 1000000000000 }}`, byteBound},
	"a macro with the name of a filter":            {`{% macro join(x) %}y{% endmacro %}` + double("20") + `{{ range(100000) | join(ns.s) }}`, byteBound},
	"a caller of another name":                     {`{% macro m() %}{% set caller = m %}{{ caller() }}{% endmacro %}{{ m() }}`, depthBound},
	"a loop of another name":                       {`{% for i in range(10) %}{% set loop = range(100000) %}{% for j in loop %}{% for k in loop %}{% endfor %}{% endfor %}{% endfor %}`, byteBound},
	"messages of its own":                          {`{% set messages = range(100000) %}{% for m in messages %}{% for n in messages %}{{ n }}{% endfor %}{% endfor %}`, ""},

	// depth of the source
	"ten thousand parentheses":              {`{{ ` + nested(10_000, "(", "1", ")") + ` }}`, depthBound},
	"a hundred thousand open parentheses":   {`{{ ` + strings.Repeat("(", 100_000) + ` }}`, depthBound},
	"ten thousand brackets":                 {`{{ ` + nested(10_000, "[", "1", "]") + ` }}`, depthBound},
	"ten thousand braces":                   {`{{ ` + nested(10_000, "{1:", "1", "}") + ` }}`, depthBound},
	"ten thousand subscripts in each other": {`{{ ` + nested(10_000, "a[", "1", "]") + ` }}`, depthBound},
	"ten thousand calls in each other":      {`{{ ` + nested(10_000, "f(", "1", ")") + ` }}`, depthBound},
	"ten thousand ifs":                      {nested(10_000, "{% if true %}", "x", "{% endif %}"), depthBound},
	"ten thousand loops":                    {nested(10_000, "{% for i in [1] %}", "x", "{% endfor %}"), depthBound},
	"ten thousand set blocks":               {nested(10_000, "{% set x %}", "x", "{% endset %}"), depthBound},
	"ten thousand macros":                   {nested(10_000, "{% macro f() %}", "x", "{% endmacro %}"), depthBound},
	"ten thousand generations":              {nested(10_000, "{% generation %}", "x", "{% endgeneration %}"), depthBound},
	"ten thousand minus signs":              {`{{ ` + strings.Repeat("- ", 10_000) + `1 }}`, depthBound},
	"ten thousand nots":                     {`{{ ` + strings.Repeat("not ", 10_000) + `1 }}`, depthBound},
	"ten thousand elses":                    {`{{ ` + strings.Repeat("1 if false else ", 10_000) + `1 }}`, depthBound},
	"three million minus signs":             {`{{ ` + strings.Repeat("-", 3_000_000) + `1 }}`, sourceBound},
	"a hundred thousand filters":            {`{{ 'x'` + strings.Repeat("|trim", 100_000) + ` }}`, ""},
	"a hundred thousand additions":          {`{{ 1` + strings.Repeat("+1", 100_000) + ` }}`, ""},
	"a hundred thousand attributes":         {`{{ a` + strings.Repeat(".a", 100_000) + ` }}`, ""},
	"a hundred thousand attributes, called": {`{{ a` + strings.Repeat(".a", 100_000) + `() }}`, ""},
	"a hundred thousand subscripts":         {`{{ a` + strings.Repeat("[0]", 100_000) + ` }}`, ""},
	"a hundred thousand calls of a result":  {`{{ namespace` + strings.Repeat("()", 100_000) + ` }}`, ""},
	"a hundred thousand conjunctions":       {`{{ 1` + strings.Repeat(" and 1", 100_000) + ` }}`, ""},
	"a hundred thousand comparisons":        {`{{ 1` + strings.Repeat(" == 1", 100_000) + ` }}`, ""},
	"a hundred thousand tests":              {`{{ 1` + strings.Repeat(" is defined", 90_000) + ` }}`, ""},
	"a hundred thousand elifs":              {`{% if 0 %}` + strings.Repeat("{% elif 0 %}", 80_000) + `{% endif %}`, ""},
	"chains in nests in macros that recurse": {
		`{% macro f(x) %}{{ ` + nested(60, "(1 + (1 if [[", "f(1)", "]] else 0))") + ` }}{% endmacro %}{{ f(1) }}`, "",
	},

	// length of the source
	"ten million letters":                     {strings.Repeat("x", 10_000_000), sourceBound},
	"a million letters in a string":           {`{{ '` + strings.Repeat("x", 1_000_000) + `' | length }}`, ""},
	"two hundred thousand tags":               {strings.Repeat("{{x}}", 200_000), ""},
	"a hundred thousand tags that trim":       {strings.Repeat("{{-x-}}", 140_000), ""},
	"a hundred thousand statements that trim": {strings.Repeat("{%-set a=1-%}", 80_000), ""},
	"two hundred thousand comments":           {strings.Repeat("{##}", 250_000), ""},
	"a million items":                         {`{{ [` + strings.Repeat("1,", 500_000) + `] | length }}`, ""},
	"two hundred thousand pairs":              {`{{ {` + strings.Repeat("1:1,", 250_000) + `} | length }}`, ""},
	"a name of a million letters, in a loop":  {`{% for ` + strings.Repeat("x", 1_000_000) + ` in range(100000) %}{% endfor %}`, "name"},
	"a name of a million letters, set":        {`{% for i in range(100000) %}{% set ` + strings.Repeat("x", 1_000_000) + ` = 1 %}{% endfor %}`, "name"},
	"an attribute of a million letters":       {`{% set d = {} %}{% for i in range(100000) %}{% set _ = d.` + strings.Repeat("x", 1_000_000) + ` %}{% endfor %}`, "name"},
	"an open comment":                         {strings.Repeat("{#", 500_000), ""},
	"an open string":                          {`{{ '` + strings.Repeat(`\`, 500_000), ""},
	"nothing but braces":                      {strings.Repeat("{", 1_000_000), ""},
	"an open raw block":                       {`{% raw %}` + strings.Repeat("{{", 500_000), ""},

	// numbers
	"powers of powers":                    {`{{ 10 ** 10 ** 10 ** 10 ** 10 }}`, ""},
	"a huge power":                        {`{{ 9999999999 ** 9999999999 }}`, ""},
	"a number of a million digits":        {`{{ ` + strings.Repeat("9", 1_000_000) + ` }}`, ""},
	"a fraction of a million digits":      {`{{ 0.` + strings.Repeat("9", 1_000_000) + ` }}`, ""},
	"an exponent of a million digits":     {`{{ 1.0e` + strings.Repeat("9", 1_000_000) + ` }}`, ""},
	"a division of the smallest number":   {`{{ (-9223372036854775807 - 1) // -1 }}{{ (-9223372036854775807 - 1) % -1 }}`, ""},
	"a division by nothing":               {`{{ 1 / 0 }}{{ 1 // 0 }}{{ 1 % 0 }}`, ""},
	"numbers that are none":               {`{% set n = 'nan' | float %}{{ [3, n, 1, n, 2] | sort }}{{ n | int }}{{ ('inf' | float) | int }}{{ n | tojson }}`, ""},
	"a round to the largest precision":    {`{{ 1.5 | round(9223372036854775807) }}{{ 1.5 | round(-9223372036854775807) }}`, ""},
	"an index of the largest number":      {`{{ [1][9223372036854775807] }}{{ 'x'[-9223372036854775807] }}{{ [1].pop(-9223372036854775807) }}`, ""},
	"an insertion at the largest number":  {`{% set l = [1] %}{{ l.insert(9223372036854775807, 1) }}{{ l.insert(-9223372036854775807, 1) }}{{ l }}`, ""},
	"a replacement of the largest number": {`{{ 'aaa' | replace('a', 'b', 9223372036854775807) }}{{ 'aaa'.replace('a', 'b', -9223372036854775807) }}`, ""},

	// slices
	"a slice to the largest number":                {`{{ [1, 2, 3][0:9223372036854775807:2] }}`, ""},
	"a slice from the largest number, backwards":   {`{{ [1, 2, 3][9223372036854775807::-1] }}`, ""},
	"a slice in the largest steps":                 {`{{ [1, 2, 3][::9223372036854775807] }}{{ [1, 2, 3][::-9223372036854775807] }}`, ""},
	"a slice of a string to the largest number":    {`{{ 'aéc'[0:9223372036854775807:2] }}`, ""},
	"a slice of a string from the smallest number": {`{{ 'abc'[-9223372036854775807:9223372036854775807:1] }}{{ 'aéc'[-9223372036854775807:9223372036854775807:3] }}`, ""},
	"a slice of a string, backwards":               {`{{ 'abc'[9223372036854775807:-9223372036854775807:-1] }}{{ 'aéc'[9223372036854775807:-9223372036854775807:-2] }}`, ""},
	"a slice in steps of nothing":                  {`{{ [1, 2, 3][::0] }}`, ""},
	"slices in a loop":                             {numbers + `{% for i in range(100000) %}{% set _ = l[::2] %}{% endfor %}`, byteBound},
	"slices of a string in a loop":                 {`{% set s = 'é' * 1000000 %}{% for i in range(100000) %}{% set _ = s[5:-5] %}{% endfor %}`, byteBound},

	// sorting and grouping
	"a large list sorted, often":           {numbers + `{% for i in range(1000) %}{% set _ = l | sort(reverse=true) %}{% endfor %}`, ""},
	"a large list of strings sorted":       {`{% set l = ('b a ' * 100000).split() %}{{ l | sort | length }}`, ""},
	"a large list of equal strings sorted": {`{% set l = ('a' * 1000 ~ ' ') * 10000 %}{{ l.split() | sort | length }}`, ""},
	"a list of numbers in no order sorted": {`{% set l = [] %}{% for i in range(30000) %}{% set _ = l.append('a' ~ (i * 7919 % 30011)) %}{% endfor %}{{ l | sort | length }}`, ""},
	"a large list made unique, often":      {numbers + `{% for i in range(1000) %}{% set _ = l | unique %}{% endfor %}`, ""},
	"a large list in batches":              {numbers + `{% for i in range(1000) %}{% set _ = l | batch(1) %}{% endfor %}`, byteBound},
	"batches of the largest number":        {`{{ [1, 2, 3] | batch(9223372036854775807) }}`, ""},
	"a large dict sorted, often":           {`{% set d = {} %}{% for i in range(10000) %}{% set _ = d.update({i: i}) %}{% endfor %}{% for i in range(10000) %}{% set _ = d | dictsort %}{% endfor %}`, ""},
	"slices and groups":                    {numbers + `{{ l | slice(3) | list }}`, ""},
	"groups by an attribute":               {numbers + `{{ l | groupby('x') | list }}`, ""},

	// characters, and filters without arguments
	"letters that grow in upper case":      {`{% set s = 'ɐßﬁ' * 1000000 %}{{ s | upper | length }}{{ s.upper() | lower | length }}`, ""},
	"bytes that are no characters":         {"{% set s = '\xff\xfe' * 10000000 %}{{ s | upper | length }}{{ s | tojson | length }}", byteBound},
	"characters of no width":               {"{{ '\u200b\u202e\ufeff' * 10 }}{{ 'e\u0301' | capitalize }}{{ '\U0010ffff'[0] }}", ""},
	"zero bytes":                           {"{{ '\x00' }}\x00{% set \x00 = 1 %}", ""},
	"filters without an argument":          {`{{ [1] | select | list }}{{ [1] | reject | list }}`, ""},
	"filters of attributes without a test": {`{{ [{'a': 1}] | selectattr('a') | list }}{{ [{'a': 1}] | rejectattr('a') | list }}`, ""},
	"calls without an argument":            {`{{ 'x'.replace() }}{{ 'x'.split(none) }}{{ [].append() }}{{ {}.get() }}{{ {}.pop() }}{{ 'x'.count('') }}{{ cycler() }}`, ""},
	"a cycle of nothing":                   {`{% for i in [1] %}{{ loop.cycle() }}{% endfor %}`, ""},

	// steps that cost much
	"loops of nothing":                         {numbers + `{% for i in l %}{% for j in l %}{% endfor %}{% endfor %}`, workBound},
	"loops over nothing":                       {`{% for i in range(100000) %}` + strings.Repeat(`{% for j in [] %}{% endfor %}`, 100) + `{% endfor %}`, ""},
	"dates in a loop":                          {`{% for i in range(100000) %}` + strings.Repeat(`{{ strftime_now('%A%A%A%A') }}`, 20) + `{% endfor %}`, ""},
	"small JSON texts in a loop":               {`{% for i in range(100000) %}` + strings.Repeat(`{% set _ = '' | tojson %}`, 20) + `{% endfor %}`, ""},
	"small JSON texts, indented, in a loop":    {`{% for i in range(100000) %}` + strings.Repeat(`{% set _ = 1.5 | tojson(indent=0) %}`, 20) + `{% endfor %}`, ""},
	"small JSON texts read in a loop":          {`{% for i in range(100000) %}` + strings.Repeat(`{% set _ = '1' | from_json %}`, 20) + `{% endfor %}`, ""},
	"JSON objects read in a loop":              {`{% for i in range(100000) %}` + strings.Repeat(`{% set _ = '{"a":{}}' | from_json %}`, 20) + `{% endfor %}`, ""},
	"macros of nothing in a loop":              {`{% macro f() %}{% endmacro %}{% for i in range(100000) %}` + strings.Repeat(`{{ f() }}`, 20) + `{% endfor %}`, ""},
	"callers of nothing in a loop":             {`{% macro f() %}{{ caller() }}{% endmacro %}{% for i in range(100000) %}` + strings.Repeat(`{% call f() %}{% endcall %}`, 20) + `{% endfor %}`, ""},
	"methods in a loop":                        {`{% set l = [1] %}{% for i in range(100000) %}` + strings.Repeat(`{% set _ = l.pop %}`, 20) + `{% endfor %}`, ""},
	"floating point numbers printed in a loop": {`{% set x = 1.7 ** 333.3 %}{% for i in range(100000) %}` + strings.Repeat(`{% set _ = x | string %}`, 20) + `{% endfor %}`, stepBound},
	"strings read as numbers in a loop":        {`{% for i in range(100000) %}` + strings.Repeat(`{% set _ = '1.7e300' | float %}{% set _ = '123456789012345' | int %}`, 20) + `{% endfor %}`, stepBound},
	"strings in title case in a loop":          {`{% for i in range(100000) %}` + strings.Repeat(`{% set _ = 'a b c d e f'.title() %}`, 20) + `{% endfor %}`, ""},
	"dicts in a loop":                          {`{% for i in range(100000) %}` + strings.Repeat(`{% set _ = {} %}`, 20) + `{% endfor %}`, ""},
	"lists in a loop":                          {`{% for i in range(100000) %}` + strings.Repeat(`{% set _ = [] %}`, 20) + `{% endfor %}`, ""},
	"long lists in a loop":                     {`{% for i in range(100000) %}{% set _ = [` + strings.Repeat(`'a',`, 10_000) + `] %}{% endfor %}`, ""},
	"long dicts in a loop":                     {`{% for i in range(100000) %}{% set _ = {` + strings.Repeat(`'a':'b',`, 10_000) + `} %}{% endfor %}`, stepBound},
	"a macro of fifty thousand parameters":     {`{% macro f(` + strings.Repeat("a,b,c,", 17_000) + `a) %}{% endmacro %}{% for i in range(100000) %}{{ f() }}{% endfor %}`, ""},
	"a macro of many parameters, recursive":    {`{% macro f(` + many(30_000) + `z) %}{{ f() }}{% endmacro %}{{ f() }}`, byteBound},
	"a call of many arguments, recursive":      {`{% macro f() %}{{ f(` + strings.Repeat("1,", 50_000) + `f()) }}{% endmacro %}{{ f() }}`, ""},
	"a macro of many variables, recursive":     {`{% macro f() %}` + variables(20_000) + `{{ f() }}{% endmacro %}{{ f() }}`, byteBound},
	"names that are not there":                 {strings.Repeat(`{% for i in [1] %}`, 190) + `{% for i in range(100000) %}` + strings.Repeat(`{% set _ = zzz %}`, 100) + `{% endfor %}` + strings.Repeat(`{% endfor %}`, 190), stepBound},
	"a dict added to itself":                   {`{% set d = {} %}{% for i in range(100000) %}{% set _ = d.update({i: i}) %}{% endfor %}{% for i in range(100000) %}{% set _ = d.update(d) %}{% endfor %}`, ""},
	"a large dict added to another":            {`{% set d = {} %}{% for i in range(50000) %}{% set _ = d.update({i: i}) %}{% endfor %}{% for i in range(100000) %}{% set _ = d.update(d) %}{% endfor %}`, stepBound},
	"a search for a text of equal hash sums":   {`{% set s = 'a' * 8000000 %}{% set t = 'a' * 4000000 ~ 'rxslerekukymawys' %}{{ t in s }}{{ s.find(t) }}{{ s.count(t) }}`, stepBound},
	"a split at a text of equal hash sums":     {`{% set s = 'a' * 8000000 %}{% set t = 'a' * 4000000 ~ 'rxslerekukymawys' %}{{ s.split(t) | length }}{{ s.replace(t, 'x') | length }}`, stepBound},
	"long keys of equal beginnings":            {`{% set d = {} %}{% for i in range(50) %}{% set _ = d.update({'a' * 1000000 ~ i: 1}) %}{% endfor %}{% for i in range(100000) %}{% set _ = d | dictsort %}{% set _ = d.pop('x') %}{% endfor %}`, ""},
	"sums of conditions":                       {`{% for i in range(100000) %}{{ ` + strings.Repeat(`1 + `, 900) + `1 }}{% endfor %}`, stepBound},
	"every message, a thousand times":          {`{% for i in range(1000000) %}{% for m in messages %}{{ m['content'] }}{% endfor %}{% endfor %}`, ""},
}

// many returns n names, each with a comma.
func many(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "a%d,", i)
	}
	return b.String()
}

// variables sets n variables.
func variables(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "{%% set a%d = 1 %%}", i)
	}
	return b.String()
}

// cpu is the CPU time that the process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// leastCPU returns the CPU time that f takes. If it exceeds maxTime, f runs again, at most twice, and the least time
// counts: on a busy machine the same work takes more CPU time.
func leastCPU(f func()) time.Duration {
	least := time.Duration(math.MaxInt64)
	for run := 0; run < 3 && least > maxTime; run++ {
		began := cpu()
		f()
		least = min(least, cpu()-began)
	}
	return least
}

// Hostile templates are rendered or refused, within the bounds, and the process survives.
func TestHostileTemplates(t *testing.T) {
	if racing || testing.Short() {
		t.Skip("it measures CPU time, of which the race detector takes ten times as much")
	}
	for name, test := range hostiles {
		t.Run(name, func(t *testing.T) {
			var segments []chat.Segment
			var err error
			took := leastCPU(func() {
				var tmpl *chat.Template
				if tmpl, err = chat.New(test.source, specials, "<bos>", "<eos>"); err != nil {
					return
				}
				if segments, err = tmpl.Render(talk("loop", "<|im_end|>")); err != nil && infer.CodeOf(err) != infer.Invalid {
					t.Errorf("code of %v", err)
				}
			})
			if took > maxTime {
				t.Errorf("it took %v", took)
			}
			if err == nil && test.want != "" {
				t.Errorf("got %d segments", len(segments))
			}
			if err != nil && (!strings.Contains(err.Error(), test.want) || len(err.Error()) > 500 || strings.Contains(err.Error(), "internal error")) {
				t.Errorf("got %.500v, want %q", err, test.want)
			}
			t.Logf("%v, %.200v", took, err)
		})
	}
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	if peak := u.Maxrss << 10; peak > maxPeak {
		t.Errorf("the process took up to %d MiB", peak>>20)
	}
}

// A template that exceeds a bound with one conversation renders the next.
func TestAfterABound(t *testing.T) {
	tmpl := compile(t, `{% if messages[0]['content'] == 'fine' %}fine{% else %}{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}{% endif %}`)
	for range 3 {
		if _, err := tmpl.Render(talk("loop")); infer.CodeOf(err) != infer.Invalid || !strings.Contains(err.Error(), depthBound) {
			t.Errorf("got %v", err)
		}
		if got, err := tmpl.Render(talk("fine")); err != nil || len(got) != 1 || got[0].Text != "fine" {
			t.Errorf("then: %+v, %v", got, err)
		}
	}
}

// The spellings of special tokens come from the model's file and may be hostile, too. Whatever they are, rendering
// stays within the bound on CPU time.
func TestHostileSpellings(t *testing.T) {
	if racing || testing.Short() {
		t.Skip("it measures seconds of CPU time, of which the race detector takes ten times as much")
	}
	const often = `{% for i in range(300000) %}{{ messages[0]['content'] }}{% endfor %}`
	for name, test := range map[string]struct{ spelling, source, text string }{
		"a long spelling, and its first letter":   {"<" + strings.Repeat("x", 100_000), often, "<"},
		"a long spelling of one letter":           {strings.Repeat("<", 100_000) + ">", often, "<"},
		"a long spelling in text of the template": {strings.Repeat("<", 5_000) + ">", `{% for i in range(300000) %}<<<<<<<<<{{ messages[0]['content'] }}{% endfor %}`, "<"},
		"many literal characters":                 {"\u00a4", often, "\u00a4"},
		"many spellings":                          {"<|im_end|>", often, "<|im_end|>"},
		"text of the template alone":              {"<|im_end|>", `{{ '<|im_end|>' * 2000000 }}{{ messages[0]['content'] }}`, "<"},
	} {
		t.Run(name, func(t *testing.T) {
			tmpl, err := chat.New(test.source, []string{test.spelling}, "", "")
			if err != nil {
				t.Fatal(err)
			}
			var segments []chat.Segment
			took := leastCPU(func() { segments, err = tmpl.Render(talk(test.text)) })
			if took > maxTime {
				t.Errorf("it took %v", took)
			}
			t.Logf("%v, %d segments, %v", took, len(segments), err)
			if err != nil && infer.CodeOf(err) != infer.Invalid {
				t.Errorf("code of %v", err)
			}
		})
	}
}
