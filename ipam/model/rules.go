package model

// Rules are those of docs/ipam.md; a true field switches one off, or one part of it. R1 to R20 but R3's "longest free
// first", which is about which cool address is chosen, not whether one may be.
type Rules struct {
	NoR1          bool // Release acts for the Pod, whatever the sandbox
	NoR2          bool // a new sandbox takes the record over while the old one's links are up
	NoR3          bool // a freed address does not cool down
	NoR4          bool // an asker writes into the owner's block
	NoR5Decides   bool // a claim holds before its creation was answered
	NoR5Journal   bool // a claim is not journaled before the creation
	NoR6          bool // a block that the journal does not list is taken for an unused one
	NoR7          bool // frozen blocks thaw after a while
	NoR8          bool // a block that a read shows while it is being released is owned again
	NoR8UID       bool // DELETE does not name the UID
	NoR9Held      bool // a block is given back while an address of it is held
	NoR9Ceded     bool // … while one is ceded
	NoR9Cooling   bool // … while one cools down
	NoR10Listed   bool // a Single is usable when it is created
	NoR10Journal  bool // the owner lists a cession before it journals it
	NoR10UID      bool // a cession is taken for one's own by its address
	NoR11Gone     bool // a ceded address comes back when its asker is away
	NoR11Cool     bool // … without cooling down
	NoR12         bool // a journal is believed whatever epoch and lease the API tells
	NoR13         bool // a node gives out however long the API is away
	NoR13Clock    bool // a clock behind the journal is believed
	NoR14Lease    bool // a gone node's blocks are freed at once
	NoR14Ready    bool // a node that does not answer is taken for a gone one
	NoR14Machine  bool // a Node object made anew is taken for another machine
	NoR15         bool // a gone node's block is deleted with what it has ceded
	NoR16         bool // each node cuts the space by what it knows
	NoR17         bool // blocks go with their network
	NoR18         bool // claims go on after etcd was restored
	NoR18Thaw     bool // frozen blocks thaw before somebody has checked
	NoR18TakeBack bool // a ceded address comes back before somebody has checked
	NoR19         bool // the root is made before old addresses are imported
	NoR20Park     bool // a sticky address is parked as soon as its Pod is gone from the API
	NoR20CAS      bool // a parked address is taken without compare-and-swap
	NoR5Settle    bool // a claim without an answer is forgotten instead of looked for
	NoR12Ask      bool // a start gives out before it has asked the API
}
