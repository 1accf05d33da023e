package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"danm.io/danm/node/agent"
	"danm.io/danm/node/guard"
	"danm.io/danm/node/link"
	"danm.io/danm/node/sriov"
)

func (c *common) logger() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.logLevel)); err != nil {
		return nil, fmt.Errorf("--log-level: %w", err)
	}
	o := &slog.HandlerOptions{Level: level}
	switch c.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, o)), nil
	}
	return nil, fmt.Errorf("--log-format %q: text or json", c.logFormat)
}

// apiConfig is how the API server is reached, nil for a node without one.
func apiConfig(kubeconfig string) (*rest.Config, error) {
	switch kubeconfig {
	case "":
		return nil, nil
	case "in-cluster":
		c, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("--kubeconfig in-cluster: %w", err)
		}
		return c, nil
	}
	c, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	return c, nil
}

func (c *common) kernel() (*sriov.Kernel, error) {
	k, err := link.New(c.sysRoot)
	if err != nil {
		return nil, err
	}
	return sriov.Over(k, c.sysRoot), nil
}

func statusCommand(c *common) *cobra.Command {
	var output string
	cmd := &cobra.Command{Use: "status", Short: "what is confirmed, under way, held back and refused", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		st, err := guard.Client{Dir: c.stateDir}.Status(cmd.Context())
		if err != nil {
			return err
		}
		switch output {
		case "text":
			_, err = fmt.Fprint(cmd.OutOrStdout(), st.Text(time.Now()))
		case "json":
			e := json.NewEncoder(cmd.OutOrStdout())
			e.SetIndent("", "  ")
			err = e.Encode(st)
		default:
			err = fmt.Errorf("--output %q: text or json", output)
		}
		return err
	}}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}

func restoreCommand(c *common) *cobra.Command {
	return &cobra.Command{Use: "restore", Short: "go back to the last confirmed plan, now", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		steps, err := guard.Client{Dir: c.stateDir}.Restore(cmd.Context())
		for _, s := range steps {
			fmt.Fprintln(cmd.OutOrStdout(), s)
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "restored: this node is at its last confirmed plan, %d steps\n", len(steps))
		return nil
	}}
}

func retryCommand(c *common) *cobra.Command {
	return &cobra.Command{Use: "retry [DIGEST]", Short: "lift the quarantine of a plan, or of all", Args: cobra.MaximumNArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		digest, what := "", "every plan"
		if len(args) == 1 {
			digest, what = args[0], args[0]
		}
		if err := (guard.Client{Dir: c.stateDir}).Retry(cmd.Context(), digest); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s may be tried again\n", what)
		return nil
	}}
}

func installCommand() *cobra.Command {
	var binary, dir, programs string
	cmd := &cobra.Command{Use: "install", Short: "put the CNI binary where runtimes look for it, as danm and as fakeipam", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		beside := func(name string) string { return filepath.Join(filepath.Dir(self), name) }
		if binary == "" {
			binary = beside("danm")
		}
		// The CNI binary comes last: what it talks to is in place by then.
		var todo [][2]string
		if programs != "" {
			for _, name := range []string{"danmctl", "danm-node"} {
				todo = append(todo, [2]string{beside(name), filepath.Join(programs, name)})
			}
		}
		for _, name := range agent.Programs {
			todo = append(todo, [2]string{binary, filepath.Join(dir, name)})
		}
		for _, t := range todo {
			changed, err := agent.Install(t[0], t[1])
			if err != nil {
				return err
			}
			verb := "is there already as"
			if changed {
				verb = "copied to"
			}
			fmt.Fprintln(cmd.OutOrStdout(), t[0], verb, t[1])
		}
		return nil
	}}
	cmd.Flags().StringVar(&binary, "binary", "", "the CNI binary, \"\" = the danm beside this program")
	cmd.Flags().StringVar(&dir, "cni-bin-dir", "/opt/cni/bin", "where runtimes look for it")
	cmd.Flags().StringVar(&programs, "bin-dir", "", "where danm-node and danmctl go, from beside this program, \"\" = nowhere")
	return cmd
}

func uninstallCommand() *cobra.Command {
	var conf, bin string
	cmd := &cobra.Command{Use: "uninstall", Short: "remove CNI conf and binary; links stay", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		gone, err := agent.Uninstall(conf, bin)
		for _, path := range gone {
			fmt.Fprintln(cmd.OutOrStdout(), "removed", path)
		}
		if err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), "links, addresses and the state directory stay as they are")
		return nil
	}}
	cmd.Flags().StringVar(&conf, "cni-conf-dir", "/etc/cni/net.d", "where the CNI conf stands")
	cmd.Flags().StringVar(&bin, "cni-bin-dir", "/opt/cni/bin", "where the CNI binary stands")
	return cmd
}
