package guard

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Text is the status for people, one fact a line; now is what times are told against.
func (s Status) Text(now time.Time) string {
	var b strings.Builder
	line := func(name, format string, a ...any) { fmt.Fprintf(&b, "%-11s%s\n", name+":", fmt.Sprintf(format, a...)) }
	switch {
	case s.Pending != nil:
		line("phase", "%s, until %s unless confirmed (%s left)", s.Phase, s.Until.UTC().Format(time.RFC3339), max(0, s.Until.Sub(now)).Round(time.Second))
	default:
		line("phase", "%s", s.Phase)
	}
	if s.Paused {
		line("paused", "no kernel writes until danm-node resume")
	}
	if t := s.Confirmed; t != nil {
		line("confirmed", "%s, plan %s, %d steps", t.Revision, t.Digest, len(t.Steps))
	}
	if t := s.Pending; t != nil {
		line("under way", "%s, plan %s, %d steps", t.Revision, t.Digest, len(t.Steps))
	}
	for _, step := range s.Held {
		line("held", "%s: until no Pod is attached (%s)", step, strings.Join(step.Pods, ", "))
	}
	for _, t := range []*Transaction{s.Pending, s.Confirmed} {
		if t == nil {
			continue
		}
		for _, x := range t.Blocked {
			line("blocked", "%s: %s; remedy: %s", x.ID, x.Reason, x.Remedy)
		}
		break
	}
	if u := s.Undone; u != nil {
		line("undone", "%s at %s: %s%s", u.Revision, u.At.UTC().Format(time.RFC3339), u.Reason, verdictText(*u))
	}
	for _, digest := range slices.Sorted(maps.Keys(s.Refusals)) {
		r := s.Refusals[digest]
		if r.refuses() {
			line("refused", "plan %s of %s after %d attempts: %s; lift it with danm-node retry", digest, r.Revision, r.Attempts, r.Reason)
		} else {
			line("doubtful", "plan %s of %s: undone %d of %d times: %s", digest, r.Revision, r.Attempts, MaxAttempts, r.Reason)
		}
	}
	if s.Trouble != "" {
		line("trouble", "%s", s.Trouble)
	}
	return b.String()
}

func verdictText(u Undone) string {
	switch {
	case u.Verdict == Undecided:
		return ""
	case u.Probe == "":
		return fmt.Sprintf(" (%s)", u.Verdict)
	}
	return fmt.Sprintf(" (%s by probe %s)", u.Verdict, u.Probe)
}
