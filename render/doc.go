// Package render turns a validated bundle into everything that has to exist: DANM's API objects and, for each node, the
// state its agent works from. Render is a pure function: same bundle and inventory, same bytes.
//
// The work is done once a class (all nodes that match the same groups) and then patched for each node: own addresses of
// physical interfaces, own VXLAN source, own peers. Nodes of one class share network slices, routes and peer templates,
// so a Result is to be read, never written to.
//
// The package knows no context, log, clock, randomness, file or socket, fills in no revision (its callers know it), and
// does not repeat the rule book (spec/validate): its diagnostics are only about what is seen first when names of host
// links are made and identifiers are given out.
package render
