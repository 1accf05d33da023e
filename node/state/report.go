package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"danm.io/danm/spec/model"
)

const (
	// ReportFile says how the agent stands, for the guard and for people.
	ReportFile = "report.json"
	// InventoryFile is the node's hardware, as a model.Inventory in plain JSON: what `danmctl --inventory` takes.
	InventoryFile = "inventory.json"
)

// Report is what the agent tells whoever looks at the node without asking it. It is derived: losing it loses nothing.
type Report struct {
	BootID  string              `json:"bootID"` // of the kernel in which Pods are attached
	Problem string              `json:"problem,omitempty"`
	Pods    map[string][]string `json:"pods,omitempty"` // attached Pods, "namespace/name", by host link; sorted
}

// WriteReport replaces the report if it says something else. It does not wait for the disk.
func (d *Dir) WriteReport(r Report) error {
	data, err := Encode(r)
	if err != nil {
		return err
	}
	return d.writeDerived(ReportFile, data)
}

// ReadReport returns the newest report, a zero one if there is none. An error is a *Refused or one of the disk.
func (d *Dir) ReadReport() (Report, error) {
	var r Report
	path := filepath.Join(d.path, ReportFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, fmt.Errorf("read report: %w", err)
	}
	if err := Decode(path, b, &r); err != nil {
		return Report{}, fmt.Errorf("read report: %w", err)
	}
	return r, nil
}

// WriteInventory replaces the node's inventory if it differs. It does not wait for the disk.
func (d *Dir) WriteInventory(inv model.Inventory) error {
	data, err := json.MarshalIndent(inv, "", "  ")
	if err != nil {
		return fmt.Errorf("encode inventory: %w", err)
	}
	return d.writeDerived(InventoryFile, append(data, '\n'))
}

// ReadInventory returns the node's inventory, an empty one if none was written yet.
func (d *Dir) ReadInventory() (model.Inventory, error) {
	var inv model.Inventory
	b, err := os.ReadFile(filepath.Join(d.path, InventoryFile))
	if errors.Is(err, fs.ErrNotExist) {
		return inv, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &inv)
	}
	if err != nil {
		return model.Inventory{}, fmt.Errorf("read inventory: %w", err)
	}
	return inv, nil
}

// writeDerived replaces a file whose loss is no harm: atomically for readers, without fsync, and not at all if it is the
// same.
func (d *Dir) writeDerived(name string, data []byte) error {
	path := filepath.Join(d.path, name)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return nil
	}
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return fmt.Errorf("create state directory: %w", err)
	}
	tmp := path + ".tmp"
	err := os.WriteFile(tmp, data, 0o600)
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp)
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
