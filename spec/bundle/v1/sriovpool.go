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

// SRIOVPoolSpec is which virtual functions are in a pool.
type SRIOVPoolSpec struct {
	// NodeSelector lists labels that must all match; empty matches every node.
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
	// PFs are the physical functions.
	PFs PFSelector `json:"pfs" schema:"required"`
	// NumVFs is the number of virtual functions made on each physical function.
	NumVFs int `json:"numVFs" schema:"required,min=1,max=1024"`
	// ResourceName that Pods ask for, such as danm.io/fast.
	ResourceName string `json:"resourceName" schema:"required"`
}

// PFSelector finds physical functions.
type PFSelector struct {
	// Names of the physical functions' interfaces.
	Names []string `json:"names" schema:"required"`
}
