package server

import (
	"context"
	"errors"
	"testing"

	"danm.io/danm/ipam"
	"danm.io/danm/spec/model"
)

// Only sticky networks of the cluster home ask whose a Pod is, and an answer that cannot be had fails the ADD.
func TestOwnerIsAskedForStickyNetworksOnly(t *testing.T) {
	who := ipam.Sticky{Namespace: "acme", StatefulSet: "web", UID: "u", Ordinal: 2}
	for _, c := range []struct {
		home   model.Home
		sticky bool
		fails  bool
		want   ipam.Sticky
	}{
		{model.ClusterHome, true, false, who}, {model.ClusterHome, false, false, ipam.Sticky{}}, {model.LocalHome, true, false, ipam.Sticky{}},
		{model.ClusterHome, true, true, ipam.Sticky{}}, {model.ClusterHome, false, true, ipam.Sticky{}},
	} {
		s := &Server{opts: Options{Owner: func(context.Context, string, string, string) (ipam.Sticky, error) {
			if c.fails {
				return ipam.Sticky{}, errors.New("the API is away")
			}
			return who, nil
		}}}
		p := choice{state: model.NodeState{Home: c.home}, items: []chosen{{network: model.Network{Sticky: c.sticky}, ifName: "eth0"}, {ifName: "eth1"}}}
		got, err := s.owner(t.Context(), call{}, p)
		if (err != nil) != (c.fails && c.sticky) {
			t.Fatalf("%+v: %v", c, err)
		}
		p.owner = got
		if w := p.wants(); w[0].Sticky != c.want || w[1].Sticky != (ipam.Sticky{}) {
			t.Errorf("%+v: %+v", c, w)
		}
	}
}
