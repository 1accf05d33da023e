// Package link speaks netlink: it lists a network namespace's links, addresses, routes and flood entries, executes
// plan.Steps and wakes its user after changes. It implements plan.Kernel.
//
// It decides nothing: what to do stands in the step. It refuses to delete a link, and to replace a route, that does not
// carry our marks, whatever the step says. Dumps that the kernel could not give whole are repeated (NLM_F_DUMP_INTR): half a
// list never passes for all there is. No thread is moved between namespaces but for the moment in which a socket is opened.
//
// What the kernel takes away beside a step: deleting an address drops the secondaries of its subnet, and with the last IPv4
// address all IPv4 routes of the link; both are put back here as far as the kernel takes them. Taking a link down loses its
// routes and its global IPv6 addresses; that is not put back here: plans take a link down only where nothing of others
// would be lost, and an undo adds what it needs itself.
package link
