package world

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// What a program is told when nobody answers it.
var (
	ErrUnreachable = errors.New("dial the API server: no route to host") // nothing was done
	ErrNoAnswer    = errors.New("read from the API server: timed out")   // nobody knows
)

// RequestBound is how long the API server works on a request at most: nothing that a program sent lands later.
const RequestBound = 60 * time.Second

// patience is how long a program waits for an answer if its context lets it.
const patience = 30 * time.Second

// Fate is what becomes of one request.
type Fate struct {
	Before, After time.Duration // the request and the answer are on their way
	Refused       bool          // at once, and nothing is done
	Lost          bool          // done, but not answered
	Late          time.Duration // a write is not answered, and lands so long after it was sent; at most RequestBound
	Orphan        bool          // a write whose sender stops waiting lands all the same
}

// Client is the way of one program to the world.
type Client struct {
	World *World
	Name  string // of the program, as manager of fields
	// Sleep waits; nil: time.Sleep, or until the context ends.
	Sleep func(ctx context.Context, d time.Duration) error
	// Fate decides about a request; nil: all goes well, at once.
	Fate func(ctx context.Context, write bool) Fate

	mu  sync.Mutex
	cut bool
}

// Cut makes the world unreachable for this client, or reachable again.
func (c *Client) Cut(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = cut
}

func (c *Client) isCut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cut
}

// Freeze makes every request wait until Thaw.
func (w *World) Freeze() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.frozen == nil {
		w.frozen = make(chan struct{})
	}
}

// Thaw ends a freeze.
func (w *World) Thaw() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.frozen != nil {
		close(w.frozen)
		w.frozen = nil
	}
}

func (w *World) thawed() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.frozen
}

func (c *Client) sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	if c.Sleep != nil {
		return c.Sleep(ctx, d)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// do sends a request; act is what the server does with it.
func (c *Client) do(ctx context.Context, write bool, act func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var fate Fate
	if c.Fate != nil {
		fate = c.Fate(ctx, write)
	}
	switch {
	case fate.Refused:
		return ErrUnreachable
	case c.isCut():
		return c.unanswered(ctx, ErrUnreachable)
	}
	fate.Late = min(fate.Late, RequestBound)
	if err := c.sleep(ctx, fate.Before); err != nil {
		if write && fate.Orphan {
			c.land(fate.Late, act)
		}
		return err
	}
	if frozen := c.World.thawed(); frozen != nil {
		if err := c.frozen(ctx, frozen); err != nil {
			if write && fate.Orphan {
				c.landAtThaw(frozen, fate.Before, act)
			}
			return err
		}
		if err := c.sleep(ctx, fate.Before); err != nil { // what waited together is worked on one after the other
			return err
		}
	}
	if write && fate.Late > 0 {
		c.land(fate.Late, act)
		return c.unanswered(ctx, ErrNoAnswer)
	}
	err := act()
	if fate.Lost || c.isCut() {
		return c.unanswered(ctx, ErrNoAnswer)
	}
	if serr := c.sleep(ctx, fate.After); serr != nil {
		return serr
	}
	return err
}

func (c *Client) unanswered(ctx context.Context, err error) error {
	if serr := c.sleep(ctx, patience); serr != nil {
		return fmt.Errorf("%w: %w", err, serr)
	}
	return err
}

func (c *Client) frozen(ctx context.Context, thaw <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case <-thaw:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrNoAnswer, ctx.Err())
	}
}

// land has the server act later. What comes of it nobody hears.
func (c *Client) land(after time.Duration, act func() error) {
	go func() {
		_ = c.sleep(context.Background(), max(after, 1))
		_ = act()
	}()
}

func (c *Client) landAtThaw(thaw <-chan struct{}, after time.Duration, act func() error) {
	go func() {
		bound := time.NewTimer(RequestBound)
		defer bound.Stop()
		select {
		case <-thaw:
			_ = c.sleep(context.Background(), after)
			_ = act()
		case <-bound.C:
		}
	}()
}

// Get reads one object.
func (c *Client) Get(ctx context.Context, kindName, namespace, name string) (out Object, err error) {
	err = c.do(ctx, false, func() (err error) { out, err = c.World.Get(kindName, namespace, name); return err })
	return orNil(out, err)
}

// List reads those that have all of the labels, and the version of the list.
func (c *Client) List(ctx context.Context, kindName string, labels map[string]string) (out []Object, version string, err error) {
	err = c.do(ctx, false, func() error { out, version = c.World.List(kindName, labels); return nil })
	if err != nil {
		return nil, "", err
	}
	return out, version, nil
}

// Create makes an object that is not there.
func (c *Client) Create(ctx context.Context, o Object) (Object, error) {
	return c.write(ctx, o, c.World.Create)
}

// Update replaces metadata and spec.
func (c *Client) Update(ctx context.Context, o Object) (Object, error) {
	return c.write(ctx, o, c.World.Update)
}

// UpdateStatus replaces the status.
func (c *Client) UpdateStatus(ctx context.Context, o Object) (Object, error) {
	return c.write(ctx, o, c.World.UpdateStatus)
}

// write copies the object first: the caller may change it while the request is still under way.
func (c *Client) write(ctx context.Context, o Object, act func(string, Object) (Object, error)) (Object, error) {
	in := o.DeepCopyObject().(Object)
	answer := make(chan Object, 1)
	err := c.do(ctx, true, func() error {
		out, err := act(c.Name, in)
		answer <- out
		return err
	})
	if err != nil {
		return nil, err
	}
	return <-answer, nil
}

// Delete removes an object, or marks it.
func (c *Client) Delete(ctx context.Context, kindName, namespace, name string, pre Preconditions) error {
	return c.do(ctx, true, func() error { return c.World.Delete(kindName, namespace, name, pre) })
}

func orNil(o Object, err error) (Object, error) {
	if err != nil {
		return nil, err
	}
	return o, nil
}

// Class is what kind of error it is, for comparing: "" for none, a reason of the API server, or "unknown".
func Class(err error) string {
	if err == nil {
		return ""
	}
	if r := apierrors.ReasonForError(err); r != "" {
		return string(r)
	}
	return "unknown"
}
