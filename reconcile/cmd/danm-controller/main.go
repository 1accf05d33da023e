// danm-controller runs the cluster home: it syncs NetworkBundles and rolls them out.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"danm.io/danm/reconcile/controller"
)

var version = "devel" // set by the build

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "danm-controller:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var o controller.Options
	var kubeconfig, logFormat, logLevel string
	cmd := &cobra.Command{Use: "danm-controller", Short: "DANM in the cluster: bundles to node plans", Version: version, Args: cobra.NoArgs,
		SilenceUsage: true, SilenceErrors: true, RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logger(logFormat, logLevel)
			if err != nil {
				return err
			}
			o.Log = log
			config, err := restConfig(kubeconfig)
			if err != nil {
				return err
			}
			return controller.Run(cmd.Context(), config, o)
		}}
	cmd.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	f := cmd.Flags()
	f.StringVar(&kubeconfig, "kubeconfig", "", "kubeconfig file, \"\" = the Pod's service account")
	f.StringVar(&o.Namespace, "namespace", "danm-system", "namespace of the controller: its Secrets and its lease")
	f.StringSliceVar(&o.ConfigMapNamespaces, "configmap-namespaces", nil, "further namespaces that bundles may be read from")
	f.StringVar(&o.CacheDir, "cache-dir", filepath.Join(os.TempDir(), "danm-controller"), "where fetched repositories and credentials are kept, best in memory")
	f.BoolVar(&o.LeaderElection, "leader-elect", true, "only one of several controllers works")
	f.StringVar(&o.MetricsAddr, "metrics-addr", ":9971", "address of /metrics, 0 = off")
	f.StringVar(&o.HealthAddr, "health-addr", ":9972", "address of /healthz and /readyz, 0 = off")
	f.DurationVar(&o.Patience, "patience", controller.DefaultPatience, "how long a node may take to confirm beyond its window before nobody waits for it")
	f.StringVar(&logFormat, "log-format", "text", "text or json")
	f.StringVar(&logLevel, "log-level", "info", "debug, info, warn or error")
	return cmd
}

func restConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		return rest.InClusterConfig()
	}
	c, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	c.QPS, c.Burst = 200, 400
	return c, nil
}

func logger(format, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log-level: %w", err)
	}
	o := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, o)), nil
	}
	return nil, fmt.Errorf("--log-format %s: text or json", format)
}
