package deploy

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/cel-go/cel"
	"sigs.k8s.io/yaml"
)

// policy is deploy/base's, compiled. The API server has the last word on it (TestClusterDeploy); this runs without one.
type policy struct {
	variables   []string // in order
	programs    map[string]cel.Program
	validations []cel.Program
	messages    []cel.Program // nil: a plain message
}

func nodePolicy(t *testing.T) policy {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "deploy/base/node-policy.yaml"))
	must(t, err)
	var p struct {
		Spec struct {
			MatchConditions []struct{ Expression string }
			Variables       []struct{ Name, Expression string }
			Validations     []struct{ Expression, Message, MessageExpression string }
		}
	}
	text, _, _ := strings.Cut(string(b), "\n---\n")
	must(t, yaml.Unmarshal([]byte(text), &p))
	dyn := cel.DynType
	env, err := cel.NewEnv(cel.OptionalTypes(), cel.Variable("object", dyn), cel.Variable("oldObject", dyn), cel.Variable("request", dyn), cel.Variable("variables", cel.MapType(cel.StringType, dyn)))
	must(t, err)
	compile := func(text string) cel.Program {
		ast, issues := env.Compile(text)
		if issues.Err() != nil {
			t.Fatalf("%s: %v", text, issues.Err())
		}
		program, err := env.Program(ast)
		must(t, err)
		return program
	}
	out := policy{programs: map[string]cel.Program{"": compile(p.Spec.MatchConditions[0].Expression)}}
	for _, v := range p.Spec.Variables {
		out.variables = append(out.variables, v.Name)
		out.programs[v.Name] = compile(v.Expression)
	}
	for _, v := range p.Spec.Validations {
		out.validations = append(out.validations, compile(v.Expression))
		var message cel.Program
		if v.MessageExpression != "" {
			message = compile(v.MessageExpression)
		}
		if (v.Message == "") == (v.MessageExpression == "") {
			t.Errorf("%s: one message, please", v.Expression)
		}
		out.messages = append(out.messages, message)
	}
	return out
}

// refuses says why a request is refused, "" if it is not. A failing expression refuses: failurePolicy is Fail.
func (p policy) refuses(t *testing.T, in map[string]any) string {
	t.Helper()
	variables := map[string]any{}
	in["variables"] = variables
	for _, name := range p.variables {
		value, _, err := p.programs[name].Eval(in)
		if err != nil {
			return err.Error()
		}
		variables[name] = value
	}
	for i, v := range p.validations {
		ok, _, err := v.Eval(in)
		if err == nil && ok.Value() == true {
			continue
		}
		if err != nil || p.messages[i] == nil {
			return fmt.Sprint("refused ", err)
		}
		text, _, err := p.messages[i].Eval(in)
		if err != nil {
			t.Errorf("the message fails: %v", err)
		}
		return fmt.Sprint(text)
	}
	return ""
}

