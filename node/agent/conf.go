package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"danm.io/danm/node/state"
)

// ConfName is the CNI conf's file name: runtimes take the first by name.
const ConfName = "10-danm.conf"

// cniConf is what runtimes read. Its keys' order is the one documented.
type cniConf struct {
	CNIVersion  string   `json:"cniVersion"`
	CNIVersions []string `json:"cniVersions"`
	Name        string   `json:"name"`
	Type        string   `json:"type"`
	Socket      string   `json:"socket"`
}

// Conf is the CNI conf of an agent listening on socket.
func Conf(socket string) []byte {
	b, err := json.Marshal(cniConf{CNIVersion: "1.0.0", CNIVersions: []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"},
		Name: "danm", Type: "danm", Socket: socket})
	if err != nil {
		panic("agent: CNI conf does not marshal: " + err.Error())
	}
	return append(b, '\n')
}

// writeCNIConf writes the conf once the agent is ready. A conf that is there stays as it is, whoever wrote it: taking it
// away, or changing it under a runtime, makes the node NotReady.
func (a *Agent) writeCNIConf() {
	if a.opts.CNIConfDir == "" || a.notReady() != "" {
		return
	}
	path := filepath.Join(a.opts.CNIConfDir, ConfName)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err := os.MkdirAll(a.opts.CNIConfDir, 0o755); err != nil {
		a.log.Error("no CNI conf", "reason", fmt.Errorf("create CNI conf directory: %w", err))
		return
	}
	// Runtimes watch the directory and read *.conf only, so the temporary name does not wake them to half a file.
	if err := state.WriteFile(path, Conf(a.opts.Socket), nil); err != nil {
		a.log.Error("no CNI conf", "reason", err)
		return
	}
	if err := os.Chmod(path, 0o644); err != nil {
		a.log.Warn("CNI conf is readable by root only", "reason", err)
	}
	a.log.Info("CNI conf written", "path", path)
}

// Uninstall removes the CNI conf and the CNI binary under all its names, and returns what it removed. Links, addresses, state and records stay:
// Pods keep their interfaces.
func Uninstall(confDir, binDir string) ([]string, error) {
	var gone []string
	paths := []string{filepath.Join(confDir, ConfName)}
	for _, name := range slices.Backward(Programs) {
		paths = append(paths, filepath.Join(binDir, name))
	}
	for _, path := range paths {
		err := os.Remove(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return gone, fmt.Errorf("uninstall: %w", err)
		}
		gone = append(gone, path)
	}
	return gone, nil
}
