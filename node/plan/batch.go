package plan

import "slices"

// Batches cuts steps into what the kernel can be asked for at once, in order: runs of deletions of links of which none
// stands on another one of its run, and every other step alone. A link's end takes the kernel some 20 ms of waiting for its
// readers (synchronize_net in unregister_netdevice_many), which the links of one call share.
func Batches(steps []Step) [][]Step {
	var out [][]Step
	for _, s := range steps {
		if n := len(out); n > 0 && s.Op == DeleteLink && out[n-1][0].Op == DeleteLink && !carriesAny(s.Link.Name, out[n-1]) {
			out[n-1] = append(out[n-1], s)
			continue
		}
		out = append(out, []Step{s})
	}
	return out
}

func carriesAny(name string, deletions []Step) bool {
	return slices.ContainsFunc(deletions, func(s Step) bool { return s.Link.Parent == name || s.Link.Master == name })
}
