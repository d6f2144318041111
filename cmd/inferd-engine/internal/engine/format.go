package engine

import "github.com/inferd-go/inferd/internal/infer"

// grammarOf returns the grammar of a response format; empty is none.
func grammarOf(f infer.Format) string {
	if f.JSONObject {
		return jsonObject
	}
	return f.Grammar
}

// jsonObject is the grammar of a JSON object, as json.org defines it. White space is
// bounded: without a bound some models write nothing else.
const jsonObject = `root ::= object
value ::= object | array | string | number | "true" | "false" | "null"
object ::= "{" ws ( member ( "," ws member )* )? "}" ws
member ::= string ":" ws value ws
array ::= "[" ws ( value ws ( "," ws value ws )* )? "]"
string ::= "\"" char* "\""
char ::= [^"\\\x7F\x00-\x1F] | "\\" ( ["\\/bfnrt] | "u" hex hex hex hex )
hex ::= [0-9a-fA-F]
number ::= "-"? ( "0" | [1-9] [0-9]* ) ( "." [0-9]+ )? ( [eE] [-+]? [0-9]+ )?
ws ::= ( " " | "\n" | "\t" ){0,20}
`
