//go:build tools

// Package modules pins the test bed's etcd.
package modules

import _ "go.etcd.io/etcd/server/v3"
