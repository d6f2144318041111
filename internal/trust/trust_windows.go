package trust

import (
	"io/fs"

	"golang.org/x/sys/windows"
)

// NoFollow opens a link as itself: it is then no regular file.
const NoFollow = windows.FILE_FLAG_OPEN_REPARSE_POINT

// factsOf returns no facts: owners and modes do not determine the rights of other users here, and
// access lists are not checked.
func factsOf(fs.FileInfo) (Facts, bool) { return Facts{}, false }

func self() Judge { return Judge{} }
