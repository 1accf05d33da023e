package state

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"danm.io/danm/spec/model"
)

func TestReportAndInventory(t *testing.T) {
	d := Open(filepath.Join(t.TempDir(), "new"))
	if r, err := d.ReadReport(); err != nil || r.BootID != "" {
		t.Errorf("none: %+v, %v", r, err)
	}
	if inv, err := d.ReadInventory(); err != nil || inv.Hardware != nil {
		t.Errorf("none: %+v, %v", inv, err)
	}
	r := Report{BootID: "b", Pods: map[string][]string{"eth0": {"a/b"}}}
	inv := model.Inventory{Hardware: map[string][]model.NIC{"n": {{Name: "eth0", MaxMTU: 9000}}}}
	must(t, errors.Join(d.WriteReport(r), d.WriteInventory(inv)))
	for _, name := range []string{ReportFile, InventoryFile} {
		path := filepath.Join(d.Path(), name)
		before, err := os.Stat(path)
		must(t, err)
		must(t, errors.Join(d.WriteReport(r), d.WriteInventory(inv)))
		if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) || after.Mode().Perm() != 0o600 {
			t.Errorf("%s: written again, or readable by others", name)
		}
	}
	if got, err := d.ReadReport(); err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := d.ReadInventory(); err != nil || !reflect.DeepEqual(got, inv) {
		t.Errorf("%+v, %v", got, err)
	}
	must(t, os.WriteFile(filepath.Join(d.Path(), ReportFile), []byte("{"), 0o600))
	must(t, os.WriteFile(filepath.Join(d.Path(), InventoryFile), []byte("{"), 0o600))
	_, reportErr := d.ReadReport()
	_, inventoryErr := d.ReadInventory()
	if refused := (*Refused)(nil); !errors.As(reportErr, &refused) || inventoryErr == nil {
		t.Errorf("damaged: %v, %v", reportErr, inventoryErr)
	}
}
