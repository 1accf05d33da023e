package v1

// Bundle says what holds for the whole bundle. Exactly one stands in it.
type Bundle struct {
	// APIVersion is bundle.danm.io/v1.
	APIVersion string `json:"apiVersion" schema:"required"`
	// Kind is Bundle.
	Kind string `json:"kind" schema:"required"`
	// Metadata names the bundle.
	Metadata Metadata `json:"metadata" schema:"required"`
	// Spec is how the bundle is rolled out.
	Spec BundleSpec `json:"spec,omitzero"`
}

// BundleSpec is how a bundle is rolled out.
type BundleSpec struct {
	// Version of the content, semver (https://semver.org), such as 1.2.0.
	Version string `json:"version,omitempty"`
	// VersionPolicy Monotonic refuses a version below the one before; without it that is a warning, since going back is how
	// mistakes are taken back.
	VersionPolicy string `json:"versionPolicy,omitempty" schema:"enum=Monotonic"`
	// ConfirmTimeout is how long a node waits, from its first kernel write, for the probes to pass before it goes back to
	// what it had: 2s to 10m, default 15s.
	ConfirmTimeout string `json:"confirmTimeout,omitempty" schema:"pattern=^([0-9]+([.][0-9]+)?(ns|us|ms|s|m|h))+$"`
	// Probes must pass before and after a change, otherwise the change is undone.
	Probes []Probe `json:"probes,omitempty"`
	// Rollout is how a revision travels from node to node in a cluster.
	Rollout *Rollout `json:"rollout,omitempty"`
	// Prune bounds what one revision may delete in a cluster.
	Prune *Prune `json:"prune,omitempty"`
}

// Probe tests one way out of a node. Exactly one of tcp, icmp, gateway and source is given.
type Probe struct {
	// Name is unique in the bundle.
	Name string `json:"name" schema:"required"`
	// TCP is a host:port that must accept a new connection.
	TCP string `json:"tcp,omitempty"`
	// ICMP is an address that must answer an echo request.
	ICMP string `json:"icmp,omitempty"`
	// Gateway asks that the default gateway answers ARP or neighbour discovery.
	Gateway bool `json:"gateway,omitempty"`
	// Source asks that the host:port of the bundle's source accepts a new connection.
	Source bool `json:"source,omitempty"`
	// Timeout of one attempt, shorter than confirmTimeout; default 2s.
	Timeout string `json:"timeout,omitempty" schema:"pattern=^([0-9]+([.][0-9]+)?(ns|us|ms|s|m|h))+$"`
}
