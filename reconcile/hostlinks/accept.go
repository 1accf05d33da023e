package hostlinks

import (
	"fmt"
	"slices"

	"danm.io/danm/spec/diag"
)

// maxRefused bounds how many objects of a namespace are refused after a look at each. What one question costs grows with all the
// networks there are, so a namespace with thousands of bad ones would keep everybody else's waiting.
const maxRefused = 64

// accept takes objects in the order given, and leaves out those that do not go together with what was taken before. It asks
// check about whole halves first: with few bad ones the cost is near that of one question. Those of a namespace that has
// maxRefused already are not looked at any more, unless they were good before.
func accept(objects []*Object, check func([]*Object) diag.List) (good []*Object, bad map[*Object]Verdict) {
	bad = map[*Object]Verdict{}
	refused := map[string]int{}
	var take func(batch []*Object)
	take = func(batch []*Object) {
		batch = slices.DeleteFunc(slices.Clone(batch), func(o *Object) bool {
			over := !o.Settled && refused[o.Namespace] >= maxRefused
			if over {
				bad[o] = Verdict{Code: diag.NetworkRefused, Message: fmt.Sprintf("not looked at: %d older networks of its namespace are refused; mend or delete them", maxRefused)}
			}
			return over
		})
		if len(batch) == 0 {
			return
		}
		problems := check(append(slices.Clone(good), batch...))
		switch {
		case len(problems) == 0:
			good = append(good, batch...)
		case len(batch) == 1:
			bad[batch[0]] = Verdict{Code: problems[0].Code, Message: advised(problems[0])}
			refused[batch[0].Namespace]++
		default:
			take(batch[:len(batch)/2])
			take(batch[len(batch)/2:])
		}
	}
	take(objects)
	return good, bad
}
