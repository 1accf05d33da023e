package history

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

var (
	start = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	five  = Where{"edge", netip.MustParseAddr("10.0.0.5")}
)

func sec(n int) time.Time { return start.Add(time.Duration(n) * time.Second) }

func holder(node, sandbox, pod string) Holder { return Holder{node, sandbox, pod, "eth0"} }

// Every kind of violation is seen, and beside each stands the innocent story that is nearest to it.
func TestSeededViolations(t *testing.T) {
	for name, story := range map[string]struct {
		kind string // "" = innocent
		play func(c *Checker)
	}{
		"two nodes": {Double, func(c *Checker) {
			c.Set(sec(1), holder("a", "s1", "u1"), five, Dynamic)
			c.Set(sec(100), holder("b", "s2", "u2"), five, Static)
		}},
		"two sandboxes of a Pod": {Double, func(c *Checker) {
			c.Set(sec(1), holder("a", "s1", "u1"), five, Dynamic)
			c.Set(sec(2), holder("a", "s2", "u1"), five, Dynamic)
		}},
		"the same sandbox name on two nodes": {Double, func(c *Checker) {
			c.Set(sec(1), holder("a", "s1", "u1"), five, Static)
			c.Clear(sec(2), "b", "s1")
			c.Set(sec(3), holder("c", "s1", "u1"), five, Static)
		}},
		"set twice": {"", func(c *Checker) {
			c.Set(sec(1), holder("a", "s1", "u1"), five, Dynamic)
			c.Set(sec(2), holder("a", "s1", "u1"), five, Dynamic)
		}},
		"a Pod's next sandbox": {"", func(c *Checker) {
			c.Set(sec(1), holder("a", "s1", "u1"), five, Dynamic)
			c.Clear(sec(2), "a", "s1")
			c.Set(sec(2), holder("a", "s2", "u1"), five, Dynamic)
		}},
		"another space": {"", func(c *Checker) {
			c.Set(sec(1), holder("a", "s1", "u1"), five, Dynamic)
			c.Set(sec(1), holder("b", "s2", "u2"), Where{"core", five.Addr}, Dynamic)
		}},
		"the machine was off": {"", func(c *Checker) {
			c.Set(sec(1), holder("a", "s1", "u1"), five, Dynamic)
			c.Off(sec(2), "a", []string{"s1"})
			c.Set(sec(40), holder("b", "s2", "u2"), five, Dynamic)
		}},
		"too warm": {Warm, func(c *Checker) {
			c.Set(sec(1), holder("a", "s1", "u1"), five, Dynamic)
			c.Clear(sec(2), "a", "s1")
			c.Set(sec(31), holder("a", "s2", "u2"), five, Dynamic)
		}},
		"too warm after a power cut": {Warm, func(c *Checker) {
			c.Set(sec(1), holder("a", "s1", "u1"), five, Dynamic)
			c.Off(sec(2), "a", []string{"s1"})
			c.Set(sec(31), holder("b", "s2", "u2"), five, Dynamic)
		}},
		"cool": {"", func(c *Checker) {
			c.Set(sec(1), holder("a", "s1", "u1"), five, Dynamic)
			c.Clear(sec(2), "a", "s1")
			c.Set(sec(32), holder("a", "s2", "u2"), five, Dynamic)
		}},
		"warm, but asked for": {"", func(c *Checker) {
			c.Set(sec(1), holder("a", "s1", "u1"), five, Dynamic)
			c.Clear(sec(2), "a", "s1")
			c.Set(sec(3), holder("a", "s2", "u2"), five, Static)
		}},
		"outside the pool": {Outside, func(c *Checker) {
			c.Set(sec(1), holder("a", "s1", "u1"), Where{"edge", netip.MustParseAddr("10.0.0.200")}, Dynamic)
		}},
		"unknown space": {Outside, func(c *Checker) {
			c.Set(sec(1), holder("a", "s1", "u1"), Where{"nowhere", five.Addr}, Static)
		}},
		"outside the pool, but asked for": {"", func(c *Checker) {
			c.Set(sec(1), holder("a", "s1", "u1"), Where{"edge", netip.MustParseAddr("10.0.0.200")}, Static)
		}},
		"not in the journal": {Unrecorded, func(c *Checker) {
			c.Set(sec(1), holder("a", "s1", "u1"), five, Dynamic)
			c.Recorded(sec(2), "a", []Holder{holder("a", "s1", "u1")}, []Entry{{Node: "a", Sandbox: "s0", Where: five}})
		}},
		"in the journal": {"", func(c *Checker) {
			c.Set(sec(1), holder("a", "s1", "u1"), five, Dynamic)
			c.Recorded(sec(2), "a", []Holder{holder("a", "s1", "u1")}, []Entry{{Node: "a", Sandbox: "s1", Where: five}})
		}},
		"in two journals": {TwoBooks, func(c *Checker) {
			c.Consistent(sec(1), Books{Entries: []Entry{{Node: "a", Sandbox: "s1", Where: five}, {Node: "b", Sandbox: "s2", Where: five}}})
		}},
		"left in the kernel": {Leaked, func(c *Checker) {
			c.Set(sec(1), holder("a", "s1", "u1"), five, Dynamic)
			c.Quiet(sec(1000), Books{})
		}},
		"left in the journal": {Leaked, func(c *Checker) {
			c.Quiet(sec(1000), Books{Entries: []Entry{{Node: "a", Sandbox: "s1", Where: five}}})
		}},
		"frozen":  {Frozen, func(c *Checker) { c.Froze(sec(1), "a", "block") }},
		"starved": {Starved, func(c *Checker) { c.Starve(sec(1), "edge", "u1", "exhausted") }},
	} {
		c := New()
		c.Space("edge", Pool{Allowed: func(a netip.Addr) bool { return a.As4()[3] < 128 }, Cooldown: 30 * time.Second})
		c.Space("core", Pool{Allowed: func(netip.Addr) bool { return true }, Cooldown: 30 * time.Second})
		story.play(c)
		expect(t, name, c, story.kind)
	}
}

