// Package tenancy gives the TenantNetworks that people make through the API their device and their VLAN id or VNI, as DANM's
// webhook did, and says on TenantConfigs what became of them. Networks of a bundle get theirs in reconcile/sync.
//
// A number takes three writes, each decided upon nothing but what the API has: it is reserved in the status of a TenantConfig;
// everything is read again; only if nobody else has it, the network's status says that it is held, and only then it is written
// into the network. Whoever sees another owner of a number that is not held yet yields: of two writers to different objects the
// later one sees the earlier, so no two keep one number, whatever leases, caches or pauses do. A number that is held never moves.
//
// To yield is two writes: first the network says so, then the reservation goes. The first one changes the network's version, so
// that a write of the number by a process that looked before, and slept since, fails.
//
// The package makes no links, answers no admission review, and never changes what a person wrote.
package tenancy
