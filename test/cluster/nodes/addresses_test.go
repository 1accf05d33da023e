//go:build linux

package nodes

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/test/cluster/bed"
	"danm.io/danm/test/lab"
)

// sandbox is a Pod's network namespace on a node, attached by the CNI binary as a runtime calls it.
type sandbox struct {
	s        *site
	node, id string
	ns       *lab.NS
}

var sandboxes atomic.Int64

func (s *site) sandbox(node string) (*sandbox, error) {
	id := fmt.Sprintf("%s-%d", node, sandboxes.Add(1))
	ns, err := s.world.Add(id)
	return &sandbox{s: s, node: node, id: id, ns: ns}, err
}

// cni calls the binary. "" as ip asks for any address.
func (p *sandbox) cni(command, ip string) (address string, err error) {
	if ip == "" {
		ip = "dynamic"
	}
	cmd := exec.Command(filepath.Join(p.s.bin, "danm"))
	cmd.Env = []string{"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + p.id, "CNI_NETNS=" + p.ns.Path, "CNI_IFNAME=eth0", "CNI_PATH=" + p.s.bin,
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=acme;K8S_POD_NAME=" + p.id + ";K8S_POD_UID=uid-" + p.id}
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`{"cniVersion":"1.0.0","name":"danm","type":"danm","socket":%q,"interfaces":[{"tenantNetwork":"voice","ip":%q}]}`,
		filepath.Join(p.s.dir, p.node+".sock"), ip))
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s of %s: %w: %s", command, p.id, err, out.String())
	}
	if command != "ADD" {
		return "", nil
	}
	var res struct{ IPs []struct{ Address string } }
	if err := json.Unmarshal(out.Bytes(), &res); err != nil || len(res.IPs) != 1 {
		return "", fmt.Errorf("result of %s: %s (%w)", p.id, out.String(), err)
	}
	return res.IPs[0].Address, nil
}

// holders are the live addresses as the test's own bookkeeping has them.
type holders struct {
	mu sync.Mutex
	by map[string]string
}

func (h *holders) take(address, who string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if other, taken := h.by[address]; taken {
		return fmt.Errorf("%s has %s and so has %s", other, address, who)
	}
	h.by[address] = who
	return nil
}

func (h *holders) free(address string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.by, address)
}

// frozenFor is how long the API server is frozen while sandboxes come and go.
const frozenFor = 2 * time.Minute

// The API server is frozen while sandboxes come and go on two nodes: what the nodes have claimed is enough, and nothing is
// doubled or lost. Agents die and come back meanwhile.
func TestClusterAddressesWithoutTheAPI(t *testing.T) {
	s := newSite(t)
	s.addresses = ", ipv4: {cidr: 10.50.0.0/23}"
	s.commit(1400, "")
	s.apply("apiVersion: danm.io/v1alpha1\nkind: NetworkBundle\nmetadata: {name: edge}\nspec: {interval: 5s, configMaps: {namespace: danm-system, selector: {bundle: edge}}}\n")
	s.until("rolled out", time.Minute, s.rolledOut(""))
	live := &holders{by: map[string]string{}}

	// Each node claims what it will need.
	var warm []*sandbox
	addresses := map[*sandbox]string{}
	for range 20 {
		for _, node := range []string{"n1", "n2"} {
			p, err := s.sandbox(node)
			s.must(err)
			address := s.attach(p, 30*time.Second)
			s.must(live.take(address, p.id))
			warm, addresses[p] = append(warm, p), address
		}
	}
	// What another node has claimed is asked of it.
	other := addresses[warm[1]]
	if got, err := warm[0].cni("ADD", ""); err == nil && got == other {
		t.Fatal("two nodes gave out one address")
	}
	for _, p := range warm {
		_, err := p.cni("DEL", "")
		s.must(err)
		live.free(addresses[p])
	}

	s.must(s.api.Freeze())
	end := time.Now().Add(frozenFor)
	killed := time.Now().Add(frozenFor / 3)
	var adds, dels atomic.Int64
	var failed sync.Map
	var wg sync.WaitGroup
	for _, node := range []string{"n1", "n2"} {
		for range 3 {
			wg.Go(func() {
				for time.Now().Before(end) {
					if err := s.comeAndGo(node, live, &adds, &dels); err != nil {
						failed.Store(err.Error(), true)
					}
				}
			})
		}
	}
	time.Sleep(time.Until(killed))
	s.agents["n2"].Stop(syscall.SIGKILL, time.Second)
	s.restartAgent("n2")
	wg.Wait()
	s.must(s.api.Thaw())
	failed.Range(func(k, _ any) bool { t.Error(k); return true })
	t.Logf("%d ADDs and %d DELs while the API server was frozen", adds.Load(), dels.Load())
	if adds.Load() < 40 || dels.Load() != adds.Load() {
		t.Errorf("%d ADDs, %d DELs", adds.Load(), dels.Load())
	}

	// Static addresses of the other node, in use and free.
	s.stopControllerLag()
	p, err := s.sandbox("n1")
	s.must(err)
	got := s.attach(p, time.Minute)
	q, err := s.sandbox("n2")
	s.must(err)
	if _, err := q.cni("ADD", strings.TrimSuffix(got, "/23")); err == nil {
		t.Fatalf("n2 gave %s out, which a Pod on n1 has", got)
	}
	_, err = p.cni("DEL", "")
	s.must(err)
	s.until("n1 has ceded what it does not use any more", 90*time.Second, func() bool {
		a, err := q.cni("ADD", strings.TrimSuffix(got, "/23"))
		return err == nil && a == got
	})
	if out, err := s.ctl("ipam", "check", "--live"); err != nil {
		t.Errorf("danmctl ipam check: %v\n%s", err, out)
	}
	t.Logf("%s", s.kubectl("get", "ipblocks"))
}

