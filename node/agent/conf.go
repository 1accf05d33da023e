package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"danm.io/danm/node/state"
)

// ConfName is the CNI configuration's file name: runtimes take the first by name.
const ConfName = "10-danm.conflist"

// formerName is that of a configuration that is no list, which earlier releases wrote.
const formerName = "10-danm.conf"

var versions = []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"}

// confList is what runtimes read. A list, because the library reads versions of lists only: called in 1.0.0 a plugin hears of no STATUS
// and of no GC (decision 0013).
type confList struct {
	CNIVersion  string       `json:"cniVersion"`
	CNIVersions []string     `json:"cniVersions"`
	Name        string       `json:"name"`
	Plugins     []confPlugin `json:"plugins"`
}

type confPlugin struct {
	Type   string `json:"type"`
	Socket string `json:"socket"`
}

// Conf is the CNI configuration of an agent listening on socket.
func Conf(socket string) []byte {
	return line(confList{CNIVersion: "1.0.0", CNIVersions: versions, Name: "danm", Plugins: []confPlugin{{"danm", socket}}})
}

// former is what earlier releases wrote.
func former(socket string) []byte {
	return line(struct {
		CNIVersion  string   `json:"cniVersion"`
		CNIVersions []string `json:"cniVersions"`
		Name        string   `json:"name"`
		Type        string   `json:"type"`
		Socket      string   `json:"socket"`
	}{"1.0.0", versions, "danm", "danm", socket})
}

func line(conf any) []byte {
	b, err := json.Marshal(conf)
	if err != nil {
		panic("agent: CNI configuration does not marshal: " + err.Error())
	}
	return append(b, '\n')
}

// writeCNIConf writes the configuration once the agent is ready. One that is there stays as it is, whoever wrote it: taking it away, or
// changing it under a runtime, makes the node NotReady. What an earlier release wrote goes after the new one has come: until then the
// runtime takes the old one, and both say the same.
func (a *Agent) writeCNIConf() {
	if a.opts.CNIConfDir == "" || a.notReady() != "" {
		return
	}
	path, old := filepath.Join(a.opts.CNIConfDir, ConfName), filepath.Join(a.opts.CNIConfDir, formerName)
	there, err := os.ReadFile(old)
	ours := err == nil && bytes.Equal(there, former(a.opts.Socket))
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		if ours { // an agent was cut off between the two
			a.removeFormer(old)
		}
		return
	}
	if err == nil && !ours {
		return // somebody's own
	}
	if err := os.MkdirAll(a.opts.CNIConfDir, 0o755); err != nil {
		a.log.Error("no CNI configuration", "reason", fmt.Errorf("create CNI configuration directory: %w", err))
		return
	}
	// Runtimes watch the directory and read files by their endings only, so the temporary name does not wake them to half a file.
	if err := state.WriteFile(path, Conf(a.opts.Socket), nil); err != nil {
		a.log.Error("no CNI configuration", "reason", err)
		return
	}
	if err := os.Chmod(path, 0o644); err != nil {
		a.log.Warn("CNI configuration is readable by root only", "reason", err)
	}
	a.log.Info("CNI configuration written", "path", path)
	if ours {
		a.removeFormer(old)
	}
}

func (a *Agent) removeFormer(path string) {
	if err := os.Remove(path); err != nil {
		a.log.Warn("runtimes go on by the CNI configuration of an earlier release", "path", path, "reason", err)
	}
}

// Uninstall removes the CNI configuration and the CNI binary under all its names, and returns what it removed. Links, addresses, state and records stay:
// Pods keep their interfaces.
func Uninstall(confDir, binDir string) ([]string, error) {
	var gone []string
	paths := []string{filepath.Join(confDir, ConfName), filepath.Join(confDir, formerName)}
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
