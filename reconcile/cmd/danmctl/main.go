// Command danmctl checks, renders, compares and plans bundles, and keeps a node's state directory in step with one (sync).
// It is wiring: flags become options, reconcile/cli does the work.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"danm.io/danm/reconcile/cli"
	"github.com/spf13/cobra"
)

var version = "devel" // set by the build

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], cli.IO{Out: os.Stdout, Err: os.Stderr, Color: cli.WantColor(os.Stdout, os.Getenv)})
	stop()
	os.Exit(code)
}

// run is main without the process: arguments in, exit code out.
func run(ctx context.Context, args []string, to cli.IO) int {
	code := cli.OK // also for help, --version and completion
	root := &cobra.Command{Use: "danmctl", Short: "Networks of a cluster from documents in Git", Version: version, SilenceUsage: true, SilenceErrors: true}
	root.RunE = func(*cobra.Command, []string) error { return fmt.Errorf("no command given; see danmctl --help") }
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.SetHelpFunc(func(c *cobra.Command, _ []string) {
		text := c.Long
		if text == "" {
			text = c.Short
		}
		fmt.Fprintf(to.Out, "%s\n\n%s", strings.TrimSpace(text), c.UsageString())
	})
	root.AddCommand(validate(&code, to), render(&code, to), pack(&code, to), diff(&code, to), plan(&code, to), graph(&code, to), initialise(&code, to), convert(&code, to), sync(&code, to), schema(&code, to), explain(&code, to), status(&code, to), retry(&code, to), addresses(&code, to))
	root.SetArgs(append([]string{}, args...)) // nil would mean the process's own
	root.SetOut(to.Out)
	root.SetErr(to.Err)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(to.Err, "danmctl:", err)
		return cli.Failed
	}
	return code
}

func validate(code *int, to cli.IO) *cobra.Command {
	var o cli.ValidateOptions
	c := &cobra.Command{Use: "validate PATH", Short: "Report every problem of a bundle: exit 0 valid, 1 invalid, 2 usage or I/O", Args: cobra.ExactArgs(1)}
	c.Run = func(c *cobra.Command, a []string) { o.Path = a[0]; *code = cli.Validate(c.Context(), o, to) }
	common(c, &o.Inventory, &o.Output, "text", "json")
	return c
}

func render(code *int, to cli.IO) *cobra.Command {
	var o cli.RenderOptions
	c := &cobra.Command{Use: "render PATH", Short: "Print the objects and the plan of each node: exit 0, or 2", Args: cobra.ExactArgs(1)}
	c.Run = func(c *cobra.Command, a []string) { o.Path = a[0]; *code = cli.Render(c.Context(), o, to) }
	common(c, &o.Inventory, &o.Output, "yaml", "json")
	return c
}

func pack(code *int, to cli.IO) *cobra.Command {
	var o cli.PackOptions
	var argo bool
	c := &cobra.Command{Use: "pack [PATH] --name N", Short: "Print a NetworkBundle with the files in ConfigMaps, to be applied: exit 0, or 2", Args: cobra.MaximumNArgs(1)}
	c.Run = func(c *cobra.Command, a []string) {
		o.Path = strings.Join(a, "")
		if argo {
			o.Getenv = os.Getenv
			o.Dir, _ = os.Getwd()
		}
		*code = cli.Pack(c.Context(), o, to)
	}
	c.Flags().StringVar(&o.Name, "name", "", "the NetworkBundle's `name`")
	c.Flags().StringVar(&o.Namespace, "namespace", "", "`namespace` of the ConfigMaps, danm-system if not given")
	c.Flags().BoolVar(&argo, "argocd", false, "take path, name and namespace from Argo CD's environment where they are not given")
	return c
}

func diff(code *int, to cli.IO) *cobra.Command {
	var o cli.DiffOptions
	var l cli.LiveOptions
	c := &cobra.Command{Use: "diff OLD NEW | diff PATH --live", Short: "Show what NEW changes against OLD, or PATH on a cluster's nodes: exit 0 nothing, 1 differences, 2 error"}
	c.Args = func(c *cobra.Command, a []string) error {
		if l.Wanted() && len(a) != 1 {
			return fmt.Errorf("diff PATH --live takes one PATH: it is compared with what the cluster has, not with another; received %d", len(a))
		}
		if !l.Wanted() && len(a) != 2 {
			return fmt.Errorf("diff takes OLD and NEW, or PATH with --live; received %d", len(a))
		}
		return nil
	}
	c.Run = func(c *cobra.Command, a []string) {
		switch {
		case !l.Wanted():
			o.Old, o.New = a[0], a[1]
			*code = cli.Diff(c.Context(), o, to)
		case o.Inventory != "":
			*code = usage(to, "--inventory and --live exclude each other: the cluster is the inventory")
		default:
			*code = cli.DiffLive(c.Context(), a[0], l, o.Output, to)
		}
	}
	common(c, &o.Inventory, &o.Output, "text", "json", "markdown")
	liveFlags(c, &l)
	return c
}

