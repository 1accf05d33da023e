// Package attach makes, takes down and checks the interfaces of Pods: macvlan and ipvlan in each of their modes, bridge
// (a veth pair whose host end is a port), the VLAN link of a device, and a device of the host itself, which is moved into the Pod
// and back.
//
// A Pod's interfaces are made all or none: every change has its undo, and a failure at any kernel call leaves host and
// Pod as they were. Links are created inside the Pod's network namespace under a temporary name and renamed there while
// down, because before Linux 6.2 the name is looked up in the caller's namespace too and `eth0` would clash with the
// host's. Host ends of veths are called dn and 12 hex digits of a hash of sandbox and interface name; they and all links
// in Pods belong to this package and to the attachment records, never to a host plan. It remembers nothing: what was made
// stands in the records of cni/server, and what is there is read from the kernel. It gives no addresses and knows no
// networks.
//
// Of interfaces that other plugins made it changes the default routes alone (Reroute), and undoes nothing there: their plugins take
// them down.
package attach
