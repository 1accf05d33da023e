// Package hostlinks gives networks that were made with kubectl (DanmNet, TenantNetwork, ClusterNetwork,
// NetworkAttachmentDefinition) their VLAN and VXLAN links on the hosts, and tells nodes of them: the api layer of node plans.
// It keeps FabricPeers, too.
//
// The rules are the rule book's and the links are render's, as for a bundle: each object becomes the document it stands
// for, and is judged beside the bundle's networks on the nodes it reaches. Who was there first stays: an object that does
// not go together with older ones is refused, with the reason in its Ready condition. The layer only adds leaves to
// devices that nodes have; it never changes what the bundle declares, and it skips waves, not the guard. Nobody's
// object is rewritten: a NetworkAttachmentDefinition keeps its master. What numbers tenants get is tenancy's business.
package hostlinks
