package server

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
)

// programs are the plugin, under both its names, and a delegate that asks for addresses by executing it.
func programs(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("no go tool in PATH")
	}
	bin := shim(t)
	build := exec.Command("go", "build", "-o", filepath.Join(bin, "delegate"), "danm.io/danm/test/delegate")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the delegate: %v\n%s", err, out)
	}
	return bin
}

// An ADD of danm holds the container's lock and the Pod's while its delegate runs, and the delegate asks for addresses of the same
// container. The control makes the delegate's call danm's own, which must wait for that lock.
func TestDelegateThatCallsBack(t *testing.T) {
	bin := programs(t)
	n := newNode(t, nil)
	var delegated types.Result
	exec := func(ctx context.Context, command, ifName, section string) error {
		env := map[string]string{"CNI_COMMAND": command, "CNI_CONTAINERID": "c", "CNI_NETNS": "/proc/self/ns/net", "CNI_IFNAME": ifName, "CNI_PATH": bin,
			"CNI_ARGS": "K8S_POD_NAMESPACE=acme;K8S_POD_NAME=p;K8S_POD_UID=u"}
		conf := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"NetworkID","type":"delegate","ipam":%s}`, section)
		out, err := execPlugin(ctx, filepath.Join(bin, "delegate"), env, conf)
		if err == nil && command == "ADD" {
			delegated, err = create.CreateFromBytes(out)
		}
		return err
	}
	section := fmt.Sprintf(`{"type":"danm","socket":%q,"network":"shared"}`, n.socket())
	n.fake.onAttach(func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		return exec(ctx, "ADD", "net1", section)
	})
	start := time.Now()
	if _, e := n.call(request("ADD", "c", "acme", "u", oneData)); e != nil {
		t.Fatalf("after %s: %v", time.Since(start), e)
	}
	t.Logf("ADD with a delegate that calls back: %s", time.Since(start))
	r, err := types100.NewResultFromResult(delegated)
	if err != nil || len(r.IPs) != 1 || r.IPs[0].Address.String() != "10.3.0.1/24" || r.Interfaces[0].Name != "net1" {
		t.Errorf("the delegate printed %+v, %v", r, err)
	}
	if !slices.Equal(n.records(), []string{"c", "c/net1"}) {
		t.Errorf("records %v", n.records())
	}
	must(t, exec(t.Context(), "CHECK", "net1", section))
	must(t, exec(t.Context(), "DEL", "net1", section))
	if !slices.Equal(n.records(), []string{"c"}) {
		t.Errorf("records %v", n.records())
	}
	if _, e := n.call(request("DEL", "c", "acme", "u", oneData)); e != nil {
		t.Fatal(e)
	}

	late := make(chan error, 1)
	n.fake.onAttach(func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := n.shimCall(ctx, bin, `{"cniVersion":"1.0.0","name":"danm","type":"danm","socket":"`+n.socket()+`","interfaces":`+oneData+`}`)
		late <- err
		return nil
	})
	if _, e := n.call(request("ADD", "c", "acme", "u", oneData)); e != nil {
		t.Fatal(e)
	}
	if err := <-late; err == nil {
		t.Error("control: a call that takes the container's lock does not wait for it")
	}
}

// delegate executes a CNI plugin.
func execPlugin(ctx context.Context, path string, env map[string]string, conf string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, path)
	for k, v := range env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	cmd.Stdin = strings.NewReader(conf)
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", filepath.Base(path), err, out)
	}
	return out, nil
}

func (n *node) shimCall(ctx context.Context, bin, conf string) ([]byte, error) {
	return execPlugin(ctx, filepath.Join(bin, "danm"), map[string]string{"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c", "CNI_NETNS": "/proc/self/ns/net", "CNI_IFNAME": "eth0",
		"CNI_ARGS": "K8S_POD_NAMESPACE=acme;K8S_POD_NAME=p;K8S_POD_UID=u"}, conf)
}

// With neither danm's metaplugin nor a cluster: a runtime, another plugin's configuration, and danm as its IPAM.
func TestLibcniWithDanmAsIPAM(t *testing.T) {
	bin := programs(t)
	n := newNode(t, nil)
	cni := libcni.NewCNIConfigWithCacheDir([]string{bin}, t.TempDir(), nil)
	for _, version := range versions {
		list, err := libcni.NetworkConfFromBytes([]byte(fmt.Sprintf(
			`{"cniVersion":%q,"name":"plain","plugins":[{"type":"delegate","ipam":{"type":"danm","socket":%q,"network":"acme/data"}}]}`, version, n.socket())))
		must(t, err)
		rt := &libcni.RuntimeConf{ContainerID: "c", NetNS: "/proc/self/ns/net", IfName: "eth0"}
		res, err := cni.AddNetworkList(t.Context(), list, rt)
		must(t, err)
		if version != "0.3.1" { // libcni refuses CHECK below 0.4.0
			must(t, cni.CheckNetworkList(t.Context(), list, rt))
		}
		r, err := types100.NewResultFromResult(res)
		must(t, err)
		if !slices.Equal(n.records(), []string{"c/eth0"}) || len(r.IPs) != 2 {
			t.Errorf("%s: %v, records %v", version, r, n.records())
		}
		must(t, cni.DelNetworkList(t.Context(), list, rt))
		must(t, cni.DelNetworkList(t.Context(), list, rt))
		if len(n.records()) != 0 {
			t.Errorf("%s: left %v", version, n.records())
		}
	}
}
