package schema

import "github.com/inferd-go/inferd/internal/regex"

// Parts of the patterns below.
const (
	leap   = `(?:\d\d(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)`
	date   = `(?:\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|02-(?:0[1-9]|1\d|2[0-8]))|` + leap + `-02-29)`
	clock  = `(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d+)?(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)` // without leap seconds
	period = `(?:\d+H(?:\d+M(?:\d+S)?)?|\d+M(?:\d+S)?|\d+S)`
	octet  = `(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)`
	ipv4   = octet + `(?:\.` + octet + `){3}`
	h16    = `[0-9A-Fa-f]{1,4}`
	ls32   = `(?:` + h16 + `:` + h16 + `|` + ipv4 + `)`
	ipv6   = `(?:(?:` + h16 + `:){6}` + ls32 + `|::(?:` + h16 + `:){5}` + ls32 + `|(?:` + h16 + `)?::(?:` + h16 + `:){4}` + ls32 +
		`|(?:(?:` + h16 + `:){0,1}` + h16 + `)?::(?:` + h16 + `:){3}` + ls32 + `|(?:(?:` + h16 + `:){0,2}` + h16 + `)?::(?:` + h16 + `:){2}` + ls32 +
		`|(?:(?:` + h16 + `:){0,3}` + h16 + `)?::` + h16 + `:` + ls32 + `|(?:(?:` + h16 + `:){0,4}` + h16 + `)?::` + ls32 +
		`|(?:(?:` + h16 + `:){0,5}` + h16 + `)?::` + h16 + `|(?:(?:` + h16 + `:){0,6}` + h16 + `)?::)`
	label    = `[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?`
	host     = label + `(?:\.` + label + `)*`
	atext    = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
	pchar    = `(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})`
	regName  = `(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*`
	userInfo = `(?:(?:[A-Za-z0-9._~!$&'()*+,;=:-]|%[0-9A-Fa-f]{2})*@)?`
	server   = userInfo + `(?:\[` + ipv6 + `\]|` + regName + `)(?::\d*)?`
	tail     = `(?:\?(?:` + pchar + `|[/?])*)?(?:#(?:` + pchar + `|[/?])*)?`
	rooted   = `/(?:` + pchar + `+(?:/` + pchar + `*)*)?`
	noColon  = `(?:[A-Za-z0-9._~!$&'()*+,;=@-]|%[0-9A-Fa-f]{2})+`
	uri      = `[A-Za-z][A-Za-z0-9+.-]*:(?://` + server + `(?:/` + pchar + `*)*|` + rooted + `|` + pchar + `+(?:/` + pchar + `*)*)?` + tail
	relative = `(?://` + server + `(?:/` + pchar + `*)*|` + rooted + `|` + noColon + `(?:/` + pchar + `*)*)?` + tail
)

// A format is the set of the strings that match every pattern in all and no pattern in none.
type format struct{ all, none []string }

// Host names of up to 63 characters may have any number of labels, longer ones at most four. So the
// automaton need not count the characters of the name and of a label at the same time. Labels such as
// xn--… are excluded, because their meaning depends on tables.
var (
	reserved  = `(?:^|[.@])[^.@]{2}--`
	shortHost = `^.{1,63}$`
	longHost  = `^` + label + `(?:\.` + label + `){0,3}$`
	labels    = `^[^.]{1,62}(?:\.[^.]{1,62})*$`
)

// formats are the formats that are enforced.
var formats = map[string]func() *language{
	"date-time":     patterns(format{all: []string{`^` + date + `[Tt]` + clock + `$`}}),
	"date":          patterns(format{all: []string{`^` + date + `$`}}),
	"time":          patterns(format{all: []string{`^` + clock + `$`}}),
	"duration":      patterns(format{all: []string{`^P(?:\d+W|(?:\d+Y(?:\d+M(?:\d+D)?)?|\d+M(?:\d+D)?|\d+D)(?:T` + period + `)?|T` + period + `)$`}}),
	"email":         patterns(format{all: []string{`^` + atext + `(?:\.` + atext + `)*@` + host + `$`, `^[^@]{1,64}@[^@]{1,63}$`}, none: []string{reserved}}),
	"hostname":      onceLanguage(hostnames),
	"ipv4":          patterns(format{all: []string{`^` + ipv4 + `$`}}),
	"ipv6":          patterns(format{all: []string{`^` + ipv6 + `$`}}),
	"uri":           patterns(format{all: []string{`^` + uri + `$`}}),
	"uri-reference": patterns(format{all: []string{`^(?:` + uri + `|` + relative + `)$`}}),
	"uuid":          patterns(format{all: []string{`^[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$`}}),
	"json-pointer":  patterns(format{all: []string{`^(?:/(?:[^/~]|~[01])*)*$`}}),
}

// narrowFormats are the formats with languages that lack some valid strings.
var narrowFormats = map[string]bool{"date-time": true, "time": true, "email": true, "hostname": true, "uri": true, "uri-reference": true}

// refusedFormats are the formats of the standard that cannot be enforced.
var refusedFormats = map[string]bool{
	"idn-email": true, "idn-hostname": true, "iri": true, "iri-reference": true, "regex": true, "relative-json-pointer": true, "uri-template": true,
}

// patterns returns a function that compiles f at its first call.
func patterns(f format) func() *language {
	return onceLanguage(func() *regex.DFA {
		d := regex.Any()
		b := onceBudget()
		for _, p := range f.all {
			d = regex.And(b, d, builtin(p))
		}
		for _, p := range f.none {
			d = regex.Minus(b, d, builtin(p))
		}
		return d
	})
}

func hostnames() *regex.DFA {
	b := onceBudget()
	short := regex.And(b, builtin(`^`+host+`$`), builtin(shortHost))
	long := regex.And(b, builtin(longHost), builtin(labels))
	return regex.Minus(b, regex.Or(b, short, long), builtin(reserved))
}

// builtin compiles a pattern of this file.
func builtin(pattern string) *regex.DFA {
	d, err := regex.Compile(onceBudget(), pattern)
	if err != nil {
		panic("internal error: " + err.Error())
	}
	return d
}
