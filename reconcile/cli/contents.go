package cli

import "danm.io/danm/spec/diag"

// contentCodes are the failures of a fetch that lie in the bundle itself: it was found and must be mended.
var contentCodes = map[diag.Code]bool{
	diag.RepositoryEmpty:    true,
	diag.RepositoryTooLarge: true,
	diag.FileTooLarge:       true,
	diag.SymlinkEscape:      true,
	diag.SymlinkRefused:     true,
}
