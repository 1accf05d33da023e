package plan

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"danm.io/danm/spec/model"
)

// Diff decides what has to change so that observed becomes desired. It is pure and deterministic. Running Diff again on the
// state its steps led to gives a plan without steps, claims and releases.
//
// A link is ours if it carries Group and the ledger records it; a route or rule is ours by RouteProtocol; addresses, and properties
// of links that we did not make, are ours by their records. What is not ours is never changed: if it stands in the way of a
// wanted object, that object is Blocked and everything else goes on. An object that already is as wanted is adopted: claimed
// without a step, and left in place on release. A link that we made always has an MTU: undeclared, it is what the kernel
// gives a new one (the parent's less the overhead; 1500 for a bridge without ports), so that the end does not depend on the
// plans before.
func Diff(desired Desired, observed Observed) Plan {
	d := newDiffer(desired, observed)
	for d.build() {
		// Another link turned out to be blocked: what hangs on it has to be judged again.
	}
	t := transition{now: d.obs.clone(), to: d.to, reason: d.reason}
	p := Plan{Steps: t.run(), Released: d.released}
	for _, b := range d.blocked {
		p.Blocked = append(p.Blocked, b)
	}
	p.Blocked = append(p.Blocked, d.absent...)
	for _, b := range d.asides {
		p.Blocked = append(p.Blocked, b)
	}
	for _, c := range d.claims {
		p.Claims = append(p.Claims, c)
	}
	slices.SortFunc(p.Blocked, func(a, b Blocked) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(p.Claims, func(a, b Record) int { return cmp.Compare(a.ID, b.ID) })
	slices.Sort(p.Released)
	return p
}

// Repairs splits a plan into the class-none steps, which the guard may run at once as drift repair, and the rest. Claims
// and Blocked stand in both, Released in rest. A none-step that follows a stronger one waits with it: it may build on it.
func Repairs(p Plan) (now, rest Plan) {
	cut := slices.IndexFunc(p.Steps, func(s Step) bool { return s.Disruption.Rank() > 0 })
	if cut < 0 {
		cut = len(p.Steps)
	}
	now = Plan{Steps: p.Steps[:cut:cut], Claims: p.Claims, Blocked: p.Blocked}
	rest = Plan{Steps: p.Steps[cut:], Claims: p.Claims, Blocked: p.Blocked, Released: p.Released}
	return now, rest
}

// adopted is the Prior of links and addresses that were there before us.
const adopted = "adopted"

// differ builds the state to reach. blocked only grows from one build to the next; the rest is made anew each time.
type differ struct {
	desired Desired
	obs     *state
	kids    map[string][]string // observed children by parent
	records map[ObjectID]Record
	kernel  map[string]string     // the plan's names of links → the kernel's
	wants   map[string]model.Link // by kernel name, parent and master in kernel names
	absent  []Blocked             // physical links that are not there
	frozen  map[string]bool       // links of which we cannot say whether they are meant: nothing of them is released
	devices map[string]bool       // kernel names that declared routes leave by
	cards   map[string]*share     // physical functions of pools
	heldVFs map[string]bool       // physical functions whose virtual ones are left as they are for now
	blocked map[ObjectID]Blocked  // links

	to       *state
	claims   map[ObjectID]Record
	released []ObjectID
	asides   map[ObjectID]Blocked // blocked addresses, properties, routes
	keep     map[ObjectID]bool    // records that are still needed
	mtus     map[string]int
}

func newDiffer(desired Desired, observed Observed) *differ {
	d := &differ{desired: desired, obs: newState(observed), records: map[ObjectID]Record{}, blocked: map[ObjectID]Blocked{},
		frozen: map[string]bool{}, devices: map[string]bool{}}
	d.kids = d.obs.childrenOf()
	for _, r := range observed.Owned {
		d.records[r.ID] = r
	}
	d.resolve()
	d.blockLoops()
	for _, r := range desired.Plan.Routes {
		d.devices[d.kernelName(r.Dev)] = true
	}
	return d
}

// build makes the target; it says true if it found another blocked link and has to be called again.
func (d *differ) build() bool {
	known := len(d.blocked)
	d.to = d.obs.clone()
	d.claims, d.asides, d.keep = map[ObjectID]Record{}, map[ObjectID]Blocked{}, map[ObjectID]bool{}
	d.released, d.mtus, d.heldVFs = nil, map[string]int{}, map[string]bool{}
	d.cards = map[string]*share{}

	d.wantCards()
	d.dropLinks()
	for _, n := range d.wantOrder() {
		d.wantLink(d.wants[n])
	}
	d.findClashes()
	if len(d.blocked) > known {
		return true
	}
	d.wantPeers()
	d.wantFunctions()
	d.releaseRecords()
	d.wantRoutes()
	d.wantRules()
	d.wantSysctls()
	d.guardForeignMTUs()
	d.settle()
	return false
}

// wantOrder lists the wanted links, parents and masters first.
func (d *differ) wantOrder() []string {
	s := &state{links: map[string]*ObservedLink{}}
	for n, l := range d.wants {
		if m, wanted := d.wants[l.Master]; wanted && !holdsPorts(m.Kind) {
			l.Master = "" // refused later; here it could close a loop
		}
		s.links[n] = &ObservedLink{Link: l}
	}
	return s.order()
}

// isOurs says whether we made the observed link: group and ledger both say so.
func (d *differ) isOurs(name string) bool {
	l := d.obs.links[name]
	r, recorded := d.records[LinkID(name)]
	return l != nil && l.Group == Group && recorded && r.Prior != adopted
}

func (d *differ) block(id ObjectID, reason, remedy string) {
	if _, known := d.blocked[id]; !known {
		d.blocked[id] = Blocked{ID: id, Reason: reason, Remedy: remedy}
	}
}

func (d *differ) aside(id ObjectID, reason, remedy string) {
	d.asides[id] = Blocked{ID: id, Reason: reason, Remedy: remedy}
	d.keep[id] = true
}

// claim makes sure of a record; one that says the same already needs no write.
func (d *differ) claim(id ObjectID, prior string) {
	d.keep[id] = true
	if have, ok := d.records[id]; !ok || have.Prior != prior {
		d.claims[id] = Record{ID: id, Prior: prior}
	}
}

func (d *differ) reason(op Op, id ObjectID) string {
	switch op {
	case CreateLink:
		if d.obs.links[string(id[len("link/"):])] != nil {
			return "made anew: kind, parent or id differs"
		}
		return "declared, not present"
	case DeleteLink:
		if d.to.links[string(id[len("link/"):])] != nil {
			return "made anew: kind, parent or id differs"
		}
		return "no longer declared"
	case AddRule:
		return "declared, not present"
	case AddAddress, AddRoute, AddPeer:
		_, there := d.obs.routes[id]
		switch {
		case op == AddAddress && !d.keep[id], op == AddRoute && d.to.routes[id].Protocol != RouteProtocol:
			return "went with its link, put back"
		case op == AddRoute && there && d.to.routes[id] != d.obs.routes[id]:
			return "next hop differs"
		}
		return "declared, not present"
	case SetVF:
		if d.keep[id] {
			return "differs from what is declared"
		}
		return "no longer declared, value before put back"
	case SetSysctl:
		switch _, recorded := d.records[id]; {
		case d.keep[id]:
			return "differs from what is declared"
		case recorded:
			return "no longer declared, value before put back"
		}
		return "follows from another parameter"
	case SetLink:
		if _, recorded := d.records[id]; recorded && !d.keep[id] {
			return "no longer declared, value before put back"
		}
		if _, link, _ := strings.Cut(string(id), "/"); !d.keep[id] && d.wants[path.Dir(link)].Name == "" {
			return "the kernel changes it with another link, put back"
		}
		return "differs from what is declared"
	}
	return "no longer declared"
}
