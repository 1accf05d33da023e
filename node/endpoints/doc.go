// Package endpoints publishes what Pods of the node have as DanmEps, one an interface: an ADD never waits for them, and one that is
// lost or changed by others is made again. It is level-triggered: a sandbox that changed, a Pod with other labels and an event of the
// API all lead to the same comparison of one sandbox with its objects.
//
// What decides (Objects) is pure. A DanmEp ends with its sandbox, and with its Pod: Kubernetes collects what a node leaves behind that
// does not come back.
package endpoints
