package delegate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	npwgv1 "danm.io/danm/spec/npwg/v1"
)

var (
	// ErrConfig says that a network's configuration cannot be used; the text says which, and why.
	ErrConfig = errors.New("the configuration for other CNI plugins cannot be used")
	// ErrPlugin says that a plugin failed, or is not there.
	ErrPlugin = errors.New("a CNI plugin failed")
)

// Options of Plugins. The zero value has the usual places.
type Options struct {
	Root       string   // where the host's files are found, "" = /
	ConfDir    string   // on the host, where a network's file is looked for; "" = /etc/cni/net.d
	PluginDirs []string // on the host; nil = /opt/cni/bin
	CacheDir   string   // this process's, for results; required
	InfoDir    string   // on the host, of devices' information; "" = /run/k8s.cni.cncf.io/devinfo
	Most       int      // programs at once, 0 = 8
	Exec       invoke.Exec
}

// Plugins runs plugins. See New.
type Plugins struct {
	opts Options
	cni  *libcni.CNIConfig
}

// Call is the attachment that a list is called for.
type Call struct {
	Container, Netns, IfName string
	Args                     [][2]string    // CNI_ARGS
	Capabilities             map[string]any // by name; a plugin gets those that its configuration declares
}

// New makes ready; nothing is read or run before it is asked for.
func New(o Options) *Plugins {
	if o.Root == "/" {
		o.Root = ""
	}
	if o.ConfDir == "" {
		o.ConfDir = "/etc/cni/net.d"
	}
	if o.PluginDirs == nil {
		o.PluginDirs = []string{"/opt/cni/bin"}
	}
	if o.InfoDir == "" {
		o.InfoDir = npwgv1.DeviceInfoDir
	}
	if o.Most == 0 {
		o.Most = 8
	}
	if o.Exec == nil {
		o.Exec = newHost(o.Root, o.Most)
	}
	return &Plugins{opts: o, cni: libcni.NewCNIConfigWithCacheDir(o.PluginDirs, o.CacheDir, o.Exec)}
}

func (c Call) runtime() *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: c.Container, NetNS: c.Netns, IfName: c.IfName, Args: c.Args, CapabilityArgs: c.Capabilities}
}

func parse(list []byte) (*libcni.NetworkConfigList, error) {
	l, err := libcni.NetworkConfFromBytes(list)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return l, nil
}

// Add calls ADD of a list's plugins, each with the result of the one before. After an error it has called DEL of all of them.
// Errors: ErrConfig, ErrPlugin.
func (p *Plugins) Add(ctx context.Context, list []byte, c Call) (*types100.Result, error) {
	l, err := parse(list)
	if err != nil {
		return nil, err
	}
	r, err := p.cni.AddNetworkList(ctx, l, c.runtime())
	if err != nil {
		err = fmt.Errorf("ADD by %s for network %s: %w: %w", typesOf(l), l.Name, ErrPlugin, err)
		return nil, errors.Join(err, p.Del(context.WithoutCancel(ctx), list, c))
	}
	return asResult(r)
}

// Result is what Add answered, from the cache; nil if nothing is known.
func (p *Plugins) Result(list []byte, c Call) (*types100.Result, error) {
	l, err := parse(list)
	if err != nil {
		return nil, err
	}
	r, err := p.cni.GetNetworkListCachedResult(l, c.runtime())
	if err != nil || r == nil {
		return nil, err
	}
	return asResult(r)
}

func asResult(r types.Result) (*types100.Result, error) {
	out, err := types100.NewResultFromResult(r)
	if err != nil {
		return nil, fmt.Errorf("result of version %s: %w: %w", r.Version(), ErrPlugin, err)
	}
	return out, nil
}

// Del calls DEL of a list's plugins, the last first. It succeeds where a plugin is not installed any more: nobody can take down what it
// made, and the Pod's namespace goes without. Errors: ErrConfig, ErrPlugin; then it can be called again.
func (p *Plugins) Del(ctx context.Context, list []byte, c Call) (err error) {
	l, err := parse(list)
	if err != nil {
		return err
	}
	cached := p.cacheFile(l.Name, c)
	defer func() {
		if err == nil {
			_, _ = os.Remove(p.freshFile(cached)), os.Remove(cached) // as a rule libcni has, and the other there never was
		}
	}()
	if p.missing(l) != "" {
		return nil
	}
	if err := p.cni.DelNetworkList(ctx, l, c.runtime()); err != nil {
		return fmt.Errorf("DEL by %s for network %s: %w: %w", typesOf(l), l.Name, ErrPlugin, err)
	}
	return nil
}

// Missing names a plugin of a list that is not installed, "" if all are.
func (p *Plugins) Missing(list []byte) string {
	l, err := parse(list)
	if err != nil {
		return ""
	}
	return p.missing(l)
}

func (p *Plugins) missing(l *libcni.NetworkConfigList) string {
	for _, c := range l.Plugins {
		if _, err := p.opts.Exec.FindInPath(c.Network.Type, p.opts.PluginDirs); err != nil {
			return c.Network.Type
		}
	}
	return ""
}

// Check calls CHECK of a list's plugins, where the list's version has that (0.4.0).
func (p *Plugins) Check(ctx context.Context, list []byte, c Call) error {
	l, err := parse(list)
	if err != nil {
		return err
	}
	if has, err := version.GreaterThanOrEqualTo(l.CNIVersion, "0.4.0"); err != nil || !has {
		return err
	}
	if err := p.cni.CheckNetworkList(ctx, l, c.runtime()); err != nil {
		return fmt.Errorf("CHECK by %s for network %s: %w: %w", typesOf(l), l.Name, ErrPlugin, err)
	}
	return nil
}

// GC calls GC of a list's plugins, where the list's version has that (1.1.0), with the attachments that are still there.
func (p *Plugins) GC(ctx context.Context, list []byte, valid []types.GCAttachment) error {
	l, err := parse(list)
	if err != nil {
		return err
	}
	if has, err := version.GreaterThanOrEqualTo(l.CNIVersion, "1.1.0"); err != nil || !has {
		return err
	}
	if valid == nil {
		valid = []types.GCAttachment{} // null would be no list
	}
	if err := p.cni.GCNetworkList(ctx, l, &libcni.GCArgs{ValidAttachments: valid}); err != nil {
		return fmt.Errorf("GC by %s for network %s: %w: %w", typesOf(l), l.Name, ErrPlugin, err)
	}
	return nil
}

func typesOf(l *libcni.NetworkConfigList) string {
	var names []string
	for _, c := range l.Plugins {
		names = append(names, c.Network.Type)
	}
	return strings.Join(names, ", ")
}

// onHost is where a path of the host is found: in a container, where only some of its directories are mounted, through its first
// process (proc(5), /proc/pid/root).
func onHost(root, path string) string {
	if root == "" {
		return path
	}
	return filepath.Join(root, "proc/1/root", path)
}
