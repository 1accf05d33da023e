package plan

// Empty says that nothing is to be done: no steps, no claims, no releases. Blocked objects do not count.
func (p Plan) Empty() bool { return len(p.Steps)+len(p.Claims)+len(p.Released) == 0 }

// Worst is the strongest disruption class among the steps, None for an empty plan.
func (p Plan) Worst() Disruption { return None }

// NamePods returns the plan with Step.Pods filled for each step above class none: attached gives the Pods whose interfaces
// stand on a link (kernel name), sorted or not.
func (p Plan) NamePods(attached func(link string) []string) Plan { return p }

// String is the step in one line: "+ link vx_telem vxlan 5001 dev eth0", "~ link x mtu 1500 -> 1400", "- address 10.0.0.1/24 dev x".
func (s Step) String() string { return "" }

// Text lists the steps and blocked objects, one a line, in execution order.
func (p Plan) Text() string { return "" }
