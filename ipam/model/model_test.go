package model

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func scenario(t *testing.T, name string) Scenario {
	t.Helper()
	all := append(Scenarios(), Limits()...)
	i := slices.IndexFunc(all, func(sc Scenario) bool { return sc.Name == name })
	if i < 0 {
		t.Fatalf("no scenario %q", name)
	}
	return all[i]
}

var update = flag.Bool("update", false, "write what the searches found into docs/ipam.md")

const page = "../../docs/ipam.md"

// most bounds a search. With the race detector, which has nothing to find in one goroutine and costs ten times the time,
// searches go less far; without it they end by themselves.
func most() int {
	if raced {
		return 5_000
	}
	return 2_000_000
}

// TestRulesHold searches every world to its last state and finds nothing; docs/ipam.md says how many states that were.
func TestRulesHold(t *testing.T) {
	table := "| world | in it | states | depth |\n|---|---|---|---|\n"
	total := 0
	for _, sc := range Scenarios() {
		start := time.Now()
		r := Explore(&sc, Options{Most: most()})
		t.Logf("%-22s %7d states %8d steps %v", sc.Name, r.States, r.Steps, time.Since(start).Round(time.Millisecond))
		if r.Violation != "" {
			t.Errorf("%s: %s:\n%s", sc.Name, r.Violation, Tell(&sc, Rules{}, r.Story))
		}
		if r.Truncated && !raced {
			t.Errorf("%s: not searched to its end", sc.Name)
		}
		total += r.States
		table += fmt.Sprintf("| %s | %s | %d | %d |\n", sc.Name, sc.Short, r.States, r.Depth)
	}
	table += fmt.Sprintf("| all | | %d | |\n", total)
	if !raced {
		documented(t, "worlds", table)
	}
}

// TestLimits shows what the rules do not bear, so that the page that says so is no guess.
func TestLimits(t *testing.T) {
	table := ""
	for _, sc := range Limits() {
		r := Explore(&sc, Options{Only: []Violation{Double}, Most: 2_000_000})
		if r.Violation != Double {
			t.Errorf("%s: nothing found in %d states: then the rules bear it, and the page should say so", sc.Name, r.States)
		}
		t.Logf("%s:\n%s", sc.Name, Tell(&sc, Rules{}, r.Story))
		table += fmt.Sprintf("- **%s**: %s.\n", sc.Name, sc.Short)
	}
	documented(t, "limits", table)
}

// documented holds a generated part of the page true, or writes it.
func documented(t *testing.T, part, text string) {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	from, to := "<!-- "+part+" -->\n", "<!-- end of "+part+" -->"
	before, rest, ok1 := strings.Cut(string(b), from)
	have, after, ok2 := strings.Cut(rest, to)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no part %q", page, part)
	}
	switch {
	case have == text:
	case *update:
		if err := os.WriteFile(page, []byte(before+from+text+to+after), 0o644); err != nil { //nolint:gosec // a document
			t.Fatal(err)
		}
	default:
		t.Errorf("%s, part %q is not what the searches find: go test ./ipam/model -update", page, part)
	}
}

// mutant is one rule switched off, and what the search then finds. Those of facts named traces keep their names.
type mutant struct {
	name     string
	scenario string
	off      func(*Rules)
	want     Violation
}

