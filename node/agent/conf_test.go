package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containernetworking/cni/libcni"
)

// TestConfIsAListOfTheNewestVersion: by the library that runtimes read it with, who knows 1.1.0 speaks it, and so asks for STATUS and GC.
func TestConfIsAListOfTheNewestVersion(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, ConfName), Conf("/run/danm/cni.sock"), 0o600))
	l, err := libcni.LoadNetworkConf(dir, "danm")
	must(t, err)
	if l.CNIVersion != "1.1.0" || len(l.Plugins) != 1 || l.Plugins[0].Network.Type != "danm" || l.DisableGC || l.DisableCheck {
		t.Errorf("%+v", l)
	}
}

// TestConfOfAnEarlierRelease: what that wrote is replaced; what somebody else wrote under its name is not.
func TestConfOfAnEarlierRelease(t *testing.T) {
	const earlier = `{"cniVersion":"1.0.0","cniVersions":["0.3.1","0.4.0","1.0.0","1.1.0"],"name":"danm","type":"danm","socket":"/run/danm/cni.sock"}` + "\n"
	for text, replaced := range map[string]bool{earlier: true, earlier + "both": true, `{"name":"danm","type":"danm","namingScheme":"legacy"}`: false} {
		synctest.Test(t, func(t *testing.T) {
			n := newNode(t)
			old, list := filepath.Join(n.dir, "net.d", "10-danm.conf"), filepath.Join(n.dir, "net.d", ConfName)
			must(t, os.MkdirAll(filepath.Dir(old), 0o755))
			if both, cut := strings.CutSuffix(text, "both"); cut { // an agent was killed between the two
				text = both
				must(t, os.WriteFile(list, Conf("/run/danm/cni.sock"), 0o644))
			}
			must(t, os.WriteFile(old, []byte(text), 0o644))
			n.write("r1", bridgePlan(1400))
			n.run(time.Second)
			_, oldErr := os.Stat(old)
			_, listErr := os.Stat(list)
			if os.IsNotExist(oldErr) != replaced || os.IsNotExist(listErr) == replaced {
				t.Errorf("%s: %v, %v", text, oldErr, listErr)
			}
		})
	}
}
