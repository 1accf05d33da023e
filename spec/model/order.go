package model

import "cmp"

// CompareRoutes is the order of routes in a plan: by table, destination and metric, then by everything else.
func CompareRoutes(a, b Route) int {
	return cmp.Or(cmp.Compare(a.Table, b.Table), a.To.Addr().Compare(b.To.Addr()), cmp.Compare(a.To.Bits(), b.To.Bits()),
		cmp.Compare(a.Metric, b.Metric), a.Via.Compare(b.Via), cmp.Compare(a.Dev, b.Dev))
}

// CompareRules is the order of rules in a plan: by priority and family, then by everything else.
func CompareRules(a, b Rule) int {
	return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Family, b.Family),
		a.From.Addr().Compare(b.From.Addr()), cmp.Compare(a.From.Bits(), b.From.Bits()), a.To.Addr().Compare(b.To.Addr()), cmp.Compare(a.To.Bits(), b.To.Bits()),
		cmp.Compare(a.IIF, b.IIF), cmp.Compare(a.OIF, b.OIF), cmp.Compare(a.Mark, b.Mark), cmp.Compare(a.Mask, b.Mask), cmp.Compare(a.Table, b.Table))
}