func graph(code *int, to cli.IO) *cobra.Command {
	var o cli.GraphOptions
	c := &cobra.Command{Use: "graph PATH", Short: "Draw who is connected to what: nodes, fabrics, networks, tenants: exit 0, or 2", Args: cobra.ExactArgs(1)}
	c.Run = func(c *cobra.Command, a []string) { o.Path = a[0]; *code = cli.Graph(c.Context(), o, to) }
	common(c, &o.Inventory, &o.Output, "mermaid", "svg", "dot")
	return c
}

func initialise(code *int, to cli.IO) *cobra.Command {
	var o cli.InitOptions
	c := &cobra.Command{Use: "init DIRECTORY", Short: "Write a bundle from what this host has; its plan here is empty", Args: cobra.ExactArgs(1)}
	c.Run = func(c *cobra.Command, a []string) { o.Dir = a[0]; *code = cli.Init(c.Context(), o, to) }
	c.Flags().StringVar(&o.Bundle, "name", "", "the bundle's `name`; the directory's if not given")
	c.Flags().StringVar(&o.Node, "node", "", "this host's `name` in the bundle; its host name if not given")
	c.Flags().StringSliceVar(&o.Interfaces, "interface", nil, "interfaces to declare; all hardware that is up if not given")
	return c
}

func convert(code *int, to cli.IO) *cobra.Command {
	o := cli.ConvertOptions{Stdin: os.Stdin}
	c := &cobra.Command{
		Use: "convert PATH... --to DIRECTORY", Args: cobra.MinimumNArgs(1),
		Short: "Make a bundle of DANM's manifests, NetworkAttachmentDefinitions and SR-IOV policies: exit 0, 1 it needs work, 2 error",
		Long:  "Make a bundle of DANM's networks and tenant configurations, of NetworkAttachmentDefinitions, and of the policies and networks of the sriov-network-operator, from files, directories, or - for what kubectl get -o yaml prints. What cannot be carried over is listed.",
	}
	c.Run = func(c *cobra.Command, a []string) { o.Paths = a; *code = cli.Convert(c.Context(), o, to) }
	c.Flags().StringVar(&o.Dir, "to", "", "`directory` to write, new or empty")
	c.Flags().StringVar(&o.Name, "name", "", "the bundle's `name`; the directory's if not given")
	c.Flags().StringVar(&o.ResourcePrefix, "resource-prefix", "", "`prefix` of the sriov-network-operator's resources, where it was deployed with another than openshift.io")
	outputFormats(c, &o.Output, "text", "json")
	must(c.MarkFlagRequired("to"))
	return c
}

func plan(code *int, to cli.IO) *cobra.Command {
	var o cli.PlanOptions
	c := &cobra.Command{Use: "plan PATH --node N", Short: "Show the steps that bring a node to the bundle: exit 0 none, 1 steps, 2 error", Args: cobra.ExactArgs(1)}
	c.Run = func(c *cobra.Command, a []string) { o.Path = a[0]; *code = cli.Plan(c.Context(), o, to) }
	common(c, &o.Inventory, &o.Output, "text", "json")
	nodeFlag(c, &o.Node, &o.Inventory)
	c.Flags().StringVar(&o.Observed, "observed", "", "`file` with the node's observed state, instead of bare hardware")
	c.Flags().BoolVar(&o.Local, "local", false, "observe this host")
	c.Flags().StringVar(&o.StateDir, "state-dir", "/var/lib/danm", "with --local: `directory` with the records of what DANM made here")
	return c
}

// nodeFlag completes to the nodes of the bundle in PATH, if that is on this machine.
func nodeFlag(c *cobra.Command, node, inventory *string) {
	c.Flags().StringVar(node, "node", "", "the node's `name` in the bundle")
	must(c.MarkFlagRequired("node"))
	must(c.RegisterFlagCompletionFunc("node", func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return cli.NodeNames(c.Context(), args[0], *inventory), cobra.ShellCompDirectiveNoFileComp
	}))
}

func schema(code *int, to cli.IO) *cobra.Command {
	return &cobra.Command{Use: "schema", Short: "Print the JSON Schema of a bundle's documents", Args: cobra.NoArgs, Run: func(*cobra.Command, []string) { *code = cli.Schema(to) }}
}

func explain(code *int, to cli.IO) *cobra.Command {
	return &cobra.Command{
		Use: "explain [CODE | KIND[.FIELD...]]", Short: "Say what a code means and what to do, or what a document's field holds; without a word, list all", Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return append(cli.Kinds(), cli.Codes()...), cobra.ShellCompDirectiveNoFileComp
		},
		Run: func(_ *cobra.Command, a []string) { *code = cli.Explain(strings.Join(a, ""), to) },
	}
}

func common(c *cobra.Command, inventory, output *string, formats ...string) {
	outputFormats(c, output, formats...)
	c.Flags().StringVar(inventory, "inventory", "", "`file` with nodes, their cards, and ids given earlier")
}

func outputFormats(c *cobra.Command, output *string, formats ...string) {
	c.Flags().StringVarP(output, "output", "o", formats[0], strings.Join(formats, " or "))
	must(c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp)))
}

func must(err error) {
	if err != nil { // a flag that does not exist: a mistake in this file
		panic(err)
	}
}
