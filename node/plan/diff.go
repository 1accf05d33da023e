package plan

// Diff decides what has to change so that observed becomes desired. It is pure and deterministic. Running Diff again on the
// state its steps led to gives a plan without steps, claims and releases.
func Diff(desired Desired, observed Observed) Plan { return Plan{} }

// Repairs splits a plan into the class-none steps, which the guard may run at once as drift repair, and the rest. Claims
// and Blocked go with both, Released with rest.
func Repairs(p Plan) (now, rest Plan) { return Plan{}, p }
