// Package probe tests a node's way out: new TCP connections, ICMP echoes, the default gateways by ARP and neighbour
// discovery, the bundle's source.
//
// It reports what answered and decides nothing: which results count, and what follows, is the agent's business. Every run
// opens new connections, since an established one may outlive the path that made it.
package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"danm.io/danm/spec/model"
)

// DefaultTimeout counts for a probe that names none.
const DefaultTimeout = 2 * time.Second

// ErrNotApplicable means that there is nothing to test: no default gateway, no source over the network. Such a probe
// never passes and so never counts.
var ErrNotApplicable = errors.New("nothing to probe")

// Gateway is a default gateway and the link on which it is a neighbour.
type Gateway struct {
	Link string
	Addr netip.Addr
}

// Env is what probes need to know besides themselves.
type Env struct {
	Source   string // host:port of the bundle's source, "" = none
	Gateways func(context.Context) ([]Gateway, error)
}

// Result is one probe's outcome; nil Err means that it passed.
type Result struct {
	Name string
	Err  error
}

// Run executes all probes at once, each within its own timeout, and returns the results in the probes' order.
func Run(ctx context.Context, probes []model.Probe, env Env) []Result {
	out := make([]Result, len(probes))
	var wg sync.WaitGroup
	for i, p := range probes {
		wg.Go(func() { out[i] = Result{p.Name, one(ctx, p, env)} })
	}
	wg.Wait()
	return out
}

func one(ctx context.Context, p model.Probe, env Env) error {
	timeout := p.Timeout
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var err error
	switch p.Kind {
	case model.ProbeTCP:
		err = tcp(ctx, p.Target)
	case model.ProbeSource:
		if env.Source == "" {
			err = ErrNotApplicable
		} else {
			err = tcp(ctx, env.Source)
		}
	case model.ProbeICMP:
		err = icmp(ctx, p.Target)
	case model.ProbeGateway:
		err = gateways(ctx, env)
	default:
		err = fmt.Errorf("kind %q is unknown", p.Kind)
	}
	if err != nil {
		return fmt.Errorf("probe %s (%s %s): %w", p.Name, p.Kind, p.Target, err)
	}
	return nil
}

func tcp(ctx context.Context, target string) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", target)
	if err != nil {
		return err
	}
	return c.Close()
}

// gateways passes when one default gateway answers: several are there so that one may be down.
func gateways(ctx context.Context, env Env) error {
	if env.Gateways == nil {
		return ErrNotApplicable
	}
	gws, err := env.Gateways(ctx)
	if err != nil {
		return err
	}
	if len(gws) == 0 {
		return fmt.Errorf("%w: no default gateway", ErrNotApplicable)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan error, len(gws))
	for _, g := range gws {
		go func() {
			if err := neighbour(ctx, g); err != nil {
				err = fmt.Errorf("gateway %s on %s: %w", g.Addr, g.Link, err)
				answers <- err
				return
			}
			answers <- nil
		}()
	}
	var failed []error
	for range gws {
		err := <-answers
		if err == nil {
			return nil
		}
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}
