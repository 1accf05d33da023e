package v1

// SRIOVPool is a set of virtual functions offered to Pods as a resource.
type SRIOVPool struct {
	// APIVersion is bundle.danm.io/v1.
	APIVersion string `json:"apiVersion" schema:"required"`
	// Kind is SRIOVPool.
	Kind string `json:"kind" schema:"required"`
	// Metadata names the pool.
	Metadata Metadata `json:"metadata" schema:"required"`
	// Spec is which virtual functions are in the pool.
	Spec SRIOVPoolSpec `json:"spec" schema:"required"`
}

// SRIOVPoolSpec is which virtual functions are in a pool, and how they are set.
type SRIOVPoolSpec struct {
	// NodeSelector lists labels that must all match; empty matches every node.
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
	// PFs are the physical functions.
	PFs PFSelector `json:"pfs" schema:"required"`
	// NumVFs is the number of virtual functions made on each physical function; pools that share one agree.
	NumVFs int `json:"numVFs" schema:"required,min=1,max=1024"`
	// VFs of each physical function that are in the pool, counted from 0, such as "0-3"; absent: all.
	VFs []string `json:"vfs,omitempty"`
	// Driver that the virtual functions are bound to: kernel (default) is the one the kernel chooses, vfio-pci is for
	// programs that drive the device themselves.
	Driver string `json:"driver,omitempty" schema:"enum=kernel|vfio-pci"`
	// Trust true lets a Pod change the hardware address and enter promiscuous mode; not managed if absent.
	Trust *bool `json:"trust,omitempty"`
	// SpoofCheck true drops frames from other hardware addresses; not managed if absent.
	SpoofCheck *bool `json:"spoofCheck,omitempty"`
	// LinkState of the virtual functions: auto follows the physical function's; not managed if absent.
	LinkState string `json:"linkState,omitempty" schema:"enum=auto|enable|disable"`
	// MinTxRate in Mbit/s that each virtual function is promised; 0 or absent: none.
	MinTxRate int64 `json:"minTxRate,omitempty" schema:"min=0,max=4294967295"`
	// MaxTxRate in Mbit/s that each virtual function may send; 0 or absent: no bound.
	MaxTxRate int64 `json:"maxTxRate,omitempty" schema:"min=0,max=4294967295"`
	// MTU in bytes of the virtual functions; not managed if absent.
	MTU int `json:"mtu,omitempty" schema:"min=68,max=65535"`
	// ResourceName that Pods ask for, such as danm.io/fast.
	ResourceName string `json:"resourceName" schema:"required"`
}

// PFSelector finds physical functions. At least one list is given; each list given must have a member that agrees.
type PFSelector struct {
	// Names of the physical functions' interfaces.
	Names []string `json:"names,omitempty"`
	// PCIAddresses on the bus, such as 0000:3b:00.0.
	PCIAddresses []string `json:"pciAddresses,omitempty"`
	// Vendors are PCI vendor ids, four hexadecimal digits in quotes, such as "8086".
	Vendors []string `json:"vendors,omitempty"`
	// Devices are PCI device ids, four hexadecimal digits in quotes, such as "158b".
	Devices []string `json:"devices,omitempty"`
	// Drivers of the physical functions, such as i40e.
	Drivers []string `json:"drivers,omitempty"`
}
