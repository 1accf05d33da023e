package validate

import (
	"fmt"

	"danm.io/danm/spec/diag"
)

// openID is the number of networks that are shared with each other while some of them leave it open: id if one writes it,
// else open, the first of the networks, stands for it.
type openID struct {
	id   uint32
	open string
}

// openNumbers finds, for each network that leaves its number open, with whom it will have it in common: networks that are
// shared with each other get one number (render gives numbers out so).
func (c *checker) openNumbers() map[*network]openID {
	out := map[*network]openID{}
	for _, n := range c.netList {
		if _, known := out[n]; known || !n.auto {
			continue
		}
		number := openID{open: n.Key()}
		members := c.company(n)
		for _, m := range members {
			if m.ID() == 0 {
				continue
			}
			if number.id != 0 && number.id != m.ID() && !n.broken() {
				c.error(diag.SharedMismatch, n.idSpot(), fmt.Sprintf("network %s is shared with networks of %s %d and %d, so which number it gets is open", n.Key(), idWord(n), number.id, m.ID()), "write the number, or share it with one of them")
				break
			}
			number = openID{id: m.ID()}
		}
		for _, m := range members {
			out[m] = number
		}
	}
	return out
}

// company is a network and all that get its number, in the order they are found.
func (c *checker) company(first *network) []*network {
	out, seen := []*network{first}, map[*network]bool{first: true}
	for i := 0; i < len(out); i++ {
		n := out[i]
		for _, name := range n.SharedWith {
			m := c.networks[name]
			if m == nil || seen[m] || !n.auto && !m.auto || !m.tagged || m.VXLAN != n.VXLAN || m.domain() != n.domain() || !mutual(n, m) {
				continue
			}
			seen[m] = true
			out = append(out, m)
		}
	}
	return out
}