func expect(t *testing.T, name string, c *Checker, kind string) {
	t.Helper()
	found := c.Violations()
	switch {
	case kind == "" && len(found) > 0:
		t.Errorf("%s: an innocent story is blamed: %v", name, found)
	case kind != "" && (len(found) != 1 || found[0].Kind != kind):
		t.Errorf("%s: found %v, want one %q", name, found, kind)
	}
}

func TestSeededLeaksInTheAPI(t *testing.T) {
	nodes := map[string]string{"a": "ida", "b": "idb"}
	good := Block{Name: "x", Owner: "a", Identity: "ida", UID: "1"}
	with := func(f func(*Block)) Block { b := good; f(&b); return b }
	for name, c := range map[string]struct {
		kind   string
		blocks []Block
	}{
		"owned":                {"", []Block{good}},
		"root":                 {"", []Block{{Root: true}}},
		"being deleted":        {Leaked, []Block{with(func(b *Block) { b.Deleting = true })}},
		"owner gone":           {Leaked, []Block{with(func(b *Block) { b.Owner = "c" })}},
		"other identity":       {Leaked, []Block{with(func(b *Block) { b.Identity = "idb" })}},
		"orphan":               {Leaked, []Block{with(func(b *Block) { b.Owner = "" })}},
		"orphan with holders":  {"", []Block{with(func(b *Block) { b.Owner, b.Held = "", 1 })}},
		"single":               {Leaked, []Block{with(func(b *Block) { b.Single = true })}},
		"kept single":          {"", []Block{with(func(b *Block) { b.Single, b.Kept = true, true })}},
		"ceded to a kept one":  {"", []Block{with(func(b *Block) { b.Ceded = []string{"2"} }), {Name: "y", UID: "2", Single: true, Kept: true}}},
		"ceded to nobody":      {Leaked, []Block{with(func(b *Block) { b.Ceded = []string{"2"} })}},
		"parked without owner": {"", []Block{{Name: "y", Single: true, Kept: true}}},
	} {
		h := New()
		h.Quiet(sec(1), Books{Blocks: c.blocks, Nodes: nodes})
		expect(t, name, h, c.kind)
	}
}

// What is forgotten is only what is neither live nor warm.
func TestForget(t *testing.T) {
	c := New()
	c.Space("edge", Pool{Allowed: func(netip.Addr) bool { return true }, Cooldown: 30 * time.Second})
	c.Set(sec(1), holder("a", "s1", "u1"), five, Dynamic)
	c.Forget(sec(1000))
	c.Set(sec(1001), holder("b", "s2", "u2"), five, Dynamic)
	if v := c.Violations(); len(v) != 1 || len(v[0].Past) != 2 || !strings.Contains(v[0].String(), "s1 of Pod u1 on a") {
		t.Fatalf("%v", v)
	}
	c.Clear(sec(1002), "a", "s1")
	c.Clear(sec(1002), "b", "s2")
	if c.Live() != 0 {
		t.Error("still live")
	}
	c.Forget(sec(1000))
	c.Set(sec(1003), holder("c", "s3", "u3"), five, Dynamic)
	if len(c.Violations()) != 2 {
		t.Error("a warm address was forgotten")
	}
}
