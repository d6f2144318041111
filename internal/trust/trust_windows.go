package trust

import (
	"io/fs"

	"golang.org/x/sys/windows"
)

// NoFollow is a flag of [os.OpenFile] that opens a link itself, which is then not a regular file.
const NoFollow = windows.FILE_FLAG_OPEN_REPARSE_POINT

// factsOf returns no facts: owners and modes do not determine the rights of other users here, and
// access lists are not checked.
func factsOf(fs.FileInfo) (Facts, bool) { return Facts{}, false }

func self() Judge { return Judge{} }
