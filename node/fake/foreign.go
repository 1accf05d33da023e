package fake

import (
	"net/netip"

	"danm.io/danm/node/plan"
)

// The methods below are the hands of others: administrators, installers, other managers. No fault strikes them.

// AddLink makes a link as described: any kind, any group; MTU 0 is the kernel's default.
func (k *Kernel) AddLink(l plan.ObservedLink) error {
	return k.foreign(func() error {
		master, addresses := l.Master, l.Addresses
		up := l.Up
		l.Master, l.Up, l.Addresses = "", false, nil
		if err := k.insert(l); err != nil {
			return err
		}
		if err := k.set(l.Name, "master", master); err != nil {
			return err
		}
		if up {
			if err := k.set(l.Name, "up", "up"); err != nil {
				return err
			}
		}
		for _, a := range addresses {
			if err := k.addAddress(l.Name, a); err != nil {
				return err
			}
		}
		return nil
	})
}

// DeleteLink deletes whoever's link.
func (k *Kernel) DeleteLink(name string) error {
	return k.foreign(func() error { k.remove(name); return nil })
}

// SetLink sets "mtu", "up" (up, down), "master" or "alias".
func (k *Kernel) SetLink(name, property, value string) error {
	return k.foreign(func() error { return k.set(name, property, value) })
}

// AddAddress adds an address to a link.
func (k *Kernel) AddAddress(name string, a netip.Prefix) error {
	return k.foreign(func() error { return k.addAddress(name, a) })
}

// DeleteAddress deletes an address; others of its subnet stay.
func (k *Kernel) DeleteAddress(name string, a netip.Prefix) error {
	return k.foreign(func() error { k.deleteAddress(name, a); return nil })
}

// AddRoute adds a route of the given protocol.
func (k *Kernel) AddRoute(r plan.ObservedRoute) error {
	return k.foreign(func() error { return k.addRoute(r.Route, r.Protocol) })
}

// DeleteRoute deletes the route of the given protocol.
func (k *Kernel) DeleteRoute(r plan.ObservedRoute) error {
	return k.foreign(func() error { k.deleteRoute(r.Route, r.Protocol); return nil })
}

// AddRule adds a rule of the given protocol.
func (k *Kernel) AddRule(r plan.ObservedRule) error {
	return k.foreign(func() error { k.addRule(r); return nil })
}

// DeleteRule deletes the rule of the given protocol.
func (k *Kernel) DeleteRule(r plan.ObservedRule) error {
	return k.foreign(func() error { k.deleteRule(r); return nil })
}

// SetSysctl writes a kernel parameter.
func (k *Kernel) SetSysctl(key, value string) error {
	return k.foreign(func() error { return k.params.write(key, value) })
}

func (k *Kernel) foreign(change func() error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	defer k.wake()
	return change()
}
