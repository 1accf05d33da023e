// Package annotation turns what a Pod says about its interfaces into requests.
//
// It reads DANM's dialect: the annotation danm.io/interfaces (or danm.k8s.io/interfaces, its older name) and the same
// JSON under the `interfaces` key of a CNI conf. It is strict: a key that it does not know is an error, keys are
// case-sensitive, no key twice. It does not know which networks exist nor who may use them, and it does not read the
// NPWG's dialect: a Pod that carries that one is refused, because half of its interfaces would be missing.
package annotation