var mutants = []mutant{
	{"R1 sandbox in the record", "sandboxes", func(r *Rules) { r.NoR1 = true }, Double},
	{"R2 links down before the record moves", "sandboxes", func(r *Rules) { r.NoR2 = true }, Double},
	{"R3 cooldown", "sandboxes", func(r *Rules) { r.NoR3 = true }, Warm},
	{"R4 no write by others", "ceding", func(r *Rules) { r.NoR4 = true }, Double},
	{"R5 the creation decides", "claims", func(r *Rules) { r.NoR5Decides = true }, Double},
	{"R5 journaled first", "claims", func(r *Rules) { r.NoR5Journal = true }, Frozen},
	{"R5 looked for", "claims", func(r *Rules) { r.NoR5Settle = true }, Frozen},
	{"R6 frozen blocks", "lost journal", func(r *Rules) { r.NoR6 = true }, Double},
	{"R7 thaw when all are gone", "lost journal", func(r *Rules) { r.NoR7 = true }, Double},
	{"R8 releasing is one way", "giving back", func(r *Rules) { r.NoR8 = true }, Double},
	{"R8 DELETE by UID", "giving back", func(r *Rules) { r.NoR8UID = true }, Double},
	{"R9 held", "giving back", func(r *Rules) { r.NoR9Held = true }, Double},
	{"R9 ceded", "ceding", func(r *Rules) { r.NoR9Ceded = true }, Double},
	{"R9 cooldown before give-back", "giving back", func(r *Rules) { r.NoR9Cooling = true }, Warm},
	{"R10 listed", "ceding", func(r *Rules) { r.NoR10Listed = true }, Double},
	{"R10 journaled first", "ceding", func(r *Rules) { r.NoR10Journal = true }, Double},
	{"R10 by UID", "asking again", func(r *Rules) { r.NoR10UID = true }, Double},
	{"R11 when the Single is gone", "borrowing", func(r *Rules) { r.NoR11Gone = true }, Double},
	{"R11 cools", "borrowing", func(r *Rules) { r.NoR11Cool = true }, Warm},
	{"R12 epoch", "old directory", func(r *Rules) { r.NoR12 = true }, Double},
	{"R13 lease bound", "lost node, alone", func(r *Rules) { r.NoR13 = true }, Double},
	{"R13 clock behind", "lost node, alone", func(r *Rules) { r.NoR13Clock = true }, Double},
	{"R14 a whole lease", "lost node, soon", func(r *Rules) { r.NoR14Lease = true }, Double},
	{"R14 NotReady never frees", "cut off", func(r *Rules) { r.NoR14Ready = true }, Double},
	{"R14 another machine", "new identity", func(r *Rules) { r.NoR14Machine = true }, Double},
	{"R15 orphans", "orphans", func(r *Rules) { r.NoR15 = true }, Double},
	{"R16 one cut", "two cuts", func(r *Rules) { r.NoR16 = true }, Double},
	{"R17 blocks outlive networks", "network deleted", func(r *Rules) { r.NoR17 = true }, Double},
	{"R18 no claims", "restored etcd", func(r *Rules) { r.NoR18 = true }, Double},
	{"R18 no thaw", "restored etcd", func(r *Rules) { r.NoR18Thaw = true }, Double},
	{"R18 nothing is taken back", "restored etcd, ceded", func(r *Rules) { r.NoR18TakeBack = true }, Double},
	{"R19 import first", "import", func(r *Rules) { r.NoR19 = true }, Double},
	{"R20 parked when the links are down", "sticky", func(r *Rules) { r.NoR20Park = true }, Double},
	{"R20 compare-and-swap", "sticky", func(r *Rules) { r.NoR20CAS = true }, Double},
	{"R12 asked before anything is given", "old journal", func(r *Rules) { r.NoR12Ask = true }, Double},
}

// TestEachRuleIsNeeded switches each rule off: the search finds what it is there against, and the story can be gone through
// again. With the rule on, the same story is not to be had.
func TestEachRuleIsNeeded(t *testing.T) {
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			var r Rules
			m.off(&r)
			sc := scenario(t, m.scenario)
			start := time.Now()
			res := Explore(&sc, Options{Rules: r, Only: []Violation{m.want}, Most: most()})
			if raced && res.Truncated {
				return
			}
			if res.Violation != m.want {
				t.Fatalf("nothing found in %d states", res.States)
			}
			t.Logf("%s, found in %d states and %v:\n%s", res.Violation, res.States, time.Since(start).Round(time.Millisecond), Tell(&sc, r, res.Story))
			end, ok := Replay(&sc, r, res.Story)
			if !ok || end != res.Last {
				t.Error("the story does not lead there again")
			}
			if _, ok := Replay(&sc, Rules{}, res.Story); ok {
				// The last steps may be allowed by themselves; what they lead to is not.
				if s, _ := Replay(&sc, Rules{}, res.Story); s.broken() != "" {
					t.Error("the story breaks an invariant with the rule on, too")
				}
			}
		})
	}
}
