package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"danm.io/danm/cni/attach"
	"danm.io/danm/ipam"
)

// Holding is one record as far as it tells whether somebody still needs it.
type Holding struct {
	Key            string // of the record; another key for each interface that another plugin made
	Container      string
	Foreign        bool   // another plugin made the link, so that we could not take it down
	Conf           string // name of the CNI configuration
	Namespace, Pod string
	PodUID         string // "" where the runtime named no Pod
	Boot           string // of the boot it was made in, "" = not known

	netns, netnsID string
	data           []byte
	away           bool
}

// Same says whether both are one record, and not one made later under the same key.
func (h Holding) Same(o Holding) bool { return h.Key == o.Key && bytes.Equal(h.data, o.data) }

func holdingOf(r ipam.Record) (Holding, error) {
	rec, err := decodeRecord(r.Data)
	if err != nil {
		return Holding{}, fmt.Errorf("attachment of sandbox %s: %w", r.Sandbox, err)
	}
	container, _ := containerOf(r.Sandbox)
	uid, _ := containerOf(r.PodUID)
	if uid == container { // see parseArgs
		uid = ""
	}
	return Holding{Key: r.Sandbox, Container: container, Foreign: rec.Given != nil, Conf: rec.Conf, Namespace: r.Namespace, Pod: r.Pod, PodUID: uid, Boot: rec.Boot,
		netns: rec.Netns, netnsID: rec.NetnsID, data: r.Data, away: rec.Away}, nil
}

// Holdings are all records but those of what is away, which end by themselves.
func (s *Server) Holdings() ([]Holding, error) {
	records, err := s.opts.IPAM.List()
	if err != nil {
		return nil, fmt.Errorf("list attachments: %w", err)
	}
	var out []Holding
	for _, r := range records {
		h, err := holdingOf(r)
		if err != nil {
			return nil, err
		}
		if !h.away {
			out = append(out, h)
		}
	}
	return out, nil
}

// Rebooted says that the record was made before the machine started.
func (s *Server) Rebooted(h Holding) bool {
	return h.Boot != "" && s.opts.BootID != "" && h.Boot != s.opts.BootID
}

// NetnsGone says that the network namespace of a record has ended, and every link in it. What cannot be seen is not gone.
func (s *Server) NetnsGone(h Holding) bool {
	if s.Rebooted(h) {
		return true
	}
	if h.netns == "" || h.netnsID == "" {
		return false
	}
	path := s.hostPath(h.netns)
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist) && s.sees(path)
	}
	defer f.Close()
	id, err := attach.Identity(f)
	return err == nil && id != h.netnsID || errors.Is(err, attach.ErrNetns)
}

// sees says whether a file that is missing would be seen if it were there. The agent may be in a container, where directories of
// the host are missing; in /proc a directory goes with its process.
func (s *Server) sees(path string) bool {
	dir := filepath.Dir(path)
	if proc := filepath.Join("/", s.opts.SysRoot, "proc"); strings.HasPrefix(path, proc+"/") {
		dir = filepath.Join(proc, "self")
	}
	_, err := os.Stat(dir)
	return err == nil
}

// hostPath is where we find a path that the runtime gave: /proc numbers processes as the host does only below the host's root.
func (s *Server) hostPath(path string) string {
	if strings.HasPrefix(path, "/proc/") {
		return filepath.Join("/", s.opts.SysRoot, path)
	}
	return path
}

// Reclaim frees what a record holds, after its links have been taken down, if it is still the record that h describes and no call
// for its container is in progress. It says whether it did.
func (s *Server) Reclaim(ctx context.Context, h Holding) (bool, error) {
	unlock, free := s.locks.tryLock(lockOf(h.Container))
	if !free {
		return false, nil
	}
	defer unlock()
	if own := lockOf(h.Key); own != lockOf(h.Container) {
		unlock, free := s.locks.tryLock(own)
		if !free {
			return false, nil
		}
		defer unlock()
	}
	now, err := s.opts.IPAM.Lookup(h.Key)
	if errors.Is(err, ipam.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look the record of %s up: %w", h.Key, err)
	}
	if !bytes.Equal(now.Data, h.data) {
		return false, nil
	}
	rec, err := decodeRecord(now.Data)
	if err != nil {
		return false, err
	}
	netns := s.netns(nil, rec)
	if netns != nil {
		defer netns.Close()
	}
	if err := s.takeDown(ctx, attach.Pod{Sandbox: h.Key, Netns: netns}, rec); err != nil {
		return false, fmt.Errorf("reclaim what container %s of Pod %s/%s holds: %w", h.Container, h.Namespace, h.Pod, err)
	}
	return true, nil
}

// GC frees every record that was made under the CNI configuration confName for a container that is not among the valid ones
// (CNI specification, section 2, "GC"). It takes links down first, as DEL does, and leaves alone what has a call in progress. It goes on
// after an error, and tells all of them.
func (s *Server) GC(ctx context.Context, confName string, valid []string) error {
	holdings, err := s.Holdings()
	if err != nil {
		return err
	}
	var failed []error
	for _, h := range holdings {
		if h.Conf != confName || slices.Contains(valid, h.Container) {
			continue
		}
		done, err := s.Reclaim(ctx, h)
		failed = append(failed, err)
		if done {
			s.log.Info("freed what a container that is gone had", "container", h.Container, "pod", h.Namespace+"/"+h.Pod, "reason", "gc")
			if s.opts.Reclaimed != nil {
				s.opts.Reclaimed("gc")
			}
		}
	}
	return errors.Join(failed...)
}