// attach tries as the kubelet does.
func (s *site) attach(p *sandbox, within time.Duration) (address string) {
	s.t.Helper()
	for deadline := time.Now().Add(within); ; time.Sleep(500 * time.Millisecond) {
		address, err := p.cni("ADD", "")
		if err == nil {
			return address
		}
		if time.Now().After(deadline) {
			s.t.Fatal(err)
		}
	}
}

// comeAndGo is one sandbox's life. An agent that is being started again is waited for by the binary itself.
func (s *site) comeAndGo(node string, live *holders, adds, dels *atomic.Int64) error {
	p, err := s.sandbox(node)
	if err != nil {
		return err
	}
	address, err := p.cni("ADD", "")
	for try := 0; err != nil && strings.Contains(err.Error(), `"code": 11`) && try < 20; try++ { // the agent has just started, or is starting
		time.Sleep(time.Second)
		address, err = p.cni("ADD", "")
	}
	if err != nil {
		return err
	}
	adds.Add(1)
	if err := live.take(address, p.id); err != nil {
		return err
	}
	time.Sleep(4 * time.Second)
	live.free(address) // from here on the address may be another's
	_, err = p.cni("DEL", "")
	for try := 0; err != nil && strings.Contains(err.Error(), `"code": 11`) && try < 20; try++ {
		time.Sleep(time.Second)
		_, err = p.cni("DEL", "")
	}
	if err == nil {
		dels.Add(1)
	}
	return err
}

// stopControllerLag waits until the API answers and the agents have spoken to it.
func (s *site) stopControllerLag() {
	s.t.Helper()
	s.until("in touch with the API again", time.Minute, func() bool {
		for name := range s.nodes {
			var p v1alpha1.NodePlan
			out, err := s.api.Kubectl(s.fork(s.cp), "get", "nodeplan", name, "-o", "json")
			if err != nil || json.Unmarshal(out, &p) != nil {
				return false
			}
		}
		return true
	})
}

// ctl runs danmctl as an administrator beside the API server.
func (s *site) ctl(args ...string) (string, error) {
	s.t.Helper()
	kubeconfig, err := s.api.Kubeconfig("ctl", bed.AdminToken)
	s.must(err)
	cmd := exec.Command(filepath.Join(s.bin, "danmctl"), append(args, "--kubeconfig", kubeconfig)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	p, err := s.cp.Start(cmd)
	s.must(err)
	<-p.Exited
	return out.String(), p.Err
}
