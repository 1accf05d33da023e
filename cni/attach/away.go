package attach

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"danm.io/danm/spec/model"
)

// Away is the error of a Detach after which nothing is left but virtual functions that are in a namespace still: one that the kernel
// is slow to end, that a process keeps, or that the Pod has made. They keep VLAN and MAC there. Return ends what Detach could not.
type Away struct {
	Interfaces []model.Attachment // as they were given
}

func (e *Away) Error() string {
	var functions []string
	for _, at := range e.Interfaces {
		functions = append(functions, at.DeviceID)
	}
	return "virtual functions are in the namespace of a Pod still, which is kept or slow to end: " + strings.Join(functions, ", ")
}

// Return makes a virtual function that Detach left away what it was, if it is back in the host or gone; false if it is not yet. It waits for
// nothing, and can be called again, also after it was cut off anywhere.
func (a *Attacher) Return(ctx context.Context, sandbox string, at model.Attachment) (done bool, err error) {
	w := a.work(ctx, Pod{Sandbox: sandbox}, nil)
	w.until = time.Now()
	err = w.giveBack(at)
	return err == nil && len(w.away) == 0, err
}

// Homeless brings devices of the host to order that came back from a Pod after its record was gone: those of the given names whose alias
// says that they are under another one. It returns the names that it gave back. A Pod can write any alias, so only names that the caller
// knows count.
func (a *Attacher) Homeless(ctx context.Context, devices []string) (names []string, err error) {
	if len(devices) == 0 {
		return nil, nil
	}
	w := a.work(ctx, Pod{}, nil)
	links, err := a.host.Links()
	if err != nil {
		return nil, fmt.Errorf("list host links: %w", err)
	}
	var errs []error
	for _, l := range links {
		attrs := l.Attrs()
		device, marked := strings.CutPrefix(attrs.Alias, marker)
		if !marked || !slices.Contains(devices, device) || ctx.Err() != nil {
			continue
		}
		was := &model.Moved{Kind: l.Type(), MAC: attrs.HardwareAddr.String(), MTU: attrs.MTU, Up: attrs.Flags&net.FlagUp != 0}
		if err := w.restore(l, model.Attachment{Device: device, Moved: was}); err != nil {
			errs = append(errs, err)
			continue
		}
		names = append(names, device)
	}
	return names, errors.Join(errs...)
}
