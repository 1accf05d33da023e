package diag

import (
	"slices"
	"strings"
)

// Suggest is the hint for a misspelt word: `did you mean "vxlan"?`, or "" if nothing known is near. A word is near when a
// third of its letters, at most three, have to change or two neighbours to swap (Levenshtein, Damerau); equal but for case and - and _ is nearest.
func Suggest(word string, known []string) string {
	best, least := "", min(3, max(1, len(word)/3))+1
	for _, k := range slices.Sorted(slices.Values(known)) {
		d := distance(word, k, least)
		if fold(word) == fold(k) {
			d = 0
		}
		if d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return `did you mean "` + best + `"?`
}

func fold(s string) string {
	return strings.ToLower(strings.NewReplacer("-", "", "_", "", ".", "").Replace(s))
}

// distance is the number of edits from a to b, or at least limit if there are that many.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j]+cost, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
