package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"

	"danm.io/danm/ipam"
	"danm.io/danm/node/agent"
	"danm.io/danm/node/state"
	"danm.io/danm/spec/model"
	"danm.io/danm/test/lab"
)

// runtimeOf calls the CNI binary as a container runtime does.
type runtimeOf struct {
	*box
	shim, socket string
	world        *lab.World
	mu           sync.Mutex // of world
}

// sandbox is one try of a runtime to start a Pod.
type sandbox struct {
	pod, id string
	ns      *lab.NS
}

func (r *runtimeOf) sandbox(pod string, try int) (sandbox, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := sandbox{pod: pod, id: fmt.Sprintf("%s-%d", pod, try)}
	var err error
	s.ns, err = r.world.Add(s.id)
	return s, err
}

func (r *runtimeOf) remove(s sandbox) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.world.Remove(s.ns)
}

// call returns what the binary says: a result, or the error that the specification wants on standard output.
func (r *runtimeOf) call(verb string, s sandbox) (*types100.Result, error) {
	cmd := exec.Command(r.shim)
	cmd.Env = []string{"CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + s.id, "CNI_NETNS=" + s.ns.Path, "CNI_IFNAME=eth0", "CNI_PATH=/opt/cni/bin",
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=acme;K8S_POD_NAME=" + s.pod + ";K8S_POD_UID=u-" + s.pod}
	conf := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"danm","type":"danm","socket":%q,"interfaces":[{"clusterNetwork":"net","ip":"dynamic","ip6":"dynamic"}]}`, r.socket)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout = strings.NewReader(conf), &out
	if err := cmd.Run(); err != nil {
		said := &types.Error{}
		if jerr := json.Unmarshal(out.Bytes(), said); jerr != nil {
			return nil, errors.Join(err, fmt.Errorf("it says %q: %w", out.String(), jerr))
		}
		return nil, said
	}
	if verb != "ADD" {
		return nil, nil
	}
	res, err := types100.NewResult(out.Bytes())
	if err != nil {
		return nil, err
	}
	return types100.GetResult(res)
}

// start goes on until the Pod has a network, as a kubelet does: a sandbox whose ADD failed is taken down, and the next one tried.
func (r *runtimeOf) start(pod string, refused *atomic.Int64) (sandbox, *types100.Result, error) {
	for try := 0; ; try++ {
		s, err := r.sandbox(pod, try)
		if err != nil {
			return s, nil, err
		}
		res, err := r.call("ADD", s)
		if err == nil {
			return s, res, nil
		}
		if e := (*types.Error)(nil); !errors.As(err, &e) || e.Code != types.ErrTryAgainLater || try > 100 {
			return s, nil, fmt.Errorf("ADD of %s: %w", s.id, err)
		}
		refused.Add(1)
		for again := 0; ; again++ { // containerd does not forget a sandbox before its DEL succeeded
			if _, err := r.call("DEL", s); err == nil {
				break
			} else if again > 100 {
				return s, nil, fmt.Errorf("DEL of %s: %w", s.id, err)
			}
			time.Sleep(20 * time.Millisecond)
		}
		if err := r.remove(s); err != nil {
			return s, nil, err
		}
	}
}

// TestKernelAgentDiesDuringADDs: an agent that is killed, or ended and started anew as by an upgrade, twenty times during 500 ADDs,
// loses none of them, leaves nothing behind, and gives no address twice; and the next agent finds everything as it was attached.
func TestKernelAgentDiesDuringADDs(t *testing.T) {
	if !inNamespaces(t) {
		return
	}
	b := newBox(t)
	r := &runtimeOf{box: b, shim: filepath.Join(b.dir, "danm"), socket: filepath.Join(b.dir, "cni.sock")}
	if out, err := exec.Command("go", "build", "-o", r.shim, "danm.io/danm/cni/cmd/danm").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	must(t, netlink.LinkSetUp(lo))
	r.world, err = lab.NewWorld(b.dir)
	must(t, err)
	t.Cleanup(func() { must(t, r.world.Close()) })
	p := model.NodePlan{Links: []model.Link{{Name: "up0", Kind: model.Physical, Up: true}}}
	_, err = state.Open(b.dir).Write(model.NodeState{Home: model.LocalHome, Node: "edge-1", Slots: 1, Bundle: "edge", Revision: "r1", Plan: p, Digest: p.Digest(), ConfirmTimeout: 15 * time.Second,
		Networks: []model.Network{{Kind: model.ClusterNetwork, Name: "net", NetworkID: "net", Type: model.MACVLAN, HostDevice: "up0", Device: "up0", SpaceDomain: "up0",
			IPv4: &model.Subnet{CIDR: netip.MustParsePrefix("10.70.0.0/21")}, IPv6: &model.Subnet{CIDR: netip.MustParsePrefix("fd70::/64")}}}})
	must(t, err)
	const metrics = "127.0.0.1:19095"
	agentArgs := []string{"agent", "--node-name", "edge-1", "--socket", r.socket, "--metrics-addr", metrics, "--cni-conf-dir", filepath.Join(b.dir, "net.d"), "--cri-socket", "none"}
	g := b.guard()
	defer kill(g)
	a := b.start(agentArgs...)
	first, err := r.sandbox("first", 0)
	must(t, err)
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) { // until a plan is confirmed
		if _, err = r.call("ADD", first); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	_, err = r.call("DEL", first)
	must(t, err)

	const pods, workers, deaths = 500, 12, 20
	var done, refused atomic.Int64
	type attached struct {
		sandbox
		res *types100.Result
	}
	results := make([]attached, pods)
	failed := make(chan error, pods)
	next := make(chan int)
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for i := range next {
				s, res, err := r.start(fmt.Sprintf("p%d", i), &refused)
				if err != nil {
					failed <- err
				}
				results[i] = attached{s, res}
				done.Add(1)
			}
		})
	}
	go func() {
		for i := range pods {
			next <- i
		}
		close(next)
	}()
	for death := range deaths {
		for end := time.Now().Add(2 * time.Minute); done.Load() < int64(pods*(death+1)/(deaths+1)); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d of %d Pods after two minutes, %d deaths", done.Load(), pods, death)
			}
		}
		if death%4 == 3 {
			b.served(r.socket)
			must(t, a.Process.Signal(syscall.SIGTERM))
			if err := a.Wait(); err != nil {
				t.Errorf("SIGTERM: %v", err)
			}
		} else {
			kill(a)
		}
		a = b.start(agentArgs...)
	}
	running.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
	if t.Failed() {
		return
	}
	t.Logf("%d calls were refused while no agent was there or it died", refused.Load())
	if refused.Load() == 0 {
		t.Error("no agent died in a call: this tried nothing")
	}
	has := map[string]string{}
	for _, it := range results {
		seen := it.res.Interfaces[0]
		must(t, it.ns.Do(func() error {
			links, err := netlink.LinkList()
			if err != nil {
				return err
			}
			if len(links) != 2 || links[1].Attrs().Name != "eth0" || links[1].Attrs().HardwareAddr.String() != seen.Mac {
				t.Errorf("%s has %d links, the result says %+v", it.id, len(links), seen)
				return nil
			}
			all, err := netlink.AddrList(links[1], netlink.FAMILY_ALL)
			got := ""
			for _, x := range all {
				got += x.IPNet.String() + " "
			}
			for _, ip := range it.res.IPs {
				if !strings.Contains(got, ip.Address.String()+" ") {
					t.Errorf("%s has %s and not %s", it.id, got, ip.Address.String())
				}
				if other := has[ip.Address.String()]; other != "" {
					t.Errorf("%s and %s have %s", other, it.id, ip.Address.String())
				}
				has[ip.Address.String()] = it.id
			}
			return err
		}))
	}
	if len(has) != 2*pods {
		t.Errorf("%d addresses of %d Pods", len(has), pods)
	}
	snap, err := ipam.Read(filepath.Join(b.dir, agent.JournalDir))
	must(t, err)
	if len(snap.Records) != pods {
		t.Errorf("%d records of %d Pods", len(snap.Records), pods)
	}
	kill(a)
	a = b.start(agentArgs...)
	defer kill(a)
	b.eventually("the last agent does not find all as it was", 2*time.Minute, func() bool {
		resp, err := http.Get("http://" + metrics + "/metrics")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return strings.Contains(string(text), fmt.Sprintf("danm_attachments_compared{result=\"same\"} %d\n", pods)) && strings.Contains(string(text), "danm_attachments_compared{result=\"differs\"} 0\n")
	})
	for _, it := range results {
		if _, err := r.call("DEL", it.sandbox); err != nil {
			t.Error(err)
		}
	}
	if snap, err = ipam.Read(filepath.Join(b.dir, agent.JournalDir)); err != nil || len(snap.Records) != 0 {
		t.Errorf("%d records are left, %v", len(snap.Records), err)
	}
}
