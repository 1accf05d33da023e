// Package server answers the CNI plugin's calls inside the agent.
//
// It decides which interfaces a Pod gets and what they are called, has addresses and the attachment record made durable in
// one write, has the links made, and answers; on any failure, and when the caller goes away, what was done is undone. DEL
// and CHECK need nothing but the record. One call a sandbox runs at a time, and one ADD a Pod. Every call has a deadline.
//
// Links are made by an Attacher (cni/attach) and addresses given by an IPAM (ipam); this package touches neither kernel
// nor disk itself, except for its socket.
package server
