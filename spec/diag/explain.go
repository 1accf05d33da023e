package diag

import (
	"cmp"
	"slices"
)

// Explanation is what `danmctl explain CODE` prints and what the reference of codes is generated from.
type Explanation struct {
	Code   Code   `json:"code"`
	Title  string `json:"title"`  // one line, what is wrong
	Text   string `json:"text"`   // why it matters; the source of the rule
	Remedy string `json:"remedy"` // what to do
}

// catalogue lists the explanations, one slice a room, each in a file catalogue_<room>.go.
func catalogue() [][]Explanation {
	return [][]Explanation{bundleCodes, networkCodes, hostCodes, renderCodes, sourceCodes, overlayCodes, nodeCodes, attachCodes, clusterCodes, addressCodes}
}

// Explain returns the text of a code; false if the code is unknown.
func Explain(code Code) (Explanation, bool) {
	for _, e := range All() {
		if e.Code == code {
			return e, true
		}
	}
	return Explanation{}, false
}

// All returns every explanation, sorted by code.
func All() []Explanation {
	out := slices.Concat(catalogue()...)
	slices.SortFunc(out, func(a, b Explanation) int { return cmp.Compare(a.Code, b.Code) })
	return out
}
