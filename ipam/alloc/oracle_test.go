package alloc

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"danm.io/danm/spec/model"
)

// oracle is the rule book by enumeration: it shares no code with Space.
type oracle struct {
	all      []netip.Addr
	block    int
	slot, of int
	held     map[netip.Addr]uint32
	freed    []freedAddr // oldest first
	clock    int64
}

type freedAddr struct {
	a  netip.Addr
	at int64
}

func (o *oracle) clone() *oracle {
	c := *o
	c.held = map[netip.Addr]uint32{}
	for a, h := range o.held {
		c.held[a] = h
	}
	c.freed = slices.Clone(o.freed)
	return &c
}

func (o *oracle) owner(a netip.Addr) int { return slices.Index(o.all, a) / o.block % o.of }

func (o *oracle) ends(a netip.Addr) bool {
	if len(o.all) <= 2 {
		return false
	}
	return a == o.all[0] || a.Is4() && a == o.all[len(o.all)-1]
}

func (o *oracle) inPools(sub model.Subnet, a netip.Addr) bool {
	in := func(rs []model.AddrRange) bool {
		return slices.ContainsFunc(rs, func(r model.AddrRange) bool { return r.Contains(a) })
	}
	return (len(sub.Pools) == 0 || in(sub.Pools)) && o.owner(a) == o.slot
}

func (o *oracle) eligible(sub model.Subnet, a netip.Addr) bool {
	ex := slices.ContainsFunc(sub.Exclude, func(r model.AddrRange) bool { return r.Contains(a) })
	return o.inPools(sub, a) && !ex && !router(sub, a) && !o.ends(a)
}

// router says whether somebody on the wire has the address: the gateway, or one that a route goes by.
func router(sub model.Subnet, a netip.Addr) bool {
	return a == sub.Gateway || slices.ContainsFunc(sub.Routes, func(r model.PodRoute) bool { return r.Via == a })
}

func (o *oracle) freedAt(a netip.Addr) int {
	return slices.IndexFunc(o.freed, func(f freedAddr) bool { return f.a == a })
}

func (o *oracle) take(a netip.Addr, h uint32) {
	if i := o.freedAt(a); i >= 0 {
		o.freed = slices.Delete(o.freed, i, i+1)
	}
	o.held[a] = h
}

func (o *oracle) free(a netip.Addr) {
	delete(o.held, a)
	o.freed = append(o.freed, freedAddr{a, o.clock})
}

// judge says what is wrong with the answer of Dynamic, "" if nothing is.
func (o *oracle) judge(sub model.Subnet, ready int64, got netip.Addr, err error) string {
	var fresh []netip.Addr
	var held, reserved, cooling uint64
	for _, a := range o.all {
		switch {
		case !o.inPools(sub, a):
		case !o.eligible(sub, a):
			reserved++
		default:
			if _, h := o.held[a]; h {
				held++
			} else if o.freedAt(a) < 0 {
				fresh = append(fresh, a)
			}
		}
	}
	var oldest netip.Addr
	for _, f := range o.freed {
		switch {
		case !o.eligible(sub, f.a):
		case f.at > ready:
			cooling++
		case !oldest.IsValid():
			oldest = f.a
		}
	}
	if err != nil {
		var e *ExhaustedError
		switch {
		case !errors.As(err, &e) || !errors.Is(err, ErrExhausted):
			return fmt.Sprintf("error %v", err)
		case len(fresh) > 0 || oldest.IsValid():
			return fmt.Sprintf("exhausted, but there are %v and %v", fresh, oldest)
		case e.Held != held || e.Cooling != cooling || e.Reserved != reserved:
			return fmt.Sprintf("counts %d held %d cooling %d reserved, want %d %d %d", e.Held, e.Cooling, e.Reserved, held, cooling, reserved)
		}
		return ""
	}
	switch {
	case len(fresh) > 0 && !slices.Contains(fresh, got):
		return fmt.Sprintf("%s is not fresh, %v are", got, fresh)
	case len(fresh) == 0 && got != oldest:
		return fmt.Sprintf("%s is not the oldest, %s is", got, oldest)
	}
	return ""
}

func (o *oracle) judgeStatic(a netip.Addr, err error) string {
	_, held := o.held[a]
	want := error(nil)
	switch {
	case !slices.Contains(o.all, a):
		want = ErrOutside
	case o.ends(a):
		want = ErrReserved
	case o.owner(a) != o.slot:
		want = ErrNotOurs
		if e := (*NotOursError)(nil); !errors.As(err, &e) || e.Owner != o.owner(a) {
			return fmt.Sprintf("static %s: %v does not name slot %d", a, err, o.owner(a))
		}
	case held:
		want = ErrTaken
		if e := (*TakenError)(nil); !errors.As(err, &e) || e.Holder != o.held[a] {
			return fmt.Sprintf("static %s: %v does not name holder %d", a, err, o.held[a])
		}
	}
	if !errors.Is(err, want) || (want == nil) != (err == nil) {
		return fmt.Sprintf("static %s: %v, want %v", a, err, want)
	}
	return ""
}
