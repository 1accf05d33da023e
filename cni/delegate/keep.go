package delegate

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// Keep puts another result in the place of what Add answered, for Result, Check and Del: after somebody has changed the interface. It is
// there as a whole or not at all.
func (p *Plugins) Keep(list []byte, c Call, r *types100.Result) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("keep what a plugin answered: %w", err)
		}
	}()
	l, err := parse(list)
	if err != nil {
		return err
	}
	path := p.cacheFile(l.Name, c)
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	cached := map[string]json.RawMessage{} // libcni's cachedInfo, of which the result alone is of concern
	if err := json.Unmarshal(text, &cached); err != nil {
		return err
	}
	asked, err := r.GetAsVersion(l.CNIVersion)
	if err != nil {
		return err
	}
	if cached["result"], err = json.Marshal(asked); err != nil {
		return err
	}
	if text, err = json.Marshal(cached); err != nil {
		return err
	}
	return p.replace(path, text)
}

// replace gives an attachment's file another text in one step.
func (p *Plugins) replace(path string, text []byte) error {
	fresh := p.freshFile(path)
	if err := os.WriteFile(fresh, text, 0o600); err != nil {
		return errors.Join(err, os.Remove(fresh))
	}
	return os.Rename(fresh, path)
}

// freshFile is what a process that is killed in replace leaves, outside of the directory that libcni reads; Del removes it. The name is no
// longer than the file's, which is as long as names may be.
func (p *Plugins) freshFile(path string) string {
	sum := sha256.Sum256([]byte(filepath.Base(path)))
	return filepath.Join(p.opts.CacheDir, "fresh-"+hex.EncodeToString(sum[:16]))
}

// cacheFile is where libcni keeps the result of an attachment (libcni, getCacheFilePath). It has refused parts that have a slash.
func (p *Plugins) cacheFile(network string, c Call) string {
	return filepath.Join(p.opts.CacheDir, "results", fmt.Sprintf("%s-%s-%s", network, c.Container, c.IfName))
}
