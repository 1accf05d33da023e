package diag

// Codes of the node: state directory, plan, guard and agent.
const (
	StateCorrupt    Code = "StateCorrupt"
	StateNewer      Code = "StateNewer"
	NodeMismatch    Code = "NodeMismatch"
	PlanReverted    Code = "PlanReverted"
	PlanQuarantined Code = "PlanQuarantined"
	StepsWaiting    Code = "StepsWaiting"
	DriftFight      Code = "DriftFight"
	GuardAway       Code = "GuardAway"
)

var nodeCodes = []Explanation{
	{StateCorrupt, "a file of the state directory is damaged", "Format, checksum or digest do not fit the content. The node goes on with the last good file and deletes nothing.", "Run the sync again; it replaces the file. Move ledger.json or guard.json away if one of them is damaged: what carries our group stays in place and is taken over again."},
	{StateNewer, "a file of the state directory was written by a newer version", "A program reads its own format and the one before it. A field it does not know could be a part of the plan.", "Upgrade this program, or write the state again with the older version."},
	{NodeMismatch, "the state directory belongs to another node", "Plan and address blocks are one node's own. Using another's gives one address two holders.", "Start the agent with the name the state was rendered for, or give it its own state directory."},
	{PlanReverted, "a plan was applied and undone", "The agent did not confirm it in time, a step failed, or the guard was stopped inside the window.", "See the reason and the failing probe in the status; the plan is tried again unless it was found guilty."},
	{PlanQuarantined, "a plan's digest is refused on this node", "Its probes failed while it was applied and passed again once it was undone, or it failed too often.", "Correct the bundle (another digest is tried at once), or lift the quarantine with danm-node retry."},
	{StepsWaiting, "steps wait for Pods to leave", "They would take down or destroy links on which Pods are attached.", "Drain the node or detach the named Pods; the steps are then carried out."},
	{DriftFight, "another program keeps changing what is declared here", "The same object was repaired more than ten times within a minute. It is left alone for a minute, then tried again.", "Stop the other manager from handling the link, or take it out of the bundle."},
	{GuardAway, "the guard does not answer", "Without it no plan is applied and no drift repaired. Pods are still attached on confirmed links.", "Start danm-node guard and look at its log."},
}
