// Package arch holds the project's import table and checks every Go file against it.
//
// The table is the architecture: a room that is not in it fails, so does an import that its row does not list. It reads
// sources with go/parser and builds nothing. It says nothing about tests: _test.go files may import anything.
package arch

// row says what one room may import. Room and May are directories relative to the module's root; "x/..." covers a tree.
type row struct {
	Name   string   // of the bad tree in testdata/bad that this row must catch
	Room   string   // the directory or tree it speaks about; the longest match wins
	May    []string // our own packages it may import, itself always included
	Never  []string // packages of others, or of the standard library, that it must not import
	Reason string
}

var specAll = []string{"spec/..."}

// ioPackages are what a pure room has no business with.
var ioPackages = []string{"os", "os/exec", "net", "net/http", "syscall", "log", "log/slog", "math/rand", "math/rand/v2", "context", "github.com/vishvananda/netlink"}

func join(lists ...[]string) []string {
	var out []string
	for _, l := range lists {
		out = append(out, l...)
	}
	return out
}

var table = []row{
	{Name: "diag", Room: "spec/diag", Never: ioPackages, Reason: "everything reports through it, so it depends on nothing"},
	{Name: "bundle-types", Room: "spec/bundle/v1", May: []string{"spec/diag"}, Never: ioPackages, Reason: "documents are plain types"},
	{Name: "bundle-gen", Room: "spec/bundle/v1/internal/...", May: []string{"spec/bundle/v1"}, Reason: "the generator reads sources; it is no part of a binary"},
	{Name: "danm-types", Room: "spec/danm/v1", Never: join(ioPackages, []string{"k8s.io/client-go", "sigs.k8s.io/controller-runtime"}), Reason: "API types need apimachinery only"},
	{Name: "api-types", Room: "spec/api/v1alpha1", Never: join(ioPackages, []string{"k8s.io/client-go", "sigs.k8s.io/controller-runtime"}), Reason: "API types need apimachinery only"},
	{Name: "npwg-types", Room: "spec/npwg/v1", Never: join(ioPackages, []string{"k8s.io/client-go", "sigs.k8s.io/controller-runtime"}), Reason: "API types need apimachinery only"},
	{Name: "model", Room: "spec/model", May: []string{"spec/diag"}, Never: ioPackages, Reason: "the value everything shares must not pull anything in"},
	{Name: "annotation", Room: "spec/annotation", May: []string{"spec/diag", "spec/model"}, Never: ioPackages, Reason: "annotations become requests, nothing more"},
	{Name: "segment", Room: "spec/segment", May: []string{"spec/model"}, Never: ioPackages, Reason: "both the writer and the node's reader of segments use it"},
	{Name: "nodeplan", Room: "spec/nodeplan", May: []string{"spec/api/v1alpha1", "spec/diag", "spec/model", "spec/segment"}, Never: ioPackages, Reason: "the node's mirror and danmctl make the same state of a NodePlan"},
	{Name: "tenancy-rules", Room: "spec/tenancy", May: []string{"spec/danm/v1", "spec/api/v1alpha1", "spec/model"}, Never: ioPackages, Reason: "who gives numbers out and who makes links read TenantConfigs the same way"},
	{Name: "convert", Room: "spec/convert", May: []string{"spec/bundle/v1", "spec/danm/v1", "spec/npwg/v1"}, Never: ioPackages, Reason: "objects become documents; reading and judging is others' work"},
	{Name: "decode", Room: "spec/decode", May: specAll, Never: ioPackages, Reason: "files become documents; reading files is a source's work"},
	{Name: "validate", Room: "spec/validate", May: specAll, Never: ioPackages, Reason: "the one rule book serves webhook, controller, CLI and agent, so it stays pure"},
	{Name: "render", Room: "render", May: specAll, Never: join(ioPackages, []string{"time"}), Reason: "same input, same bytes: no context, log, clock, randomness or system"},
	{Name: "render-gen", Room: "render/rendertest", May: join(specAll, []string{"render"}), Never: ioPackages, Reason: "makes scale bundles for tests and benchmarks, purely"},
	{Name: "source", Room: "reconcile/source/...", May: []string{"spec/diag", "reconcile/source/..."}, Reason: "fetchers deliver bytes and know nothing of their meaning"},
	{Name: "overlay", Room: "reconcile/overlay", May: specAll, Never: []string{"os", "os/exec", "net", "net/http", "context"}, Reason: "kustomize is given files in memory and no way out"},
	{Name: "graph", Room: "reconcile/graph", May: []string{"spec/model"}, Never: ioPackages, Reason: "a picture is text made from the model"},
	{Name: "local", Room: "reconcile/local", May: []string{"spec/...", "render", "reconcile/source/...", "reconcile/overlay", "node/state"}, Reason: "the local home meets the node only in the state directory"},
	{Name: "fail", Room: "reconcile/fail", May: []string{"spec/..."}, Never: ioPackages, Reason: "errors are sorted, not made"},
	{Name: "status", Room: "reconcile/status", May: []string{"spec/...", "reconcile/fail"}, Never: ioPackages, Reason: "an outcome becomes conditions, purely"},
	{Name: "apply", Room: "reconcile/apply", May: []string{"spec/...", "reconcile/fail"}, Never: []string{"os", "os/exec", "net/http"}, Reason: "objects are brought, whatever they mean"},
	{Name: "publish", Room: "reconcile/publish", May: []string{"spec/...", "render", "reconcile/apply", "reconcile/status", "reconcile/fail"}, Never: []string{"os", "os/exec", "net", "net/http"}, Reason: "it meets other loops only in the API"},
	{Name: "desired", Room: "reconcile/desired", May: []string{"spec/...", "render", "reconcile/source", "reconcile/overlay", "reconcile/publish", "reconcile/apply", "reconcile/fail"}, Never: join(ioPackages, []string{"time"}), Reason: "what the controller will do and what danmctl shows is decided once, without I/O"},
	{Name: "live", Room: "reconcile/live", May: []string{"spec/...", "reconcile/desired"}, Never: []string{"os", "os/exec", "sigs.k8s.io/controller-runtime", "k8s.io/client-go/kubernetes"}, Reason: "danmctl's way to an API server: it lists, does what it is told, and decides nothing"},
	{Name: "sync", Room: "reconcile/sync", May: []string{"spec/...", "render", "reconcile/source/...", "reconcile/overlay", "reconcile/desired", "reconcile/publish", "reconcile/apply", "reconcile/status", "reconcile/fail"}, Never: []string{"os/exec"}, Reason: "it hands its result to publish in process and meets other loops only in the API"},
	{Name: "hostlinks", Room: "reconcile/hostlinks", May: []string{"spec/...", "render", "reconcile/apply", "reconcile/fail"}, Never: []string{"os", "os/exec", "net", "net/http"}, Reason: "it meets other loops only in the API"},
	{Name: "tenancy", Room: "reconcile/tenancy", May: []string{"spec/...", "reconcile/apply", "reconcile/status", "reconcile/fail"}, Never: []string{"os", "os/exec", "net", "net/http"}, Reason: "it meets sync and hostlinks only in the API"},
	{Name: "blocks", Room: "reconcile/blocks", May: []string{"spec/...", "render", "ipam/alloc", "reconcile/apply", "reconcile/status", "reconcile/fail"}, Never: []string{"os", "os/exec", "net", "net/http"}, Reason: "it meets nodes and other loops only in the API, and shares with nodes how a space is cut, nothing else"},
	{Name: "controller", Room: "reconcile/controller", May: []string{"spec/...", "reconcile/..."}, Never: []string{"os/exec"}, Reason: "loops are wired together here and nowhere else"},
	{Name: "danm-controller", Room: "reconcile/cmd/danm-controller", May: []string{"reconcile/controller"}, Reason: "a main is wiring"},
	{Name: "cli", Room: "reconcile/cli", May: []string{"spec/...", "render", "ipam/...", "reconcile/source/...", "reconcile/local", "reconcile/apply", "reconcile/desired", "reconcile/fail", "reconcile/live", "reconcile/overlay", "reconcile/graph", "node/plan", "node/link", "node/sriov", "node/ledger", "node/state", "node/guard"}, Reason: "danmctl looks, at a cluster through what the controller decides by; of a guard it asks its status and a retry, and it never touches a Pod"},
	{Name: "plan", Room: "node/plan", May: specAll, Never: []string{"os", "os/exec", "net", "net/http", "syscall", "log", "log/slog", "math/rand", "math/rand/v2", "time", "github.com/vishvananda/netlink"}, Reason: "the diff is data and is decided without the kernel"},
	{Name: "link", Room: "node/link", May: []string{"node/plan", "spec/model"}, Reason: "speaks netlink and decides nothing"},
	{Name: "sriov", Room: "node/sriov", May: []string{"node/plan", "node/link", "spec/model"}, Never: []string{"os/exec"}, Reason: "reads and sets what it is told of; which function is whose is decided elsewhere"},
	{Name: "devplugin", Room: "node/devplugin", May: []string{"spec/...", "node/plan", "node/sriov"}, Never: []string{"k8s.io/client-go", "github.com/vishvananda/netlink", "os/exec"}, Reason: "it offers the kubelet the devices that it is told of, and touches none"},
	{Name: "fake", Room: "node/fake", May: []string{"node/plan", "spec/model"}, Never: []string{"github.com/vishvananda/netlink", "os/exec"}, Reason: "the kernel in memory must not reach the real one"},
	{Name: "state", Room: "node/state", May: specAll, Reason: "the state directory is bytes and versions; both homes write it"},
	{Name: "probe", Room: "node/probe", May: []string{"spec/model", "node/link"}, Reason: "a probe tests the way out and nothing else"},
	{Name: "ledger", Room: "node/ledger", May: []string{"node/plan", "node/state", "spec/..."}, Reason: "records come before kernel calls and depend on no executor"},
	{Name: "guard", Room: "node/guard", May: []string{"node/plan", "node/link", "node/sriov", "node/ledger", "node/probe", "node/state", "spec/model", "spec/diag"}, Never: []string{"k8s.io/client-go", "sigs.k8s.io/controller-runtime", "github.com/go-git/go-git/v5"}, Reason: "the guard must outlive agent, API and source, so it needs none of them"},
	{Name: "follow", Room: "node/follow", Never: []string{"sigs.k8s.io/controller-runtime", "github.com/vishvananda/netlink", "os"}, Reason: "it tells of objects and knows no kind of them"},
	{Name: "endpoints", Room: "node/endpoints", May: []string{"spec/...", "node/follow"}, Never: []string{"sigs.k8s.io/controller-runtime", "github.com/vishvananda/netlink", "k8s.io/client-go/kubernetes", "os"}, Reason: "DanmEps are told by what is attached; who attached it is not asked"},
	{Name: "mirror", Room: "node/mirror", May: []string{"spec/...", "node/state", "node/guard", "node/follow"}, Never: []string{"sigs.k8s.io/controller-runtime", "github.com/go-git/go-git/v5", "github.com/vishvananda/netlink", "k8s.io/client-go/kubernetes"}, Reason: "the API's way into the state directory; client-go's dynamic client is enough, a typed one costs megabytes"},
	{Name: "agent", Room: "node/agent", May: []string{"node/...", "cni/...", "spec/...", "ipam", "ipam/kube"}, Never: []string{"sigs.k8s.io/controller-runtime", "github.com/go-git/go-git/v5"}, Reason: "the loop wires rooms together on the node; it fetches nothing"},
	{Name: "podresources", Room: "node/podresources", Never: []string{"k8s.io/client-go", "github.com/vishvananda/netlink", "os/exec"}, Reason: "it hears the kubelet; who gets which device is decided elsewhere"},
	{Name: "cri", Room: "node/cri", Never: []string{"k8s.io/client-go", "github.com/vishvananda/netlink", "os/exec"}, Reason: "it hears the runtime as a witness; what follows from it is decided elsewhere"},
	{Name: "agent", Room: "node/agent", May: []string{"node/...", "cni/...", "spec/...", "ipam"}, Never: []string{"sigs.k8s.io/controller-runtime", "github.com/go-git/go-git/v5"}, Reason: "the loop wires rooms together on the node; it fetches nothing"},
	{Name: "wire", Room: "cni/wire", Never: []string{"github.com/containernetworking/cni/pkg/skel", "github.com/vishvananda/netlink", "net/http", "k8s.io/client-go"}, Reason: "the shim links it: every import costs start-up time on each Pod"},
	{Name: "attach", Room: "cni/attach", May: []string{"cni/wire", "spec/...", "node/link", "node/sriov"}, Reason: "drivers touch Pods' links; addresses come by an interface of their own"},
	{Name: "delegate", Room: "cni/delegate", May: []string{"spec/model", "spec/npwg/v1"}, Never: []string{"github.com/vishvananda/netlink", "k8s.io/client-go"}, Reason: "other plugins are called with what they are given; addresses and records are the server's"},
	{Name: "server", Room: "cni/server", May: []string{"cni/...", "spec/...", "ipam"}, Never: []string{"github.com/vishvananda/netlink"}, Reason: "the server orders the work; the kernel is the drivers'"},
	{Name: "alloc", Room: "ipam/alloc", May: specAll, Never: join(ioPackages, []string{"time"}), Reason: "the choice of an address is pure, so that it can be searched exhaustively"},
	{Name: "ipam-audit", Room: "ipam/audit", May: []string{"spec/...", "ipam", "ipam/alloc"}, Never: ioPackages, Reason: "what differs is decided from values, so that every discrepancy can be tried"},
	{Name: "ipam-model", Room: "ipam/model", Never: join(ioPackages, []string{"time"}), Reason: "a model that shared code with what it judges would share its mistakes"},
	{Name: "ipam", Room: "ipam", May: []string{"spec/...", "ipam/alloc"}, Never: []string{"github.com/vishvananda/netlink", "os/exec", "k8s.io/client-go/rest", "k8s.io/client-go/dynamic"}, Reason: "addresses are given without looking at links"},
	{Name: "ipam-kube", Room: "ipam/kube", May: []string{"ipam", "spec/api/v1alpha1"}, Never: []string{"sigs.k8s.io/controller-runtime", "k8s.io/client-go/kubernetes", "os/exec"}, Reason: "danm-node links it: a REST client is enough, and it decides nothing"},
	{Name: "shim", Room: "cni/cmd/danm", May: []string{"cni/wire"}, Never: []string{"github.com/containernetworking/cni/pkg/skel", "github.com/vishvananda/netlink", "net/http"}, Reason: "≤ 3,000,000 bytes and no start-up work"},
	{Name: "ctl", Room: "reconcile/cmd/danmctl", May: []string{"reconcile/cli"}, Never: []string{"github.com/vishvananda/netlink"}, Reason: "a main is wiring"},
	{Name: "danm-node", Room: "node/cmd/danm-node", May: []string{"node/..."}, Never: []string{"sigs.k8s.io/controller-runtime", "github.com/go-git/go-git/v5"}, Reason: "a main is wiring"},
	{Name: "examples", Room: "examples/...", May: []string{"spec/...", "render"}, Reason: "examples are documents; their test renders them"},
	{Name: "ipam-history", Room: "test/ipamsim/history", Reason: "the checker shares no code with what it judges"},
	{Name: "ipam-world", Room: "test/ipamsim/world", May: []string{"spec/api/v1alpha1"}, Reason: "the API server knows nothing of its clients"},
	{Name: "test", Room: "test/...", May: []string{"..."}, Reason: "tests see everything"},
}

// listCalls are netlink's dump calls: EINTR cuts a dump short without an error on old libraries, so only rooms with
// safe wrappers may name them.
var listCalls = map[string]bool{
	"LinkList": true, "AddrList": true, "RouteList": true, "RouteListFiltered": true, "NeighList": true,
	"NeighListExecute": true, "RuleList": true, "RuleListFiltered": true, "BridgeVlanList": true,
}

var listRooms = map[string]bool{"node/link": true, "node/sriov": true}
