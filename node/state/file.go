package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"danm.io/danm/spec/diag"
)

// Format is the version of every file this package frames. A reader takes this one and the one before it.
const Format = 1

// envelope frames a durable value. Checksum is "sha256:<hex>" over the compact JSON of State, so that a person may
// reformat a file without spoiling it.
type envelope struct {
	Format   int             `json:"format"`
	Checksum string          `json:"checksum"`
	State    json.RawMessage `json:"state"`
}

// Refused says why a file on disk cannot be used. Its Diagnostic carries code StateCorrupt or StateNewer.
type Refused struct{ Diagnostic diag.Diagnostic }

func (e *Refused) Error() string { return e.Diagnostic.String() }

func refuse(path string, code diag.Code, summary string) *Refused {
	d := diag.Diagnostic{Severity: diag.Error, Code: code, File: path, Summary: summary}
	if x, ok := diag.Explain(code); ok {
		d.Hint = x.Remedy
	}
	return &Refused{d}
}

// Encode frames v as {"format":1,"checksum":…,"state":v}.
func Encode(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	out, err := json.Marshal(envelope{Format: Format, Checksum: checksum(raw), State: raw})
	if err != nil {
		return nil, fmt.Errorf("frame %T: %w", v, err)
	}
	return append(out, '\n'), nil
}

// Decode checks format and checksum of b and fills v. path only names the file in the error, a *Refused.
func Decode(path string, b []byte, v any) error {
	var e envelope
	if err := json.Unmarshal(b, &e); err != nil {
		return refuse(path, diag.StateCorrupt, "not readable: "+err.Error())
	}
	if e.Format > Format {
		return refuse(path, diag.StateNewer, fmt.Sprintf("format %d is newer than %d, the newest this program reads", e.Format, Format))
	}
	if e.Format < Format-1 || e.Format < 1 {
		return refuse(path, diag.StateCorrupt, fmt.Sprintf("format %d is unknown", e.Format))
	}
	var raw bytes.Buffer
	if err := json.Compact(&raw, e.State); err != nil {
		return refuse(path, diag.StateCorrupt, "not readable: "+err.Error())
	}
	if checksum(raw.Bytes()) != e.Checksum {
		return refuse(path, diag.StateCorrupt, "checksum differs")
	}
	dec := json.NewDecoder(&raw)
	dec.DisallowUnknownFields() // a field we would drop silently is a part of the plan we would not carry out
	if err := dec.Decode(v); err != nil {
		return refuse(path, diag.StateNewer, "written by another version: "+err.Error())
	}
	return nil
}

func checksum(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Fault is called before each act of a write with the act's name (create, write, sync, close, keep, rename, syncdir) and
// the file; an error takes the act's place. Tests set it; nil in production.
type Fault func(act, path string) error

func (f Fault) at(act, path string) error {
	if f == nil {
		return nil
	}
	return f(act, path)
}

// WriteFile replaces path by data so that a reader, or a crash at any moment, sees the old bytes or the new: temporary
// file, fsync, rename, fsync of the directory. An error leaves the old file, except one of the last fsync, after which
// either may survive a crash.
func WriteFile(path string, data []byte, fault Fault) error { return replace(path, "", data, fault) }

// replace is WriteFile that first keeps the present file under the name keep (if given) by a hard link.
func replace(path, keep string, data []byte, fault Fault) (err error) {
	tmp := path + ".tmp" // one writer at a time, so one name: a crash leaves at most one stray file
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", path, err)
			_ = os.Remove(tmp)
		}
	}()
	if err := writeSynced(tmp, data, fault); err != nil {
		return err
	}
	if keep != "" {
		if err := fault.at("keep", keep); err != nil {
			return err
		}
		if err := keepLink(path, keep); err != nil {
			return err
		}
	}
	if err := fault.at("rename", path); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	if err := fault.at("syncdir", path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func writeSynced(path string, data []byte, fault Fault) error {
	if err := fault.at("create", path); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	acts := []struct {
		name string
		do   func() error
	}{
		{"write", func() error { _, err := f.Write(data); return err }},
		{"sync", f.Sync},
	}
	for _, a := range acts {
		if err = fault.at(a.name, path); err == nil {
			err = a.do()
		}
		if err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return errors.Join(fault.at("close", path), f.Close())
}

// keepLink gives path the second name keep; both names exist at every moment or keep is the older one.
func keepLink(path, keep string) error {
	tmp := keep + ".tmp"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Link(path, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, keep)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
