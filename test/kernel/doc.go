// Package kernel runs scripts about host interfaces on the fake kernel and on the real one, in namespaces of its own. Both
// must show the same text: so the fake is held to the kernel, and plans tested on the fake mean something.
//
// A script is a txtar file in testdata: its commands stand above the first file, wanted texts are files of it.
//
//	needs KIND                       the real kernel must know this link kind, otherwise it is skipped there by name
//	foreign link NAME KIND [..]      others make a link: dev P, id N, vni N, port N, group A, mtu N, master M, ifgroup N, up
//	foreign set NAME PROPERTY VALUE  others set mtu, up, master or alias ("-" is empty)
//	foreign unlink NAME
//	foreign address|unaddress PREFIX dev NAME
//	foreign route|unroute PREFIX [via A] [dev NAME] [table N] [metric N] proto N
//	foreign rule|unrule priority N [from PREFIX] [iif NAME] table N proto N
//	foreign sysctl KEY VALUE
//	ask KEY..                        dumps show these kernel parameters too
//	apply FILE [N]                   the plan in FILE (links, routes, rules, sysctls, peers), or only its first N steps
//	text FILE                        steps and blocked objects of the last plan
//	dump FILE                        the kernel's state now
//	mark, same                       remember the dump; it must be that again
//	revert                           undo the steps of the last apply
//	quiet                            a new diff of the last plan finds nothing to do
package kernel
