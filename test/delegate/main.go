// Command delegate is a CNI plugin for tests. It makes no link: it asks the IPAM plugin of its configuration for addresses, as
// macvlan and others do, and prints an interface with them.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

func main() {
	if err := run(); err != nil {
		e, ok := err.(*types.Error)
		if !ok {
			e = types.NewError(types.ErrInternal, err.Error(), "")
		}
		_ = e.Print()
		os.Exit(1)
	}
}

func run() error {
	stdin, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	var conf types.NetConf
	if err := json.Unmarshal(stdin, &conf); err != nil {
		return fmt.Errorf("decode configuration: %w", err)
	}
	ctx := context.Background()
	switch command := os.Getenv("CNI_COMMAND"); command {
	case "ADD":
		return add(ctx, conf, stdin)
	case "DEL":
		return invoke.DelegateDel(ctx, conf.IPAM.Type, stdin, nil)
	case "CHECK":
		return invoke.DelegateCheck(ctx, conf.IPAM.Type, stdin, nil)
	case "VERSION":
		fmt.Println(`{"cniVersion":"1.1.0","supportedVersions":["0.3.1","0.4.0","1.0.0","1.1.0"]}`)
		return nil
	default:
		return fmt.Errorf("command %q", command)
	}
}

func add(ctx context.Context, conf types.NetConf, stdin []byte) error {
	given, err := invoke.DelegateAdd(ctx, conf.IPAM.Type, stdin, nil)
	if err != nil {
		return err
	}
	r, err := types100.NewResultFromResult(given)
	if err != nil {
		return fmt.Errorf("result of the IPAM plugin: %w", err)
	}
	r.Interfaces = []*types100.Interface{{Name: os.Getenv("CNI_IFNAME"), Sandbox: os.Getenv("CNI_NETNS")}}
	for _, ip := range r.IPs {
		ip.Interface = types100.Int(0)
	}
	return types.PrintResult(r, conf.CNIVersion)
}
