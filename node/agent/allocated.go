package agent

import (
	"context"
	"maps"
	"slices"

	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
)

// unknownHolder stands for whoever may have a function while the kubelet does not say.
const unknownHolder = "a Pod, for all that is known: the kubelet does not answer"

// pods names the Pods by what they stand on: host links, and virtual functions, which a Pod has from the moment that the kubelet gives
// them to it, attached or not. The kubelet is asked.
func (a *Agent) pods(ctx context.Context) map[string][]string {
	return a.podsBy(func() (map[string]string, error) { return a.given(ctx) })
}

// podsBy is pods, by what is told of the kubelet's answer. It is not asked for where there are no virtual functions.
func (a *Agent) podsBy(kubelet func() (map[string]string, error)) map[string][]string {
	out := map[string][]string{}
	if a.opts.Attachments != nil {
		maps.Copy(out, a.opts.Attachments.Pods())
	}
	functions := a.functions.Load()
	if functions == nil { // nothing was observed yet: what was reported last is true until then
		return withReported(out, a.reported())
	}
	if len(*functions) == 0 {
		return out
	}
	given, err := kubelet()
	if err != nil {
		a.sayOnce(&a.givenProblem, "which Pods have virtual functions is not known; none is taken away", err)
	} else {
		a.givenProblem = ""
	}
	return withFunctions(out, *functions, given, err != nil)
}

// reported are the Pods of the last report, of an earlier agent perhaps, in this boot.
func (a *Agent) reported() map[string][]string {
	r, err := a.dir.ReadReport()
	if err != nil || r.BootID != a.bootID {
		return nil
	}
	return r.Pods
}

// withReported adds who was reported to have virtual functions.
func withReported(pods, reported map[string][]string) map[string][]string {
	for key, names := range reported {
		if plan.IsFunctionKey(key) && len(pods[key]) == 0 {
			pods[key] = names
		}
	}
	return pods
}

// withFunctions adds to pods who has virtual functions, under the functions' own keys and those of their cards. functions are the cards
// by the functions' PCI addresses, given the Pods by the same; unknown says that any of them may be had.
func withFunctions(pods map[string][]string, functions, given map[string]string, unknown bool) map[string][]string {
	for _, pci := range slices.Sorted(maps.Keys(functions)) {
		key := plan.VFKey(pci)
		if pod := given[pci]; pod != "" {
			pods[key] = append(slices.Clone(pods[key]), pod)
		}
		if unknown && len(pods[key]) == 0 {
			pods[key] = []string{unknownHolder}
		}
		if len(pods[key]) > 0 {
			card := plan.SRIOVKey(functions[pci])
			pods[card] = append(slices.Clone(pods[card]), pods[key]...)
		}
	}
	for key, names := range pods {
		names = slices.Clone(names)
		slices.Sort(names)
		pods[key] = slices.Compact(names)
	}
	return pods
}

// cardsOf are the cards of virtual functions, by PCI address, that pools of a plan or records of earlier ones may speak of; nil for
// a node without SR-IOV.
func cardsOf(o plan.Observed) map[string]string {
	var out map[string]string
	for _, l := range o.Links {
		if l.SRIOV == nil {
			continue
		}
		for _, vf := range l.SRIOV.VFs {
			if vf.PCI != "" {
				if out == nil {
					out = map[string]string{}
				}
				out[vf.PCI] = l.Name
			}
		}
	}
	return out
}

// withPools says whether SR-IOV is any of the plan's business, or was of an earlier one's.
func withPools(p model.NodePlan, owned []plan.Record) bool {
	return len(p.Pools) > 0 || slices.ContainsFunc(owned, func(r plan.Record) bool { return plan.IsFunctions(r.ID) })
}

// ending are the virtual functions that steps end or take from their driver, by PCI address, with the reason.
func ending(steps []plan.Step, o plan.Observed) map[string]string {
	out := map[string]string{}
	for _, s := range steps {
		if s.Disruption != plan.DestroysPods {
			continue
		}
		switch {
		case s.VF != nil && s.VF.PCI != "":
			out[s.VF.PCI] = "a plan changes it: " + s.String()
		case s.Op == plan.SetLink && s.Property == "numvfs":
			for pci, card := range cardsOf(o) {
				if card == s.LinkName {
					out[pci] = "a plan makes all functions of its card anew: " + s.String()
				}
			}
		}
	}
	return out
}
