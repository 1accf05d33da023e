package server

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"danm.io/danm/spec/model"
)

// Others may set what a card says of a Pod's function as often as we do, and some cards make something else of what they are told, while each
// write can make the function start anew: so many repairs of one are made within repairWindow; then it is reported alone.
const (
	maxRepairs   = 3
	repairWindow = time.Minute
)

// unlike are the keys of those functions of Pods of which the card says something else than the record, and that are to be repaired now; the
// error names the others.
func (s *Server) unlike(now time.Time) (keys []string, err error) {
	s.mu.Lock()
	var attached []model.Attachment
	for _, p := range s.pods {
		attached = append(attached, p.vfs...)
	}
	s.mu.Unlock()
	if len(attached) == 0 {
		return nil, nil
	}
	functions, err := s.opts.Attacher.Differing(attached)
	var fought []string
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, times := range s.repairs {
		if times = slices.DeleteFunc(times, func(t time.Time) bool { return now.Sub(t) >= repairWindow }); len(times) == 0 {
			delete(s.repairs, key)
		} else {
			s.repairs[key] = times
		}
	}
	for _, pci := range functions {
		if len(s.repairs[FunctionKey+pci]) >= maxRepairs {
			fought = append(fought, pci)
			continue
		}
		keys = append(keys, FunctionKey+pci)
	}
	if len(fought) > 0 {
		err = errors.Join(err, fmt.Errorf("what cards say of virtual functions of Pods is changed again and again by others, or not kept: %s", strings.Join(fought, ", ")))
	}
	return keys, err
}

// noteRepairs counts those of a sandbox.
func (s *Server) noteRepairs(devices, unlike []string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range devices {
		if slices.Contains(unlike, d) {
			s.repairs[d] = append(s.repairs[d], now)
		}
	}
}
