package trust

import (
	"io/fs"

	"golang.org/x/sys/windows"
)

// NoFollow opens a link as itself: it is then no regular file.
const NoFollow = windows.FILE_FLAG_OPEN_REPARSE_POINT

// factsOf knows nothing: owners and modes do not say here what other users can do, and access
// lists are not looked at.
func factsOf(fs.FileInfo) (Facts, bool) { return Facts{}, false }

func self() Judge { return Judge{} }
