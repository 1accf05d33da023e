package main

import (
	"strings"
	"time"

	"danm.io/danm/reconcile/cli"
	"github.com/spf13/cobra"
)

func sync(code *int, to cli.IO) *cobra.Command {
	var o cli.SyncOptions
	c := &cobra.Command{Use: "sync PATH --state-dir D --node N", Short: "Keep a node's state directory in step with a bundle (no cluster needed)", Args: cobra.ExactArgs(1)}
	c.Run = func(c *cobra.Command, a []string) { o.Path = a[0]; *code = cli.Sync(c.Context(), o, to) }
	c.Flags().StringVar(&o.StateDir, "state-dir", "", "`directory` that the node's agent reads")
	c.Flags().StringVar(&o.Node, "node", "", "the node's `name` in the bundle")
	c.Flags().DurationVar(&o.Interval, "interval", 30*time.Second, "how often to ask the source")
	c.Flags().BoolVar(&o.Once, "once", false, "one round: exit 0 done, 1 bundle refused, 2 error")
	c.Flags().StringVar(&o.LogFormat, "log-format", "text", "text or json")
	must(c.MarkFlagRequired("state-dir"))
	must(c.MarkFlagRequired("node"))
	return c
}

func status(code *int, to cli.IO) *cobra.Command {
	var o cli.StatusOptions
	c := &cobra.Command{Use: "status", Short: "Show how this node stands: source, plan, guard, Pods, cards: exit 0, or 2", Args: cobra.NoArgs}
	c.Run = func(c *cobra.Command, _ []string) { *code = cli.Status(c.Context(), o, to) }
	stateDir(c, &o.StateDir)
	outputFormats(c, &o.Output, "text", "json")
	return c
}

func retry(code *int, to cli.IO) *cobra.Command {
	var dir string
	c := &cobra.Command{Use: "retry [DIGEST]", Short: "Lift the quarantine of a plan on this node, or of all: exit 0, or 2", Args: cobra.MaximumNArgs(1)}
	c.Run = func(c *cobra.Command, a []string) { *code = cli.Retry(c.Context(), dir, strings.Join(a, ""), to) }
	stateDir(c, &dir)
	return c
}

func stateDir(c *cobra.Command, dir *string) {
	c.Flags().StringVar(dir, "state-dir", "/var/lib/danm", "the node's state `directory`")
}
