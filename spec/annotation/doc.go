// Package annotation turns what a Pod says about its interfaces into requests.
//
// It reads two dialects, and a Pod that speaks both is refused. DANM's is the annotation danm.io/interfaces (or
// danm.k8s.io/interfaces, its older name) and the same JSON under the `interfaces` key of a CNI conf: strict, a key that is not known
// is an error, keys are case-sensitive, no key twice. The NPWG's is k8s.v1.cni.cncf.io/networks and v1.multus-cni.io/default-network,
// read as Multus reads them. Which networks exist and who may use them is not known here.
package annotation
