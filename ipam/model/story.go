package model

import (
	"fmt"
	"strings"
)

var nodeNames = [nodes]string{"A", "C"}

func addrName(a uint8) string { return fmt.Sprintf(".%d", 5+a) }

// Tell is a story for people, a line a step.
func Tell(sc *Scenario, r Rules, story []Step) string {
	var b strings.Builder
	for i, st := range story {
		s, _ := Replay(sc, r, story[:i])
		fmt.Fprintf(&b, "%3d. %s%s\n", i+1, sc.tell(&s, st), fate(st))
	}
	s, _ := Replay(sc, r, story)
	for a := range uint8(addrs) {
		if s.users(a) > 1 {
			fmt.Fprintf(&b, "     now %s is live in %s\n", addrName(a), strings.Join(s.holders(a), " and in "))
		}
	}
	return b.String()
}

func (s *State) holders(a uint8) (out []string) {
	for p := range s.Pod {
		for i, l := range s.Pod[p].Link {
			if l == a+1 {
				out = append(out, fmt.Sprintf("sandbox %d of Pod %d on %s", i+1, p+1, nodeNames[s.Pod[p].Node-1]))
			}
		}
	}
	return out
}

func fate(st Step) string {
	switch {
	case st.Y == unanswered && st.Kind == delRecord:
		return "; the runtime has not heard of it and will say it again"
	case st.Y == unanswered:
		return "; done, but the answer is lost"
	case st.Y == late:
		return "; the call is under way and has no answer"
	case st.Y == unsent:
		return "; killed before the call is sent"
	}
	return ""
}

func (sc *Scenario) placeName(p uint8) string {
	var in []string
	for a := range uint8(addrs) {
		if sc.Cover[p]>>a&1 == 1 {
			in = append(in, addrName(a))
		}
	}
	return "block {" + strings.Join(in, " ") + "}"
}

var messageNames = map[uint8]string{msgCreateBlock: "creation of a block", msgDeleteBlock: "DELETE of a block", msgCreateSingle: "creation of a Single",
	msgDeleteSingle: "DELETE of a Single", msgUpdateBlock: "update of a block", msgUpdateSingle: "update of a Single"}

func (sc *Scenario) tell(s *State, st Step) string {
	switch st.Kind {
	case podStarts:
		return fmt.Sprintf("Pod %d starts on %s", st.N+1, nodeNames[st.X])
	case lands, isLost:
		m := s.Net[st.X]
		return fmt.Sprintf("the %s by %s %s", messageNames[m.Kind], nodeNames[m.From-1], map[Kind]string{lands: "lands", isLost: "is lost"}[st.Kind])
	case newSandbox, podEnds, acquires, linksUp, delLinks, delRecord, sweeps:
		return sc.tellPod(s, st)
	case claims, givesBack, finishes, lists:
		return fmt.Sprintf(nodeVerbs[st.Kind], nodeNames[st.N], sc.placeName(st.X))
	case settles:
		return fmt.Sprintf(nodeVerbs[st.Kind], nodeNames[st.N])
	case freesBlock, orphanEnds:
		return fmt.Sprintf(controlVerbs[st.Kind], sc.placeName(st.X))
	case freesSingle, orphanCedes, orphanTakesBack, heldEnds, keptEnds:
		return fmt.Sprintf(controlVerbs[st.Kind], addrName(st.X))
	case asks, cedes, seesListed, givesUp, takesBack, letsGo, finishesSingle, parks, takes, writesForeign:
		return fmt.Sprintf(nodeVerbs[st.Kind], nodeNames[st.N], addrName(st.X))
	}
	if verb, ok := nodeVerbs[st.Kind]; ok {
		return fmt.Sprintf(verb, nodeNames[st.N])
	}
	return controlVerbs[st.Kind]
}

func (sc *Scenario) tellPod(s *State, st Step) string {
	pod := fmt.Sprintf("Pod %d on %s", st.N+1, nodeNames[max(s.Pod[st.N].Node, 1)-1])
	switch st.Kind {
	case newSandbox:
		return pod + ": the runtime starts a second sandbox"
	case podEnds:
		return pod + " is deleted"
	case acquires:
		return fmt.Sprintf("%s: ADD journals %s for sandbox %d", pod, addrName(st.X), s.Pod[st.N].Boxes)
	case linksUp:
		return fmt.Sprintf("%s: sandbox %d has its links", pod, st.X+1)
	case delLinks:
		return fmt.Sprintf("%s: DEL takes the links of sandbox %d down", pod, st.X+1)
	case delRecord:
		return fmt.Sprintf("%s: DEL of sandbox %d releases", pod, st.X+1)
	}
	return pod + ": its record is found without a sandbox and goes"
}

var nodeVerbs = map[Kind]string{
	crash: "%s's agent is killed", powerOff: "%s loses its power", powerOn: "%s boots", wipe: "%s's agent is killed and its journal wiped", snapshot: "%s's disk is saved",
	restore: "%s's disk is put back from what was saved", restoreLive: "%s's agent stops, its state directory is put back from what was saved, Pods live on",
	cutOff: "%s is cut off from the API", reconnect: "%s reaches the API again", nodeDeleted: "%s's Node object is deleted", nodeRemade: "%s's Node object is made anew",
	replaced: "%s is replaced by another machine of that name", clockBehind: "%s's clock is set back", accept: "a person has checked: %s may go on", saysOff: "a person says that %s is off",
	goesOnAlone: "%s's agent starts without the API", startReads: "%s's agent starts, and compares journal and lease", startWrites: "%s raises its epoch, and compares its blocks",
	renews: "%s renews its lease, and compares its blocks", claims: "%s claims %s", settles: "%s looks what became of its call", givesBack: "%s begins to give back %s",
	finishes: "%s deletes %s", asks: "%s asks for %s", cedes: "%s cedes %s", lists: "%s lists what it has ceded of %s", seesListed: "%s sees %s listed: it is its own",
	givesUp: "%s gives up waiting for %s", takesBack: "%s has %s back: its Single is gone", letsGo: "%s lets go of %s", finishesSingle: "%s deletes its Single of %s",
	parks: "%s hands %s to nobody", takes: "%s takes %s from nobody", rechecks: "%s sees nothing more of what it saw when its journal was lost", thaws: "%s thaws",
	writesForeign: "%s writes itself into the owner's block for %s",
}

var controlVerbs = map[Kind]string{
	tick: "a cooldown passes", longTick: "half a block lease passes", backup: "etcd is saved", etcdRestore: "etcd is put back from what was saved", networkDeleted: "the network is deleted",
	imports: "the controller imports old addresses", makesRoot: "the controller makes the root", freesBlock: "the controller frees %s", freesSingle: "the controller frees the Single of %s",
	orphanCedes: "the controller cedes %s", orphanTakesBack: "the controller has %s back", orphanEnds: "the controller removes the orphan %s", heldEnds: "the controller sees that %s is used no more",
	keptEnds: "the controller removes the reservation of %s",
}
