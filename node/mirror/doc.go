// Package mirror is the cluster home's writer of a node's state directory: NodePlan, segments and peers come from the API, what
// became of them goes back into the NodePlan's status.
//
// It needs the API for news only: while the API is away, or lies in ruins, the directory keeps what it has. It is level-
// triggered: an event wakes it, each round reads the whole NodePlan. What it assembles is held to the digest that the
// controller computed. A NodePlan that is gone is no empty plan. It links client-go alone, touches no kernel and decides no diff.
package mirror
