// Package v1 is bundle.danm.io/v1: the documents a user writes, one file a kind, as plain data.
//
// Values stay as written (addresses, ranges and durations are strings): spec/decode fills the types and knows where each
// field stands, spec/validate judges them and turns them into spec/model. Field comments become the descriptions of the
// JSON Schema (see Schema); the `schema` tag carries what a comment cannot: required, enum, known, min, max, pattern.
// The package holds no rules and reads nothing.
package v1

//go:generate go run ./internal/gen

// APIVersion is the apiVersion of every document of a bundle.
const APIVersion = "bundle.danm.io/v1"

// The kinds of documents.
const (
	KindBundle    = "Bundle"
	KindTopology  = "Topology"
	KindNetwork   = "Network"
	KindTenant    = "Tenant"
	KindSRIOVPool = "SRIOVPool"
)

// Metadata names a document.
type Metadata struct {
	// Name is unique among the documents of this kind: a DNS subdomain (RFC 1123).
	Name string `json:"name" schema:"required,pattern=^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"`
}

// Route leads a destination to a gateway or a device.
type Route struct {
	// To is the destination in CIDR form, without host bits; 0.0.0.0/0 and ::/0 are default routes.
	To string `json:"to" schema:"required"`
	// Via is the gateway, an address of the destination's family.
	Via string `json:"via,omitempty"`
}
