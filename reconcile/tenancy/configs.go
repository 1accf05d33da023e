package tenancy

import (
	"fmt"
	"slices"
	"strings"

	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/tenancy"
)

// ConfigVerdict is what became of a TenantConfig.
type ConfigVerdict struct {
	Name     string
	Problem  diag.Code // "" if Ready
	Message  string
	Overlaps string // what its ranges overlap with, "" if with nothing
}

// judgeConfigs says of every TenantConfig whether it can be used as it is.
func (s *state) judgeConfigs() []ConfigVerdict {
	waiting := map[string]int{}
	for _, v := range s.out.Verdicts {
		if v.Status != "True" {
			for _, c := range s.configs(v.Network.Namespace) {
				waiting[c.Name]++
			}
		}
	}
	var out []ConfigVerdict
	for i := range s.in.Configs {
		c := &s.in.Configs[i]
		v := ConfigVerdict{Name: c.Name, Message: fmt.Sprintf("%d networks have a device or number, %d were refused one", len(s.reserved[c.Name]), waiting[c.Name]), Overlaps: s.overlaps(c)}
		for _, p := range s.profilesOf(c) {
			if p.broken != nil {
				v.Problem, v.Message = diag.RangeInvalid, strings.ReplaceAll(p.broken.Error(), "\n", "; ")+"; nothing of it is given out"
			}
		}
		if v.Problem == "" {
			if code, why := s.defaultNetwork(c); code != "" {
				v.Problem, v.Message = code, why
			}
		}
		out = append(out, v)
	}
	return out
}

// overlaps names the TenantConfigs that may give out the same number on the same device.
func (s *state) overlaps(c *danmv1.TenantConfig) string {
	var out []string
	for i := range s.in.Configs {
		o := &s.in.Configs[i]
		if o.Name == c.Name {
			continue
		}
		for _, p := range s.profilesOf(c) {
			for _, q := range s.profilesOf(o) {
				if at := common(p, q); at != 0 {
					out = append(out, fmt.Sprintf("%s (%s from %d on %s)", o.Name, p.VniType, at, p.Name))
				}
			}
		}
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), ", ")
}

// common is the lowest id that two profiles of one device both have, 0 if none.
func common(p, q *profile) uint32 {
	if p.Name != q.Name || p.VniType != q.VniType {
		return 0
	}
	for _, a := range p.ranges {
		for _, b := range q.ranges {
			if first := max(a.First, b.First); first <= min(a.Last, b.Last) {
				return first
			}
		}
	}
	return 0
}

// defaultNetwork says what is wrong with what Pods get that ask for nothing.
func (s *state) defaultNetwork(c *danmv1.TenantConfig) (diag.Code, string) {
	if c.Extension == nil || c.Extension.DefaultNetwork == "" {
		return "", ""
	}
	name := c.Extension.DefaultNetwork
	var spec *danmv1.NetworkSpec
	if namespace, in, ok := strings.Cut(name, "/"); ok {
		for i := range s.in.Networks {
			if n := &s.in.Networks[i]; n.Namespace == namespace && n.Name == in {
				spec = &n.Spec
			}
		}
		for i := range s.in.Danm {
			if n := &s.in.Danm[i]; n.Namespace == namespace && n.Name == in && spec == nil {
				spec = &n.Spec
			}
		}
		if spec != nil && !s.speaks(c.Name, namespace) {
			return diag.DefaultNotAllowed, fmt.Sprintf("default network %s: namespace %s is not the tenant's", name, namespace)
		}
	} else {
		for i := range s.in.Cluster {
			if s.in.Cluster[i].Name == name {
				spec = &s.in.Cluster[i].Spec
			}
		}
		if spec != nil && len(spec.AllowedTenants) > 0 {
			for _, namespace := range namespaces(c) {
				if !slices.Contains(spec.AllowedTenants, namespace) {
					return diag.DefaultNotAllowed, fmt.Sprintf("default network %s: its AllowedTenants do not have namespace %s", name, namespace)
				}
			}
		}
	}
	if spec == nil {
		return diag.DefaultMissing, fmt.Sprintf("default network %s does not exist", name)
	}
	if kind := strings.ToLower(spec.NetworkType); kind == "sriov" || kind == "host-device" || spec.Extension != nil && spec.Extension.Native {
		return diag.DefaultUnfit, fmt.Sprintf("default network %s is of type %s, which Pods that ask for nothing cannot all have", name, kind)
	}
	return "", ""
}

// namespaces that a TenantConfig names, by list or by label.
func namespaces(c *danmv1.TenantConfig) []string {
	if list := tenancy.Namespaces(c); len(list) > 0 {
		return list
	}
	if tenant, ok := c.Labels[danmv1.LabelTenant]; ok {
		return []string{tenant}
	}
	return nil
}
