package server

import (
	"context"
	"errors"

	"github.com/containernetworking/cni/pkg/types"

	"danm.io/danm/cni/attach"
	"danm.io/danm/cni/delegate"
	"danm.io/danm/ipam"
	"danm.io/danm/spec/diag"
)

// CNI error codes of our own (the specification leaves those from 100 on to plugins). They are stable; the details of
// such an error are the diagnostic code that `danmctl explain` knows.
const (
	CodeNetworkUnknown  uint = 101
	CodeAddressTaken    uint = 102
	CodePoolExhausted   uint = 103
	CodeAddressUnusable uint = 104
	CodeAlreadyAttached uint = 105
	CodeCheckFailed     uint = 106
	CodeAttachFailed    uint = 107
	CodeRequestRefused  uint = 108 // a name or a policy route that cannot be had
)

var errNotReady = errors.New("the agent has no confirmed configuration yet")

// Failure is an error with what the runtime is told.
type Failure struct {
	CNI  uint
	Code diag.Code
	err  error
}

func fail(cni uint, code diag.Code, err error) error { return &Failure{cni, code, err} }

func (f *Failure) Error() string { return f.err.Error() }
func (f *Failure) Unwrap() error { return f.err }

// known maps the errors of IPAM and attach; the first that matches counts.
var known = []struct {
	err  error
	cni  uint
	code diag.Code
}{
	{context.Canceled, types.ErrTryAgainLater, ""},
	{context.DeadlineExceeded, types.ErrTryAgainLater, ""},
	{ipam.ErrNoRoot, types.ErrTryAgainLater, diag.PodSpaceClosed},
	{ipam.ErrLease, types.ErrTryAgainLater, diag.PodLeaseOver},
	{ipam.ErrSuspect, types.ErrTryAgainLater, diag.PodAPISuspect},
	{ipam.ErrFrozen, types.ErrTryAgainLater, diag.PodAddressFrozen},
	{ipam.ErrBack, types.ErrTryAgainLater, diag.PodClaimFailed},
	{ipam.ErrClaim, types.ErrTryAgainLater, diag.PodClaimFailed},
	{ipam.ErrOwner, CodeAddressTaken, diag.PodAddressElsewhere},
	{ipam.ErrUnkept, CodeAddressUnusable, diag.PodAddressUnusable},
	{ipam.ErrTaken, CodeAddressTaken, diag.PodAddressTaken},
	{ipam.ErrExhausted, CodePoolExhausted, diag.PodPoolExhausted},
	{ipam.ErrOutside, CodeAddressUnusable, diag.PodAddressUnusable},
	{ipam.ErrReserved, CodeAddressUnusable, diag.PodAddressUnusable},
	{ipam.ErrNotOurs, CodeAddressUnusable, diag.PodAddressUnusable},
	{ipam.ErrL2, CodeAddressUnusable, diag.PodAddressUnusable},
	{attach.ErrServed, types.ErrTryAgainLater, diag.PodDeviceBusy},
	{attach.ErrInUse, CodeAttachFailed, diag.PodDeviceInUse},
	{delegate.ErrConfig, CodeAttachFailed, diag.PodDelegateConfig},
	{delegate.ErrPlugin, CodeAttachFailed, diag.PodDelegateFailed},
	{attach.ErrFunction, CodeAttachFailed, diag.PodDeviceMissing},
	{attach.ErrHostLink, types.ErrTryAgainLater, diag.PodHostLinkMissing},
	{attach.ErrNetns, types.ErrInvalidNetNS, diag.PodNetnsInvalid},
	{attach.ErrMismatch, CodeCheckFailed, diag.PodCheckFailed},
	{attach.ErrRouteConflict, CodeAttachFailed, diag.PodRouteConflict},
}

// cniError is what the plugin prints, nil for success.
func cniError(err error) *types.Error {
	if err == nil {
		return nil
	}
	msg := err.Error()
	if len(msg) > 8<<10 { // 64 interfaces with a problem each; the answer has a bound
		msg = msg[:8<<10] + "..."
	}
	if f := (*Failure)(nil); errors.As(err, &f) {
		return types.NewError(f.CNI, msg, string(f.Code))
	}
	if e := (*types.Error)(nil); errors.As(err, &e) {
		return e
	}
	for _, k := range known {
		if errors.Is(err, k.err) {
			return types.NewError(k.cni, msg, string(k.code))
		}
	}
	return types.NewError(types.ErrInternal, msg, "")
}
