package delegate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"syscall"

	npwgv1 "danm.io/danm/spec/npwg/v1"
)

// Capabilities by which plugins are told of a device (NPWG, device-info specification 1.1, section 3).
const (
	capabilityDevice = "deviceID"
	capabilityInfo   = "CNIDeviceInfoFile"
)

// maxInfo bounds such a file in bytes.
const maxInfo = 16 << 10

// inFileName is what a device's id may be to be part of a file's name; ids of device plugins can be anything.
var inFileName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$`)

// WithDevice is the list whose first plugin is told by deviceID and pciBusID which device of the Pod's it is to take, as Multus does it.
// list is Configure's.
func WithDevice(list json.RawMessage, id string) (json.RawMessage, error) {
	var all map[string]any
	if err := json.Unmarshal(list, &all); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	plugins, _ := all["plugins"].([]any)
	if len(plugins) == 0 {
		return nil, fmt.Errorf("no plugins: %w", ErrConfig)
	}
	first, ok := plugins[0].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("the first plugin is no object: %w", ErrConfig)
	}
	first["deviceID"], first["pciBusID"] = id, id
	return json.Marshal(all)
}

// DeviceCapabilities are what plugins that declare them are called with for an interface that has a device.
func (p *Plugins) DeviceCapabilities(id, container, ifName string) map[string]any {
	dir := p.opts.InfoDir
	if dir == npwgv1.DeviceInfoDir {
		dir = "/var" + npwgv1.DeviceInfoDir
	}
	return map[string]any{capabilityDevice: id, capabilityInfo: filepath.Join(dir, "cni", infoName(container, ifName))}
}

// infoName is of an interface; neither part has a slash.
func infoName(container, ifName string) string { return container + "_" + ifName + "-device.json" }

// OfferInfo copies what the device plugin of a resource left about a device to where the interface's plugins find it and may change it.
// There may be nothing, or nothing that can be used: unusable says why that is so.
func (p *Plugins) OfferInfo(resource, id string, c Call) (unusable, err error) {
	if !inFileName.MatchString(id) {
		return nil, nil
	}
	text, unusable := readInfo(p.info("dp", npwgv1.DeviceInfoName(resource, id)))
	if errors.Is(unusable, fs.ErrNotExist) {
		unusable = nil
	}
	path := p.info("cni", infoName(c.Container, c.IfName))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return unusable, fmt.Errorf("make the directory of devices' information: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) { // of an ADD that was cut off
		return unusable, fmt.Errorf("remove old information of a device: %w", err)
	}
	if text == nil {
		return unusable, nil
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		return nil, fmt.Errorf("write information of device %s: %w", id, err)
	}
	return nil, nil
}

// Info is what is known of an interface's device after its ADD; nil if nothing is.
func (p *Plugins) Info(c Call) (json.RawMessage, error) {
	text, err := readInfo(p.info("cni", infoName(c.Container, c.IfName)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return text, err
}

// DropInfo removes what OfferInfo made.
func (p *Plugins) DropInfo(c Call) error {
	err := os.Remove(p.info("cni", infoName(c.Container, c.IfName)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return fmt.Errorf("remove what is known of a device: %w", err)
	}
	return nil
}

func (p *Plugins) info(kind, name string) string {
	return onHost(p.opts.Root, filepath.Join(p.opts.InfoDir, kind, name))
}

// readInfo reads a file that others wrote; what is no JSON object is an error.
func readInfo(path string) ([]byte, error) {
	text, err := readAtMost(path, maxInfo)
	if err != nil {
		return nil, err
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(bytes.TrimSpace(text), &object); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return text, nil
}
