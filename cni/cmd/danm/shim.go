package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"danm.io/danm/cni/wire"
	"github.com/containernetworking/cni/pkg/types"
)

var supported = []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"}

// newest stands in answers to callers whose version we do not know.
const newest = "1.1.0"

// conf is all that the shim needs to know; the agent reads the rest.
type conf struct {
	CNIVersion string `json:"cniVersion"`
	Name       string `json:"name"`
	Type       string `json:"type"`
	Socket     string `json:"socket"`
	// IPAM is ours when another plugin has called danm or fakeipam as its IPAM; in other configurations it can be anything.
	IPAM json.RawMessage `json:"ipam"`
}

type invocation struct {
	req  wire.Request
	conf conf
}

// read takes the call from environment and standard input.
func read(o options) (c invocation, failure *types.Error) {
	c.req = wire.Request{
		Command: o.getenv("CNI_COMMAND"), ContainerID: o.getenv("CNI_CONTAINERID"), Netns: o.getenv("CNI_NETNS"),
		IfName: o.getenv("CNI_IFNAME"), Args: o.getenv("CNI_ARGS"), Path: o.getenv("CNI_PATH"),
	}
	if failure = checkEnvironment(c.req); failure != nil {
		return c, failure
	}
	stdin, err := readAll(o.stdin)
	switch {
	case err != nil:
		return c, types.NewError(types.ErrIOFailure, "read the network configuration: "+err.Error(), "")
	case len(stdin) > wire.MaxStdin:
		return c, types.NewError(types.ErrInvalidNetworkConfig, "the network configuration is over 1 MiB", "ConfInvalid")
	}
	if c.req.Command == "VERSION" {
		_ = json.Unmarshal(stdin, &c.conf) // VERSION must be answered whatever it was asked with
		return c, nil
	}
	if err := json.Unmarshal(stdin, &c.conf); err != nil {
		return c, types.NewError(types.ErrDecodingFailure, "decode the network configuration: "+err.Error(), "ConfInvalid")
	}
	c.req.Stdin = stdin
	if section := c.conf.ipamSection(); c.conf.Type != "danm" && section.Type == "danm" {
		c.conf.Socket = section.Socket // the other one is that plugin's, if it has a key of this name
	}
	if isFake(o.name, c.conf) && c.req.Command != "ADD" {
		return c, nil
	}
	return c, checkConf(&c.conf)
}

// readAll reads one byte more than is allowed, so that the caller can tell. A terminal is not read: somebody is looking.
func readAll(r io.Reader) ([]byte, error) {
	if f, ok := r.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			return nil, nil
		}
	}
	return io.ReadAll(io.LimitReader(r, wire.MaxStdin+1))
}

// needs lists the variables each command must have (CNI specification, section 2, "Parameters").
var needs = map[string][]string{
	"ADD": {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"}, "CHECK": {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"},
	"DEL": {"CNI_CONTAINERID", "CNI_IFNAME"}, "GC": nil, "STATUS": nil, "VERSION": nil,
}

func checkEnvironment(r wire.Request) *types.Error {
	needed, known := needs[r.Command]
	if !known {
		return types.NewError(types.ErrInvalidEnvironmentVariables, "CNI_COMMAND is none of ADD, DEL, CHECK, GC, STATUS, VERSION: "+quote(r.Command),
			"danm "+version+" is a CNI plugin for versions "+strings.Join(supported, ", ")+"; a container runtime calls it")
	}
	have := map[string]string{"CNI_CONTAINERID": r.ContainerID, "CNI_NETNS": r.Netns, "CNI_IFNAME": r.IfName}
	for _, name := range needed {
		if have[name] == "" {
			return types.NewError(types.ErrInvalidEnvironmentVariables, name+" is missing, "+r.Command+" needs it", "")
		}
	}
	return nil
}

func checkConf(c *conf) *types.Error {
	switch {
	case !slices.Contains(supported, c.CNIVersion):
		return types.NewError(types.ErrIncompatibleCNIVersion, "cniVersion "+quote(c.CNIVersion)+" is not supported", "supported: "+strings.Join(supported, ", "))
	case c.Name == "":
		return types.NewError(types.ErrInvalidNetworkConfig, "the network configuration has no name", "ConfInvalid")
	case c.Socket == "":
		c.Socket = wire.DefaultSocket
	case !filepath.IsAbs(c.Socket):
		return types.NewError(types.ErrInvalidNetworkConfig, "socket "+quote(c.Socket)+" is a relative path", "ConfSocketRelative")
	}
	return nil
}

func quote(s string) string {
	if len(s) > 128 {
		s = s[:128] + "..."
	}
	b, _ := json.Marshal(s)
	return string(b)
}

// call asks the agent.
func call(o options, c invocation) (out []byte, failure *types.Error) {
	netns, err := openNetns(c.req)
	if err != nil {
		return nil, types.NewError(types.ErrInvalidNetNS, "open the network namespace: "+err.Error(), "PodNetnsInvalid")
	}
	if netns >= 0 {
		defer func() { _ = syscall.Close(netns) }()
	}
	wait := o.wait
	if c.req.Command == "STATUS" { // asked every few seconds, and it has an answer for an agent that is away
		wait = min(wait, 500*time.Millisecond)
	}
	resp, err := wire.Call(time.Now().Add(o.limit), c.conf.Socket, wait, c.req, netns)
	switch {
	case err == nil:
		return resp.Result, resp.Error
	case c.req.Command == "STATUS" && errors.Is(err, wire.ErrAway):
		return nil, statusWhenAway(c.conf.Socket, err)
	}
	return nil, types.NewError(types.ErrTryAgainLater, "danm's agent: "+err.Error(), "socket "+c.conf.Socket)
}

// openNetns opens CNI_NETNS, -1 for none. DEL goes on without it: the namespace may be gone already, the rest must go all the same.
func openNetns(r wire.Request) (int, error) {
	if r.Netns == "" || r.Command == "STATUS" || r.Command == "GC" {
		return -1, nil
	}
	fd, err := syscall.Open(r.Netns, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0) // a FIFO must not hold the call
	switch {
	case err == nil:
		return fd, nil
	case r.Command == "DEL":
		return -1, nil
	}
	return -1, &os.PathError{Op: "open", Path: r.Netns, Err: err}
}

func statusWhenAway(socket string, away error) *types.Error {
	if info, err := os.Stat(socket); err == nil && time.Since(info.ModTime()) < wire.AliveFor {
		return nil
	}
	return types.NewError(types.ErrPluginNotAvailable, "danm's agent: "+away.Error(), "socket "+socket)
}

// versions answers VERSION with the asked version where it can be spoken.
func versions(asked string) []byte {
	if !slices.Contains(supported, asked) {
		asked = newest
	}
	b, _ := json.Marshal(struct {
		CNIVersion        string   `json:"cniVersion"`
		SupportedVersions []string `json:"supportedVersions"`
	}{asked, supported})
	return append(b, '\n')
}

func printError(asked string, e *types.Error) []byte {
	if !slices.Contains(supported, asked) {
		asked = newest
	}
	b, _ := json.MarshalIndent(struct {
		CNIVersion string `json:"cniVersion"`
		types.Error
	}{asked, *e}, "", "    ")
	return append(b, '\n')
}
