package cli

import (
	"os"
	"strings"

	"danm.io/danm/spec/diag"
	"golang.org/x/sys/unix"
)

const (
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	reset  = "\x1b[0m"
)

// WantColor says whether f is a terminal whose user has not asked for plain text (https://no-color.org).
func WantColor(f *os.File, getenv func(string) string) bool {
	if getenv("NO_COLOR") != "" || getenv("TERM") == "dumb" {
		return false
	}
	return IsTerminal(f)
}

// IsTerminal says whether somebody sits at f.
func IsTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

func paintSeverity(line string, d diag.Diagnostic) string {
	color := map[diag.Severity]string{diag.Error: red, diag.Warning: yellow}[d.Severity]
	word := string(d.Severity) + "["
	return strings.Replace(line, word, color+string(d.Severity)+reset+"[", 1)
}

// paintSign colours a line by its first sign: what is added, removed, changed or blocked.
func paintSign(line string) string {
	trimmed := strings.TrimLeft(line, " ")
	for sign, color := range map[string]string{"+ ": green, "- ": red, "~ ": yellow, "! ": red} {
		if strings.HasPrefix(trimmed, sign) {
			return color + line + reset
		}
	}
	return line
}
