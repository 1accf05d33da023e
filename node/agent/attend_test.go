package agent

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"danm.io/danm/node/state"
)

// TestAttend: an agent that comes while another is still there says that it is at work as soon as it can, and no longer than it is.
func TestAttend(t *testing.T) {
	dir := state.Open(t.TempDir())
	leave, err := dir.Attend()
	must(t, err)
	said := &heard{first: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { attend(ctx, dir, slog.New(slog.NewTextHandler(said, nil))); close(done) }()
	select {
	case <-said.first: // it has found the other one there
	case <-time.After(20 * time.Second):
		t.Error("nothing is said of the first agent")
	}
	leave()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if is, err := dir.Attended(); err == nil && is {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the second agent does not say so")
		}
	}
	cancel()
	<-done
	if is, err := dir.Attended(); err != nil || is {
		t.Errorf("after its end: %v, %v", is, err)
	}
	if text := said.String(); strings.Count(text, "another agent works in this state directory") != 1 {
		t.Errorf("logged:\n%s", text)
	}
}

// heard is a log whose first line is told of.
type heard struct {
	strings.Builder
	once  sync.Once
	first chan struct{}
}

func (h *heard) Write(b []byte) (int, error) {
	defer h.once.Do(func() { close(h.first) })
	return h.Builder.Write(b)
}

// TestAttendOnABadDisk: an agent that cannot say that it is at work says so once and goes on, and ends when it is told to.
func TestAttendOnABadDisk(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "agent.lock"), 0o700)) // no file can be opened for writing there
	var said strings.Builder
	ctx, cancel := context.WithTimeout(t.Context(), attendAgain+500*time.Millisecond)
	defer cancel()
	attend(ctx, state.Open(dir), slog.New(slog.NewTextHandler(&said, nil)))
	if text := said.String(); strings.Count(text, "cannot tell") != 1 || !strings.Contains(text, "is a directory") {
		t.Errorf("logged:\n%s", text)
	}
}
