// Package cri asks the container runtime which Pod sandboxes it has.
//
// It is evidence for who may lose an address, so it knows no half answers: a list is whole or an error. It keeps no connection, since it
// is asked every few minutes, and changes nothing.
package cri
