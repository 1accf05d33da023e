package git

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"

	"danm.io/danm/reconcile/source/snapshot"
	"danm.io/danm/spec/diag"
)

// limited fails with RepositoryTooLarge instead of ending after left bytes, so that a cut answer is not taken for a whole one.
type limited struct {
	r    io.Reader
	left int64
	what string
	max  int64
}

func limit(r io.Reader, max int64, what string) *limited {
	return &limited{r: r, left: max, what: what, max: max}
}

func (l *limited) Read(p []byte) (int, error) {
	if l.left <= 0 {
		var one [1]byte
		if n, err := io.ReadFull(l.r, one[:]); n == 0 {
			return 0, err
		}
		return 0, snapshot.Errorf(diag.RepositoryTooLarge, "%s exceeds %d bytes", l.what, l.max)
	}
	if int64(len(p)) > l.left {
		p = p[:l.left]
	}
	n, err := l.r.Read(p)
	l.left -= int64(n)
	return n, err
}

// decodeAdvert reads a list of references; ERR packets and garbage are errors, an empty repository is an empty list.
func decodeAdvert(r io.Reader) (*packp.AdvRefs, error) {
	adv := packp.NewAdvRefs()
	err := adv.Decode(limit(r, maxAdvert, "the list of references"))
	if errors.Is(err, packp.ErrEmptyAdvRefs) {
		return adv, nil
	}
	if errors.Is(err, packp.ErrEmptyInput) {
		return nil, snapshot.Errorf(diag.RepositoryUnreachable, "the server hung up: no such repository, or no access to it")
	}
	if err != nil {
		return nil, failure(fmt.Errorf("read references: %w", err))
	}
	for _, c := range []capability.Capability{capability.MultiACK, capability.MultiACKDetailed} { // packp cannot read the answers
		adv.Capabilities.Delete(c)
	}
	return adv, nil
}

// encodeRequest writes wants, haves and "done". flush ends the haves with a flush packet, as stateful connections need it.
func encodeRequest(w io.Writer, req *packp.UploadPackRequest, flush bool) error {
	if err := req.Validate(); err != nil {
		return fmt.Errorf("git request: %w", err)
	}
	if err := req.UploadRequest.Encode(w); err != nil {
		return fmt.Errorf("write wants: %w", err)
	}
	if err := req.UploadHaves.Encode(w, flush); err != nil {
		return fmt.Errorf("write haves: %w", err)
	}
	return pktline.NewEncoder(w).EncodeString("done\n")
}

// ask is what to download: wants with everything they need, except what is reachable from have.
type ask struct {
	wants   []plumbing.Hash
	have    []plumbing.Hash
	shallow []plumbing.Hash // commits of have whose parents are not here
	tip     bool            // only the wanted commits' own trees, no history
}

// download gets one pack and hands it to the store. The store then holds the answer; shallow commits are returned.
func download(ctx context.Context, s session, caps *capability.List, a ask, into *store, limits snapshot.Limits) ([]plumbing.Hash, error) {
	req := packp.NewUploadPackRequestFromCapabilities(caps)
	req.Wants, req.Haves, req.Shallows = a.wants, a.have, a.shallow
	shallow := caps.Supports(capability.Shallow)
	if shallow && (a.tip || len(a.shallow) > 0) {
		_ = req.Capabilities.Set(capability.Shallow)
	}
	if shallow && a.tip {
		req.Depth = packp.DepthCommits(1)
	}
	// Between shallow commits only a thin pack leaves out what is here already: git does not look for common trees otherwise.
	thin := shallow && a.tip && len(a.have) > 0 && caps.Supports(capability.ThinPack)
	if !thin {
		req.Capabilities.Delete(capability.ThinPack)
	}
	if caps.Supports(capability.NoProgress) {
		_ = req.Capabilities.Set(capability.NoProgress)
	}
	raw, err := s.request(ctx, req)
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	res := packp.NewUploadPackResponse(req)
	if err := res.Decode(io.NopCloser(raw)); err != nil {
		return nil, failure(fmt.Errorf("read the server's answer: %w", err))
	}
	var pack io.Reader = res
	switch {
	case req.Capabilities.Supports(capability.Sideband64k):
		pack = sideband.NewDemuxer(sideband.Sideband64k, res)
	case req.Capabilities.Supports(capability.Sideband):
		pack = sideband.NewDemuxer(sideband.Sideband, res)
	}
	if err := into.ingest(limit(pack, limits.TransferBytes, "the transfer"), thin, limits); err != nil {
		return nil, failure(fmt.Errorf("download: %w", err))
	}
	return res.Shallows, nil
}
