package render

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/netip"

	"danm.io/danm/spec/model"
)

// encoding is a class's plan as canonical JSON (model.NodePlan.Digest hashes the same bytes), cut where nodes differ.
// Encoding 5,000 plans of 50 links one by one costs seconds; patching a shared text costs a hash.
type encoding []part

// part is fixed text, or (if text is nil) what the node puts there.
type part struct {
	text  []byte
	link  int     // own addresses: index into class.links
	local *domain // otherwise: the node's address in this domain
	open  []byte  // text around the address, written only if there is one
	close []byte
}

// marker stands where a node's own VXLAN source goes. As a bare JSON string value it cannot come from a bundle's text.
var marker = netip.MustParseAddr("255.255.255.255")

func encode(c *class) encoding {
	var e encoding
	fixed := func(b []byte) {
		if n := len(e); n > 0 && e[n-1].text != nil {
			e[n-1].text = append(e[n-1].text, b...)
			return
		}
		e = append(e, part{text: bytes.Clone(b)})
	}
	fixed([]byte(`{`))
	for i := range c.links {
		fixed([]byte(map[bool]string{true: `"links":[`, false: `,`}[i == 0]))
		s := &c.links[i]
		switch {
		case s.own:
			e = append(e, part{link: i})
		case s.domain != nil:
			head, tail := splitLocal(s.Link)
			fixed(head)
			e = append(e, part{local: s.domain, open: []byte(`,"local":"`), close: []byte(`"`)})
			fixed(tail)
		default:
			fixed(mustJSON(s.Link))
		}
	}
	separator := ""
	if len(c.links) > 0 {
		fixed([]byte(`]`))
		separator = ","
	}
	list := func(name string, length int, v any) {
		if length > 0 {
			fixed([]byte(separator + `"` + name + `":`))
			fixed(mustJSON(v))
			separator = ","
		}
	}
	list("routes", len(c.routes), c.routes)
	list("rules", len(c.rules), c.rules)
	list("sysctls", len(c.sysctls), c.sysctls)
	list("pools", len(c.pools), c.pools)
	fixed([]byte(`}`))
	return e
}

// splitLocal encodes a VXLAN link without its source and says where the source would stand.
func splitLocal(l model.Link) (head, tail []byte) {
	options := *l.VXLAN
	options.Local = marker
	l.VXLAN = &options
	head, tail, found := bytes.Cut(mustJSON(l), []byte(`,"local":"`+marker.String()+`"`))
	if !found {
		panic("render: a VXLAN link's JSON has no local address after its VNI and port")
	}
	return head, tail
}

// digest is NodePlan.Digest of the class's plan with the node's own links and addresses.
func (e encoding) digest(links []model.Link, node int) string {
	h := sha256.New()
	var buf []byte
	for _, p := range e {
		switch {
		case p.text != nil:
			h.Write(p.text)
		case p.local == nil:
			h.Write(mustJSON(links[p.link]))
		default:
			if a, ok := p.local.local[node]; ok {
				buf = append(a.AppendTo(append(buf[:0], p.open...)), p.close...)
				h.Write(buf)
			}
		}
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil { // plain data: a failure is a programming error
		panic("render: does not marshal: " + err.Error())
	}
	return b
}
