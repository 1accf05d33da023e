package graph_test

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"danm.io/danm/reconcile/graph"
	"danm.io/danm/render"
	"danm.io/danm/render/rendertest"
	"danm.io/danm/spec/model"
)

const hostile = "a\"]<script>&|b\x1b[31m#\n--\\"

func site() (nodes []model.NodeState, networks []model.Network, tenants []model.Tenant) {
	v4 := &model.Subnet{CIDR: netip.MustParsePrefix("10.0.0.0/24")}
	networks = []model.Network{
		{Kind: model.ClusterNetwork, Name: "all", Type: model.MACVLAN, HostDevice: "eth0", IPv4: v4},
		{Kind: model.ClusterNetwork, Name: "some", Type: model.SRIOV, DevicePool: "danm.io/fast", VLAN: 7, AllowedNamespaces: []string{"acme", "loose"}},
		{Kind: model.TenantNetwork, Namespace: "acme", Name: "own", Type: model.IPVLAN, Fabric: "edge", VXLAN: true, VNI: 5001},
		{Kind: model.TenantNetwork, Namespace: "loose", Name: "plug", Type: "flannel", Delegate: &model.Delegate{File: "f"}},
	}
	tenants = []model.Tenant{{Name: "t", Namespaces: []string{"acme"}, DefaultNetwork: "acme/own"}, {Name: hostile, Namespaces: []string{"x"}}}
	for i := range 6 {
		nodes = append(nodes, model.NodeState{Node: fmt.Sprintf("n%d", i), Networks: networks})
	}
	nodes[5].Networks = networks[:1]
	return nodes, networks, tenants
}

func TestWhoIsConnected(t *testing.T) {
	nodes, networks, tenants := site()
	g := graph.Build("site", nodes, networks, tenants)
	var edges []string
	for _, e := range g.Edges {
		edges = append(edges, e.From+" -> "+e.To+" "+e.Label)
	}
	slices.Sort(edges)
	want := []string{
		"device eth0 -> network all untagged", "fabric edge -> network acme/own VNI 5001",
		"network acme/own -> tenant t default", "network all -> everyone ", "network loose/plug -> namespace loose ",
		"network some -> namespace loose ", "network some -> tenant t ",
		"node n0 -> device eth0 ", "node n0 -> fabric edge ", "node n0 -> plugin flannel ", "node n0 -> pool danm.io/fast ", "node n5 -> device eth0 ",
		"plugin flannel -> network loose/plug ", "pool danm.io/fast -> network some VLAN 7",
	}
	if !slices.Equal(edges, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(edges, "\n"), strings.Join(want, "\n"))
	}
	i := slices.IndexFunc(g.Boxes, func(b graph.Box) bool { return b.ID == "node n0" })
	if !slices.Equal(g.Boxes[i].Lines, []string{"n0, n1, n2", "and 2 more alike"}) {
		t.Errorf("alike nodes: %q", g.Boxes[i].Lines)
	}
}

// rect is a box as an SVG reader sees it.
type rect struct{ x, y, w, h int }

// readSVG parses the image and returns its size, its boxes and all of its text.
func readSVG(t *testing.T, svg string) (width, height int, boxes []rect, text string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(svg))
	number := func(e xml.StartElement, name string) int {
		for _, a := range e.Attr {
			if a.Name.Local == name {
				n, _ := strconv.Atoi(a.Value)
				return n
			}
		}
		return 0
	}
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return width, height, boxes, text
		}
		if err != nil {
			t.Fatalf("no XML: %v", err)
		}
		switch e := token.(type) {
		case xml.StartElement:
			switch e.Name.Local {
			case "svg":
				width, height = number(e, "width"), number(e, "height")
			case "script", "foreignObject", "image", "a":
				t.Errorf("element %s", e.Name.Local)
			case "rect":
				if r := (rect{number(e, "x"), number(e, "y"), number(e, "width"), number(e, "height")}); r.w > 0 {
					boxes = append(boxes, r)
				}
			}
		case xml.CharData:
			text += string(e)
		}
	}
}

func TestSVG(t *testing.T) {
	big := rendertest.Scale(rendertest.Shape{Nodes: 50, Groups: 5, Networks: 60, Tenants: 9})
	r := render.Render(big, model.Inventory{})
	nodes, networks, tenants := site()
	for _, g := range []graph.Graph{graph.Build(hostile, nodes, networks, tenants), graph.Build("big", r.Nodes, r.Networks, big.Tenants), graph.Build("empty", nil, nil, nil)} {
		svg := g.SVG()
		width, height, boxes, text := readSVG(t, svg)
		if len(boxes) != len(g.Boxes) {
			t.Errorf("%d boxes drawn of %d", len(boxes), len(g.Boxes))
		}
		for i, a := range boxes {
			if a.x < 0 || a.y < 0 || a.x+a.w > width || a.y+a.h > height {
				t.Errorf("box %v is outside of %dx%d", a, width, height)
			}
			for _, b := range boxes[i+1:] {
				if a.x < b.x+b.w && b.x < a.x+a.w && a.y < b.y+b.h && b.y < a.y+a.h {
					t.Errorf("boxes %v and %v overlap", a, b)
				}
			}
		}
		for _, b := range g.Boxes {
			if name := strings.Map(printable, b.Lines[0]); !strings.Contains(text, name) {
				t.Errorf("%q is not in the picture", name)
			}
		}
		if svg != g.SVG() || strings.ContainsRune(svg, 0x1b) {
			t.Error("not the same twice, or a control character")
		}
	}
}

func printable(r rune) rune {
	if r < ' ' && r != '\n' {
		return -1
	}
	return r
}

// Names from a bundle never become syntax of the text formats.
func TestTextFormats(t *testing.T) {
	nodes, networks, tenants := site()
	g := graph.Build(hostile, nodes, networks, tenants)
	for _, line := range strings.Split(strings.TrimSpace(g.Mermaid()), "\n")[1:] {
		line = strings.TrimSpace(line)
		inside := strings.Count(line, `"`)
		if line == "end" || strings.HasPrefix(line, "b") && !strings.Contains(line, `"`) {
			continue
		}
		if inside != 2 || strings.ContainsAny(line[strings.Index(line, `"`)+1:strings.LastIndex(line, `"`)], "<>&\x00") && !strings.Contains(line, "<br/>") || strings.Contains(line, "<script") {
			t.Errorf("mermaid: %s", line)
		}
	}
	dot := g.Dot()
	if unescaped := strings.Count(strings.ReplaceAll(strings.ReplaceAll(dot, `\\`, ""), `\"`, ""), `"`); unescaped%2 != 0 || strings.Count(dot, "\n") != len(strings.Split(dot, "\n"))-1 {
		t.Errorf("dot: %d quotes", unescaped)
	}
	for _, b := range g.Boxes {
		if b.Column == graph.Networks && !strings.Contains(dot, b.Lines[0]) {
			t.Errorf("dot lacks %s", b.Lines[0])
		}
	}
}