// TestNodePolicy evaluates the policy as the API server would, without one.
func TestNodePolicy(t *testing.T) {
	p := nodePolicy(t)
	read := func(text string) (out map[string]any) {
		must(t, yaml.Unmarshal([]byte(text), &out))
		return out
	}
	pod := func(node, meta string) string {
		return "metadata: {name: p, labels: {a: b}, " + meta + "}\nspec: {nodeName: " + node + "}\nstatus: {phase: Running}\n"
	}
	ipb := func(role, owner, more string) string {
		labels := `danm.io/owner: "` + owner + `"`
		if owner != "" {
			more = ", owner: " + owner + more
		}
		if _, asked, ok := strings.Cut(more, "asked: "); ok {
			labels += ", danm.io/asked: " + asked
		}
		return "{metadata: {name: b, labels: {" + labels + "}}, spec: {role: " + role + ", cidr: 10.0.0.0/26, space: {domain: d, id: 1, cidr: 10.0.0.0/24}" + more + "}}"
	}
	final := func(o string) string {
		return strings.Replace(o, "metadata: {", "metadata: {finalizers: [danm.io/addresses], ", 1)
	}
	const kept = ", reservation: {namespace: a, statefulSet: web, uid: u, ordinal: 0, ifName: eth1}"
	const status = "k8s.v1.cni.cncf.io/network-status"
	for _, c := range []struct {
		name, token, operation, resource, sub, object, old string
		want                                               string // in the refusal; "" = may
	}{
		{"own status", "n1", "UPDATE", "danm.io/nodeplans", "status", "metadata: {name: n1}", "metadata: {name: n1}", ""},
		{"other status", "n1", "UPDATE", "danm.io/nodeplans", "status", "metadata: {name: n2}", "metadata: {name: n2}", "its own NodePlan only, not of n2"},
		{"no node", "", "UPDATE", "danm.io/nodeplans", "status", "metadata: {name: n1}", "metadata: {name: n1}", "refused"},
		{"own plan", "n1", "UPDATE", "danm.io/nodeplans", "", "metadata: {name: n1}", "metadata: {name: n1}", "does not write danm.io/nodeplans"},
		{"secret", "n1", "CREATE", "secrets", "", "metadata: {name: n1}", "", "does not write secrets"},
		{"ep", "n1", "CREATE", "danm.io/danmeps", "", "{metadata: {name: e}, spec: {Host: n1}}", "", ""},
		{"ep deleted", "n1", "DELETE", "danm.io/danmeps", "", "", "{metadata: {name: e}, spec: {Host: n1}}", ""},
		{"ep of nobody", "n1", "CREATE", "danm.io/danmeps", "", "{metadata: {name: e}, spec: {}}", "", "own DanmEps only"},
		{"ep taken", "n1", "UPDATE", "danm.io/danmeps", "", "{metadata: {name: e}, spec: {Host: n1}}", "{metadata: {name: e}, spec: {Host: n2}}", "own DanmEps only"},
		{"ep given", "n1", "UPDATE", "danm.io/danmeps", "", "{metadata: {name: e}, spec: {Host: n2}}", "{metadata: {name: e}, spec: {Host: n1}}", "own DanmEps only"},
		{"lease", "n1", "CREATE", "coordination.k8s.io/leases", "", "metadata: {name: danm-node-n1}", "", ""},
		{"lease without a name", "n1", "CREATE", "coordination.k8s.io/leases", "", "metadata: {generateName: danm-node-}", "", "own lease"},
		{"other lease", "n1", "UPDATE", "coordination.k8s.io/leases", "", "metadata: {name: danm-node-n11}", "metadata: {name: danm-node-n11}", "own lease"},
		{"block claimed", "n1", "CREATE", "danm.io/ipblocks", "", ipb("Block", "n1", ""), "", ""},
		{"single asked for", "n1", "CREATE", "danm.io/ipblocks", "", ipb("Single", "n1", ", asked: n2"), "", ""},
		{"root made", "n1", "CREATE", "danm.io/ipblocks", "", ipb("Root", "n1", ""), "", "that it owns only"},
		{"root of nobody made", "n1", "CREATE", "danm.io/ipblocks", "", ipb("Root", "", ""), "", "that it owns only"},
		{"orphan made", "n1", "CREATE", "danm.io/ipblocks", "", ipb("Block", "", ""), "", "that it owns only"},
		{"block claimed for another", "n1", "CREATE", "danm.io/ipblocks", "", ipb("Block", "n2", ""), "", "that it owns only"},
		{"own block changed", "n1", "UPDATE", "danm.io/ipblocks", "", ipb("Block", "n1", ", ceded: [{address: 10.0.0.1, uid: u}]"), ipb("Block", "n1", ""), ""},
		{"own single parked", "n1", "UPDATE", "danm.io/ipblocks", "", ipb("Single", "", kept), ipb("Single", "n1", kept), ""},
		{"own block given away", "n1", "UPDATE", "danm.io/ipblocks", "", ipb("Block", "n2", ""), ipb("Block", "n1", ""), "that it owns only"},
		{"another's block changed", "n1", "UPDATE", "danm.io/ipblocks", "", ipb("Block", "n2", ", epoch: 2"), ipb("Block", "n2", ""), "that it owns only"},
		{"another's block taken", "n1", "UPDATE", "danm.io/ipblocks", "", ipb("Block", "n1", ""), ipb("Block", "n2", ""), "that it owns only"},
		{"root changed", "n1", "UPDATE", "danm.io/ipblocks", "", ipb("Root", "", ", blockBits: 30"), ipb("Root", "", ", blockBits: 26"), "that it owns only"},
		{"reservation taken", "n1", "UPDATE", "danm.io/ipblocks", "", ipb("Single", "n1", kept+", identity: i, epoch: 3, asked: n4"), ipb("Single", "", kept+", identity: j, asked: n4"), ""},
		{"reservation taken, another asked", "n1", "UPDATE", "danm.io/ipblocks", "", ipb("Single", "n1", kept+", asked: n2"), ipb("Single", "", kept+", asked: n4"), "that it owns only"},
		{"reservation taken in another's place", "n1", "UPDATE", "danm.io/ipblocks", "", ipb("Single", "n1", kept+", before: x"), ipb("Single", "", kept), "that it owns only"},
		{"reservation taken without its finalizer", "n1", "UPDATE", "danm.io/ipblocks", "", ipb("Single", "n1", kept), final(ipb("Single", "", kept)), "that it owns only"},
		{"block given to the controller", "n1", "UPDATE", "danm.io/ipblocks", "", ipb("Block", "", ""), ipb("Block", "n1", ""), "that it owns only"},
		{"single given to the controller", "n1", "UPDATE", "danm.io/ipblocks", "", ipb("Single", "", ""), ipb("Single", "n1", ""), "that it owns only"},
		{"own single parked with another reservation", "n1", "UPDATE", "danm.io/ipblocks", "", ipb("Single", "", kept), ipb("Single", "n1", strings.Replace(kept, "web", "other", 1)), "that it owns only"},
		{"block with Pods from before", "n1", "CREATE", "danm.io/ipblocks", "", ipb("Block", "n1", ", held: [{address: 10.0.0.1}]"), "", "taken for what it is not"},
		{"Pods from before added", "n1", "UPDATE", "danm.io/ipblocks", "", ipb("Block", "n1", ", held: [{address: 10.0.0.1}]"), ipb("Block", "n1", ""), "taken for what it is not"},
		{"single that cedes", "n1", "CREATE", "danm.io/ipblocks", "", ipb("Single", "n1", ", ceded: [{address: 10.0.0.1, uid: u}]"), "", "taken for what it is not"},
		{"labelled as another's", "n1", "CREATE", "danm.io/ipblocks", "", strings.Replace(ipb("Block", "n1", ""), `owner: "n1"`, `owner: "n2"`, 1), "", "taken for what it is not"},
		{"without the owner's label", "n1", "CREATE", "danm.io/ipblocks", "", strings.Replace(ipb("Block", "n1", ""), `danm.io/owner: "n1"`, `x: y`, 1), "", "taken for what it is not"},
		{"labelled as another's later", "n1", "UPDATE", "danm.io/ipblocks", "", strings.Replace(ipb("Block", "n1", ""), `owner: "n1"`, `owner: "n2"`, 1), ipb("Block", "n1", ""), "taken for what it is not"},
		{"labelled as asking another", "n1", "CREATE", "danm.io/ipblocks", "", strings.Replace(ipb("Single", "n1", ", asked: n2"), "danm.io/asked: n2", "danm.io/asked: n3", 1), "", "taken for what it is not"},
		{"labelled as asking", "n1", "CREATE", "danm.io/ipblocks", "", strings.Replace(ipb("Block", "n1", ""), "{danm.io", "{danm.io/asked: n3, danm.io", 1), "", "taken for what it is not"},
		{"reservation changed", "n1", "UPDATE", "danm.io/ipblocks", "", ipb("Single", "n1", strings.Replace(kept, "web", "other", 1)), ipb("Single", "", kept), "that it owns only"},
		{"reservation taken as a block", "n1", "UPDATE", "danm.io/ipblocks", "", ipb("Block", "n1", kept), ipb("Single", "", kept), "that it owns only"},
		{"reservation taken with a list", "n1", "UPDATE", "danm.io/ipblocks", "", ipb("Single", "n1", kept+", ceded: [{address: 10.0.0.1, uid: u}]"), ipb("Single", "", kept), "that it owns only"},
		{"reservation of a live one taken", "n1", "UPDATE", "danm.io/ipblocks", "", ipb("Single", "n1", kept), ipb("Single", "n2", kept), "that it owns only"},
		{"reservation taken for another", "n1", "UPDATE", "danm.io/ipblocks", "", ipb("Single", "n2", kept), ipb("Single", "", kept), "that it owns only"},
		{"orphan taken", "n1", "UPDATE", "danm.io/ipblocks", "", ipb("Block", "n1", ""), ipb("Block", "", ""), "that it owns only"},
		{"own block given back", "n1", "DELETE", "danm.io/ipblocks", "", "", ipb("Block", "n1", ""), ""},
		{"another's block deleted", "n1", "DELETE", "danm.io/ipblocks", "", "", ipb("Block", "n2", ""), "that it owns only"},
		{"orphan deleted", "n1", "DELETE", "danm.io/ipblocks", "", "", ipb("Block", "", ""), "that it owns only"},
		{"root deleted", "n1", "DELETE", "danm.io/ipblocks", "", "", ipb("Root", "", ""), "that it owns only"},
		{"asker answered", "n1", "UPDATE", "danm.io/ipblocks", "status", ipb("Single", "n2", ", asked: n1"), ipb("Single", "n2", ", asked: n1"), ""},
		{"another's asker answered", "n1", "UPDATE", "danm.io/ipblocks", "status", ipb("Single", "n2", ", asked: n3"), ipb("Single", "n2", ", asked: n3"), "answers who asked it"},
		{"own single answered", "n1", "UPDATE", "danm.io/ipblocks", "status", ipb("Single", "n1", ", asked: n3"), ipb("Single", "n1", ", asked: n3"), "answers who asked it"},
		{"the controller's asker answered", "n1", "UPDATE", "danm.io/ipblocks", "status", ipb("Single", "n2", ""), ipb("Single", "n2", ""), "answers who asked it"},
		{"asked made up on the way", "n1", "UPDATE", "danm.io/ipblocks", "status", ipb("Single", "n2", ", asked: n1"), ipb("Single", "n2", ", asked: n3"), "answers who asked it"},
		{"root's hints", "n1", "UPDATE", "danm.io/ipblocks", "status", ipb("Root", "", ""), ipb("Root", "", ""), "answers who asked it"},
		{"status of an own block", "n1", "UPDATE", "danm.io/ipblocks", "status", ipb("Block", "n1", ", asked: n1"), ipb("Block", "n1", ", asked: n1"), "answers who asked it"},
		{"network-status", "n1", "UPDATE", "pods", "status", pod("n1", "annotations: {"+status+": x, k: v}"), pod("n1", "annotations: {k: v}"), ""},
		{"first annotation", "n1", "UPDATE", "pods", "status", pod("n1", "annotations: {"+status+": x}"), pod("n1", ""), ""},
		{"other Pod", "n1", "UPDATE", "pods", "status", pod("n2", "annotations: {"+status+": x}"), pod("n2", ""), "own Pods only"},
		{"unscheduled Pod", "n1", "UPDATE", "pods", "status", "metadata: {name: p}\nspec: {}", "metadata: {name: p}\nspec: {}", "own Pods only"},
		{"another annotation", "n1", "UPDATE", "pods", "status", pod("n1", "annotations: {k: w}"), pod("n1", "annotations: {k: v}"), "nothing else"},
		{"one annotation less", "n1", "UPDATE", "pods", "status", pod("n1", ""), pod("n1", "annotations: {k: v}"), "nothing else"},
		{"a finalizer", "n1", "UPDATE", "pods", "status", pod("n1", "finalizers: [x]"), pod("n1", ""), "nothing else"},
		{"the phase", "n1", "UPDATE", "pods", "status", strings.Replace(pod("n1", ""), "Running", "Failed", 1), pod("n1", ""), "nothing else"},
		{"the Pod itself", "n1", "UPDATE", "pods", "", pod("n1", ""), pod("n1", ""), "does not write pods"},
		{"exec", "n1", "CONNECT", "pods", "exec", "{}", "", "does not write pods/exec"},
		{"event", "n1", "CREATE", "events.k8s.io/events", "", "{regarding: {kind: NodePlan, name: n1}}", "", ""},
		{"event of a Pod", "n1", "CREATE", "events.k8s.io/events", "", "{regarding: {kind: Pod, name: p}, reportingInstance: n1}", "", ""},
		{"event as another", "n1", "CREATE", "events.k8s.io/events", "", "{regarding: {kind: Pod, name: p}, reportingInstance: n2}", "", "tells of itself"},
		{"event of another", "n1", "CREATE", "events.k8s.io/events", "", "{regarding: {kind: Node, name: n2}, reportingInstance: n1}", "", "tells of itself"},
		{"event of nothing", "n1", "CREATE", "events.k8s.io/events", "", "{reportingInstance: n2}", "", "tells of itself"},
		{"another's event changed", "n1", "UPDATE", "events.k8s.io/events", "", "{regarding: {kind: Node, name: n1}}", "{regarding: {kind: Node, name: n2}}", "tells of itself"},
	} {
		group, resource, ok := strings.Cut(c.resource, "/")
		if !ok {
			group, resource = "", c.resource
		}
		in := map[string]any{"object": read(c.object), "oldObject": read(c.old)}
		name := ""
		for _, o := range []string{"object", "oldObject"} {
			if meta, ok := in[o].(map[string]any)["metadata"].(map[string]any); ok && name == "" {
				name, _ = meta["name"].(string)
			}
		}
		extra := map[string]any{"authentication.kubernetes.io/node-name": []string{c.token}}
		if c.token == "" {
			extra = map[string]any{}
		}
		request := map[string]any{
			"operation": c.operation, "name": name, "namespace": "danm-system", "subResource": c.sub, "resource": map[string]any{"group": group, "resource": resource},
			"userInfo": map[string]any{"username": "system:serviceaccount:danm-system:danm-node", "extra": extra},
		}
		for key, value := range request { // the API server leaves out what is empty
			if value == "" {
				delete(request, key)
			}
		}
		if c.token == "" {
			delete(request["userInfo"].(map[string]any), "extra")
		}
		in["request"] = request
		got := p.refuses(t, in)
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		for user, is := range map[string]bool{"system:serviceaccount:danm-system:danm-node": true, "system:node:n1": false} {
			in["request"].(map[string]any)["userInfo"] = map[string]any{"username": user}
			if match, _, err := p.programs[""].Eval(in); err != nil || match.Value() != is {
				t.Errorf("%s: matches %v, %v", user, match, err)
			}
		}
	}
}
