// danm-node runs DANM on one node: `guard` changes the kernel, `agent` drives it and attaches Pods.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"danm.io/danm/node/agent"
	"danm.io/danm/node/guard"
)

var version = "devel" // set by the build

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "danm-node:", err)
		os.Exit(1)
	}
}

// common are the flags of every subcommand.
type common struct{ stateDir, sysRoot, logFormat, logLevel string }

func command() *cobra.Command {
	c := &common{}
	root := &cobra.Command{Use: "danm-node", Short: "DANM on one node", Version: version, SilenceUsage: true, SilenceErrors: true}
	root.RunE = func(*cobra.Command, []string) error { return errors.New("no command given; see danm-node --help") }
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	f := root.PersistentFlags()
	f.StringVar(&c.stateDir, "state-dir", "/var/lib/danm", "state directory of this node")
	f.StringVar(&c.sysRoot, "sys-root", "/", "where the host's /proc and /sys are found")
	f.StringVar(&c.logFormat, "log-format", "text", "text or json")
	f.StringVar(&c.logLevel, "log-level", "info", "debug, info, warn or error")
	root.AddCommand(agentCommand(c), guardCommand(c), installCommand(), uninstallCommand(), statusCommand(c), restoreCommand(c), retryCommand(c),
		simple("pause", "no further kernel writes until resume", "paused: a window that is open still ends, nothing else is written", func(ctx context.Context) error { return guard.Client{Dir: c.stateDir}.Pause(ctx) }),
		simple("resume", "kernel writes again after pause", "resumed", func(ctx context.Context) error { return guard.Client{Dir: c.stateDir}.Resume(ctx) }))
	return root
}

func agentCommand(c *common) *cobra.Command {
	o := agent.Settings{}
	var kubeconfig string
	cmd := &cobra.Command{Use: "agent", Short: "drive the guard and attach Pods", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		o.StateDir, o.SysRoot = c.stateDir, c.sysRoot
		log, err := c.logger()
		if err != nil {
			return err
		}
		k, err := c.kernel()
		if err != nil {
			return err
		}
		if o.API, err = apiConfig(kubeconfig); err != nil {
			return err
		}
		debug.SetGCPercent(50) // many ADDs at once make garbage for a moment, and memory is scarcer on a node than time
		return agent.Main(cmd.Context(), o, k, log)
	}}
	f := cmd.Flags()
	f.StringVar(&o.Node, "node-name", "", "name of this node in the bundle (required)")
	f.StringVar(&o.Socket, "socket", "/run/danm/cni.sock", "socket for the CNI binary")
	f.StringVar(&o.CNIConfDir, "cni-conf-dir", "/etc/cni/net.d", "where the CNI conf is written once ready, \"\" = nowhere")
	f.StringSliceVar(&o.CNIBinDirs, "cni-bin-dir", []string{"/opt/cni/bin"}, "where CNI plugins stand on the host: those of networks that name one, and our own, which uninstall removes")
	f.StringVar(&kubeconfig, "kubeconfig", "", "cluster home: kubeconfig file, or in-cluster for the Pod's service account; \"\" = local home, danmctl sync writes the state")
	f.StringVar(&o.Namespace, "namespace", "danm-system", "cluster home: namespace of the node's Lease")
	f.StringVar(&o.CRISocket, "cri-socket", "", "socket of the container runtime, \"\" = containerd's or CRI-O's below --sys-root, none = it is not asked")
	f.StringVar(&o.Resources, "pod-resources-socket", "", "cluster home: socket of the kubelet that tells which devices Pods have, \"\" = the one in /var/lib/kubelet, none = it is not asked")
	f.StringVar(&o.DevicePlugins, "device-plugin-dir", "", "directory of the kubelet's device plugins, where SR-IOV pools are offered, \"\" = the one in /var/lib/kubelet in the cluster home and none in the local one, none = nothing is offered")
	f.BoolVar(&o.Probe, "probe-addresses", false, "ask the network for each address before a Pod gets it; an ADD takes 0.3 s longer")
	f.StringVar(&o.MetricsAddr, "metrics-addr", "127.0.0.1:9970", "address of /metrics, /healthz and /readyz, 0 = off")
	_ = cmd.MarkFlagRequired("node-name")
	return cmd
}

func guardCommand(c *common) *cobra.Command {
	return &cobra.Command{Use: "guard", Short: "apply plans, confirmed or reverted", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		log, err := c.logger()
		if err != nil {
			return err
		}
		k, err := c.kernel()
		if err != nil {
			return err
		}
		boot, err := guard.BootID(c.sysRoot)
		if err != nil {
			return err
		}
		return guard.Run(cmd.Context(), guard.Options{Dir: c.stateDir, Kernel: k, BootID: boot, Log: log})
	}}
}

// simple is a command that asks for one thing and says that it was done.
func simple(use, short, done string, do func(context.Context) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		if err := do(cmd.Context()); err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), done)
		return nil
	}}
}
