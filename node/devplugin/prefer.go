package devplugin

import (
	"cmp"
	"fmt"
	"slices"
)

// preferred says which devices a container had best get: those that it must, then devices of one NUMA node, spread over the physical
// functions, so that a Pod with two interfaces survives a port and its interfaces do not share one. The node is the one that most of the
// container's devices can be of, of equal ones that where they can be of more physical functions, then that with the most free devices, so
// that Pods with one device spread too.
//
// What the resource does not have is not chosen; then, and where too few are available, there are fewer than size. The result does not
// depend on the order of what is given. Errors: more must be than size.
func (r Resource) preferred(available, must []string, size int) ([]string, error) {
	c := r.choice(available, must)
	if size < len(c.chosen) {
		return nil, fmt.Errorf("%d devices of %s cannot include %d", size, r.Name, len(c.chosen))
	}
	nodes := c.nodes(size)
	for len(c.chosen) < size && len(c.free) > 0 {
		best := slices.MinFunc(c.free, func(a, b Device) int {
			return cmp.Or(cmp.Compare(nodes[a.NUMA], nodes[b.NUMA]), cmp.Compare(c.onPF[a.PF], c.onPF[b.PF]),
				cmp.Compare(c.freePF[b.PF], c.freePF[a.PF]), cmp.Compare(a.PF, b.PF), cmp.Compare(a.ID, b.ID))
		})
		c.take(best)
	}
	return slices.Sorted(slices.Values(c.chosen)), nil
}

// choice is a preferred allocation in the making.
type choice struct {
	chosen []string
	free   []Device
	onNode map[int]int    // chosen, by NUMA node
	onPF   map[string]int // chosen, by physical function
	freePF map[string]int
}

func (r Resource) choice(available, must []string) *choice {
	c := &choice{onNode: map[int]int{}, onPF: map[string]int{}, freePF: map[string]int{}}
	taken := map[string]bool{}
	for _, id := range must {
		if taken[id] {
			continue
		}
		taken[id] = true
		c.chosen = append(c.chosen, id)
		if d, known := r.device(id); known {
			c.onNode[d.NUMA]++
			c.onPF[d.PF]++
		}
	}
	for _, id := range available {
		if d, known := r.device(id); known && !taken[id] {
			taken[id] = true
			c.free = append(c.free, d)
			c.freePF[d.PF]++
		}
	}
	return c
}

// nodes ranks NUMA nodes, 0 is the best. A machine without nodes has one, -1.
func (c *choice) nodes(size int) map[int]int {
	free, ports := map[int]int{}, map[int]map[string]bool{}
	for _, d := range c.free {
		free[d.NUMA]++
		if ports[d.NUMA] == nil {
			ports[d.NUMA] = map[string]bool{}
		}
		ports[d.NUMA][d.PF] = true
	}
	needed := size - len(c.chosen)
	var order []int
	for n := range free {
		order = append(order, n)
	}
	of := func(n int) int { return c.onNode[n] + min(free[n], needed) } // the container's devices of it, if it is taken first
	spread := func(n int) int { return min(len(ports[n]), needed) }
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(of(b), of(a)), cmp.Compare(spread(b), spread(a)), cmp.Compare(free[b], free[a]), cmp.Compare(a, b))
	})
	rank := map[int]int{}
	for i, n := range order {
		rank[n] = i
	}
	return rank
}

func (c *choice) take(d Device) {
	c.chosen = append(c.chosen, d.ID)
	c.onPF[d.PF]++
	c.freePF[d.PF]--
	c.free = slices.DeleteFunc(c.free, func(f Device) bool { return f.ID == d.ID })
}
